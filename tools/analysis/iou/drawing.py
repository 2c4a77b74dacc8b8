"""Pictures of pseudo-masks: IoU over the threshold, and masks on their images."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from lm4ve.draw.figures import save_figure, without_ticks

from . import pseudo_masks
from .pseudo_masks import AS_IS, PRIOR, TokenMaps, token_mask
from .report import FIXED, Report


def plot_thresholds(report: Report, path: Path, title: str = '') -> None:
    """Draw IoU over the threshold, a panel for each measure, with the 95 % band."""
    curves = report.frame[report.frame['table'] == 'curves']
    measures = curves['measure'].unique()
    colors = {point: f'C{i}' for i, point in enumerate(curves['point'].unique())}
    figure = Figure(figsize=(4 * len(measures), 3.6), layout='constrained')
    axes = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    for ax, measure in zip(axes, measures, strict=True):
        own = curves[curves['measure'] == measure]
        for point, rows in own.groupby('point', sort=False):
            x = rows['threshold']
            color = colors[point]
            ax.plot(x, rows['iou'], 'o-', ms=3, label=point, color=color)
            ax.fill_between(x, rows['low'], rows['high'], alpha=0.2, lw=0, color=color)
        ax.axhline(report.prior['iou'], color='.5', ls='--', lw=1, label=PRIOR[0])
        ax.set(title=measure, xlabel='threshold')
        ax.grid(alpha=0.3)
        ax.legend(fontsize=7)
    axes[0].set_ylabel('IoU, mean over images')
    axes[0].set_ylim(bottom=0)  # last: the panels share it
    figure.suptitle(title, fontsize=9)
    save_figure(figure, path, dpi=110)


class Example(NamedTuple):
    """An image, uint8 ``[H, W, 3]`` RGB, its mask, and its maps with values ``[1, N]``."""

    pixels: np.ndarray
    mask: np.ndarray
    maps: list[TokenMaps]


def draw_examples(
    examples: Sequence[Example], report: Report, rule: str, path: Path, title: str = ''
) -> None:
    """Draw image, mask and pseudo-masks with the fixed thresholds, a row an image.

    Args:
        examples (Sequence[Example]): The images.
        report (Report): Holds the fixed thresholds.
        rule (str): The rule of :func:`token_mask` that the report was made with.
        path (Path): The file to write.
        title (str): The title of the picture.
    """
    frame = report.frame
    is_of_map = (frame['table'] == 'rows') & (frame['variant'] == AS_IS)
    rows = frame[is_of_map & (frame['threshold_choice'] == FIXED)]
    thresholds = rows.set_index(['measure', 'point'])['threshold'].to_dict()
    columns = 2 + len(examples[0].maps)
    size = (1.15 * columns, 1.3 * len(examples) + 0.6)
    figure = Figure(figsize=size, layout='constrained')
    axes = figure.subplots(len(examples), columns, squeeze=False)
    for i, example in enumerate(examples):
        panels = _example_panels(example, thresholds, rule)
        for ax, panel in zip(axes[i], panels, strict=True):
            ax.imshow(panel.picture, interpolation='nearest')
            without_ticks(ax)
            ax.set_xlabel(panel.score, fontsize=7, labelpad=1)
            ax.set_title(panel.name if i == 0 else '', fontsize=7)
    figure.suptitle(title, fontsize=8)
    save_figure(figure, path, dpi=110)


class _Panel(NamedTuple):
    """A panel of an example: its name, its picture, and the IoU in per cent as text."""

    name: str
    picture: np.ndarray
    score: str = ''


def _example_panels(
    example: Example, thresholds: dict[tuple[str, str], float], rule: str
) -> list[_Panel]:
    """Return the panels of an example: the image, its mask, and a pseudo-mask for each map.

    Args:
        example (Example): The image.
        thresholds (dict): Measure and point -> threshold.
        rule (str): The rule of :func:`token_mask`.
    """
    pixels = example.pixels
    # The mask is shown on the grid of the first map.
    shown_grid = example.maps[0].grid
    shown_mask, _ = token_mask(example.mask, shown_grid, rule)
    panels = [
        _Panel('image', pixels),
        _Panel('mask', _lit(pixels, shown_mask, shown_grid)),
    ]
    for token_maps in example.maps:
        # Maps may differ in their grids; each is scored on its own.
        truth, valid = token_mask(example.mask, token_maps.grid, rule)
        threshold = thresholds[token_maps.measure, token_maps.point]
        (values,) = token_maps.values  # of the one image, [N]
        predicted = values > threshold
        name = f'{token_maps.measure}\n{token_maps.point}, t = {threshold:g}'
        score = f'{100 * pseudo_masks.iou(predicted, truth, valid):.0f}'
        picture = _lit(pixels, predicted, token_maps.grid)
        panels.append(_Panel(name, picture, score))
    return panels


def _lit(pixels: np.ndarray, tokens: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Return a picture that is dark where tokens are False.

    Args:
        pixels (np.ndarray): uint8 ``[H, W, 3]``.
        tokens (np.ndarray): bool ``[N]``, row by row of the grid.
        grid (tuple[int, int]): Rows and columns of the tokens.
    """
    height, width = pixels.shape[:2]
    rows, columns = grid
    row_of_pixel = np.arange(height) * rows // height
    column_of_pixel = np.arange(width) * columns // width
    is_lit = tokens.reshape(grid)[row_of_pixel][:, column_of_pixel]
    light = np.where(is_lit, 1.0, 0.25)
    return (pixels * light[..., None]).astype(np.uint8)
