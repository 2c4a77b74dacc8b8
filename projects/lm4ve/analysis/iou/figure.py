"""Pictures of pseudo-masks, which show image by image what an IoU looks like."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from lm4ve.analysis.iou.pseudo_masks import VARIANTS, TokenMaps, iou, token_mask
from lm4ve.analysis.iou.report import CHOICES, Report
from lm4ve.tasks.base.pictures import save_figure

#: How much of its brightness a token outside the pseudo-mask keeps.
_DIMMED = 0.25


@dataclass
class Example:
    """An image and its maps.

    Attributes:
        pixels (np.ndarray): uint8 ``[H, W, 3]``, RGB, as it leaves the pipeline.
        mask (np.ndarray): uint8 ``[H, W]``, as :func:`token_mask` takes it.
        maps (list[TokenMaps]): The image's maps, with ``values`` ``[1, N]``.
    """

    pixels: np.ndarray
    mask: np.ndarray
    maps: list[TokenMaps]


def examples_of(
    inputs: Sequence,
    masks: Sequence[np.ndarray],
    maps: Sequence[TokenMaps],
    is_bgr: bool,
    count: int,
) -> list[Example]:
    """Keep the first images of a batch.

    Args:
        inputs (Sequence[Tensor]): ``[3, H, W]`` each, as packed.
        masks (Sequence[np.ndarray]): The images' masks.
        maps (Sequence[TokenMaps]): The batch's maps.
        is_bgr (bool): The inputs' channels are in the order blue, green, red.
        count (int): Keep at most so many images.
    """
    found = []
    for i in range(min(count, len(masks))):
        pixels = inputs[i].cpu().numpy().transpose(1, 2, 0)
        if pixels.dtype != np.uint8:  # normalized by the pipeline
            pixels = np.uint8(255 * (pixels - pixels.min()) / max(np.ptp(pixels), 1e-9))
        own = [replace(m, values=m.values[i : i + 1]) for m in maps]
        found.append(Example(pixels[..., ::-1] if is_bgr else pixels, masks[i], own))
    return found


def draw_examples(
    examples: Sequence[Example], report: Report, rule: str, path: str | Path, title: str = ''
) -> None:
    """Draw image, mask and pseudo-masks with the fixed thresholds, a row an image.

    Args:
        examples (Sequence[Example]): The images.
        report (Report): Holds the fixed thresholds.
        rule (str): The rule of :func:`token_mask` that the report was made with.
        path (str | Path): The file to write.
        title (str): Stands above the picture.
    """
    thresholds = {
        (r.measure, r.point): r.threshold
        for r in report.rows
        if r.threshold_choice == CHOICES[1] and r.variant == VARIANTS[0]
    }
    columns = 2 + len(examples[0].maps)
    figure = Figure(figsize=(1.15 * columns, 1.3 * len(examples) + 0.6), layout='constrained')
    axes = figure.subplots(len(examples), columns, squeeze=False)
    for row, example in zip(axes, examples, strict=True):
        grid = example.maps[0].grid
        truth, _ = token_mask(example.mask, grid, rule)
        shown = [('image', example.pixels, ''), ('mask', _lit(example.pixels, truth, grid), '')]
        for m in example.maps:
            truth, valid = token_mask(example.mask, m.grid, rule)
            t = thresholds[m.measure, m.point]
            predicted = m.values[0] > t
            name, score = f'{m.measure}\n{m.point}, t = {t:g}', iou(predicted, truth, valid)
            lit = _lit(example.pixels, predicted, m.grid)
            shown.append((name, lit, f'{100 * score:.0f}'))
        for ax, (name, picture, score) in zip(row, shown, strict=True):
            ax.imshow(picture, interpolation='nearest')
            ax.set(xticks=[], yticks=[])
            ax.set_xlabel(score, fontsize=7, labelpad=1)
            if example is examples[0]:
                ax.set_title(name, fontsize=7)
    figure.suptitle(title, fontsize=8)
    save_figure(figure, path, dpi=110)


def _lit(pixels: np.ndarray, tokens: np.ndarray, grid) -> np.ndarray:
    """Return the picture, dark where ``tokens`` ``[N]`` is False."""
    height, width = pixels.shape[:2]
    rows, columns = (np.arange(n) * g // n for n, g in zip((height, width), grid, strict=True))
    light = np.where(tokens.reshape(grid)[rows][:, columns], 1.0, _DIMMED)
    return (pixels * light[..., None]).astype(np.uint8)
