"""Pictures of answers, of ranked images, and of the tokens of an image and its words."""

import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mmengine.model import is_model_wrapper

from lm4ve.registry import HOOKS, VISUALIZERS
from lm4ve.tasks.base.analysis import numbered
from lm4ve.tasks.base.language.rankings import TRUE, Ranking, best, draw_bars
from lm4ve.tasks.base.language.words import draw_words, flow
from lm4ve.tasks.base.pictures import (
    Frames,
    PredictionVisualizationHook,
    PredictionVisualizer,
    TokenMap,
    to_image,
    without_ticks,
)

#: Inches: the most that words below an image take.
_BAND = 1.2


class ImageAndWords(Frames):
    """An image, and tokens of words as boxes in the order of the text.

    A panel shows the image, the words, or for a joint sequence the image above the
    words.

    Args:
        pixels (np.ndarray): uint8 ``[1, H, W, 3]``, RGB.
        words (list[str]): The text's tokens.
        text (str): The text, which stands below the input.
        joint (bool): Leave room for the words below the image.
    """

    side = 1.9

    def __init__(self, pixels: np.ndarray, words: list[str], text: str, joint: bool) -> None:
        super().__init__(pixels)
        self.words, self.joint = words, joint
        self.image_height = self.side * self.aspect
        if joint:
            self.places, self.size, band = flow(words, self.side, _BAND)
            self.aspect = (self.image_height + band) / self.side
        else:
            self.places, self.size, _ = flow(words, self.side, self.image_height)
            self.caption = textwrap.fill(text, 38)

    def draw_input(self, axes: Axes, time: int = 0) -> None:
        """Draw the image; of a joint sequence also the words."""
        super().draw_input(axes, time)
        if self.joint:
            self._draw_words(axes, ['white'] * len(self.words), self.image_height)

    def draw_values(self, axes: Axes, tokens: TokenMap, colors: str, time: int = 0) -> None:
        """Color cells of the image, boxes of words, or both."""
        norm = tokens.norm()
        *grid, count = tokens.grid
        if len(tokens.grid) == 2:
            super().draw_values(axes, tokens, colors, time)
            self._frame(axes)
            return
        values, top = tokens.values[-count:], 0.0
        if grid:
            cells = replace(
                tokens,
                values=tokens.values[:-count],
                grid=tuple(grid),
                limits=(norm.vmin, norm.vmax),
            )
            super().draw_values(axes, cells, colors, time)
            top = self.image_height
        shades = colormaps[colors](norm(values[: len(self.words)]))
        self._draw_words(axes, shades, top)

    def _draw_words(self, axes: Axes, shades: list | np.ndarray, top: float) -> None:
        draw_words(axes, self.words, self.places, self.size, shades, top, self.side)
        self._frame(axes)

    def _frame(self, axes: Axes) -> None:
        axes.set(xlim=(0, self.side), ylim=(self.side * self.aspect, 0), aspect='equal')
        without_ticks(axes)

    def _extent(self) -> tuple[float, ...]:
        # In inches of the panel, as the words are.
        return 0, self.side, self.image_height, 0


def draw_ranking(
    image: np.ndarray, heading: str, ranking: Ranking, truth: Sequence[str] = ()
) -> Figure:
    """Draw an image beside bars of scores.

    Args:
        image (np.ndarray): uint8 ``[H, W, 3]``, RGB.
        heading (str): The question.
        ranking (Sequence[tuple[str, float]]): Answers or captions, best first.
        truth (Sequence[str]): What is true: green where it is among them, and said below
            the image.
    """
    names = [textwrap.fill(name, 42) for name, _ in ranking]
    scores = np.array([score for _, score in ranking])
    title = textwrap.fill(heading, 84)
    lines = sum(n.count('\n') + 1 for n in names)
    band = 0.22 * (title.count('\n') + 1) + 0.2
    height = max(2.4, 0.2 * lines + 0.18 * len(names) + 0.3)
    figure = Figure(figsize=(7.4, height + band + 0.35), dpi=110, facecolor='white')
    whole = height + band + 0.35
    figure.text(
        0.02, 1 - 0.1 / whole, title, va='top', fontsize=11, weight='bold', parse_math=False
    )
    place = (0.02, 0.3 / whole, 0.32, height / whole)
    _show(figure.add_axes(place), image)
    if truth:
        text = f'truth: {", ".join(dict.fromkeys(truth))}'
        figure.text(0.02, 0.12 / whole, textwrap.shorten(text, 90), fontsize=8.5, color=TRUE)
    longest = max(len(part) for n in names for part in n.split('\n'))
    left = 0.38 + min(0.011 * longest, 0.4)
    axes = figure.add_axes((left, 0.3 / whole, 0.93 - left, height / whole))
    draw_bars(axes, names, scores, [name in truth for name, _ in ranking])
    return figure


def draw_images(query: str, ranked: Sequence[tuple[np.ndarray, str, float]]) -> Figure:
    """Draw the images that fit a text best.

    Args:
        query (str): The text.
        ranked (Sequence[tuple]): Image uint8 ``[H, W, 3]`` RGB, its name and its score, best
            first.
    """
    count = len(ranked)
    title = textwrap.fill(query, max(24 * count, 48))
    band = 0.22 * (title.count('\n') + 1) + 0.2
    side, gap = 1.7, 0.12
    width = max(count * (side + gap) + gap, 3.8)
    whole = band + side + 0.55
    figure = Figure(figsize=(width, whole), dpi=110, facecolor='white')
    figure.text(
        gap / width, 1 - 0.1 / whole, title, va='top', fontsize=11, weight='bold', parse_math=False
    )
    for i, (image, name, score) in enumerate(ranked):
        x = gap + i * (side + gap)
        axes = figure.add_axes((x / width, 0.5 / whole, side / width, side / whole))
        _show(axes, image)
        text = f'{i + 1}.  {score:.2f}\n{textwrap.shorten(name, 26, placeholder="…")}'
        figure.text(x / width, 0.42 / whole, text, va='top', fontsize=8, parse_math=False)
    return figure


def _show(axes: Any, image: np.ndarray) -> None:
    axes.imshow(image, interpolation='nearest' if min(image.shape[:2]) < 100 else 'antialiased')
    axes.set_anchor('N')
    axes.set_axis_off()


@VISUALIZERS.register_module()
class VisionLanguageVisualizer(PredictionVisualizer):
    """MMEngine's visualizer for answered questions; takes its arguments."""

    def add_datasample(
        self,
        name: str,
        image: np.ndarray,
        data_sample: Any,
        vocabulary: Sequence[str],
        show: bool = False,
        wait_time: float = 0.0,
        out_file: str | None = None,
        step: int = 0,
    ) -> np.ndarray:
        """Draw a question with its best answers; send it to the backends, a file or a window.

        Args:
            name (str): The picture's name.
            image (np.ndarray): uint8 ``[H, W, 3]``, RGB.
            data_sample (VisionLanguageDataSample): With ``text`` and ``pred_scores``, and
                ``gt_answers`` where they are known.
            vocabulary (Sequence[str]): The answers.
            show (bool): Show it in a window, for ``wait_time`` seconds.
            out_file (str, optional): A PNG instead of the backends.
            step (int): Global step.

        Returns:
            np.ndarray: uint8 RGB.
        """
        ranking = best(data_sample.pred_scores, vocabulary)
        truth = data_sample.get('gt_answers') or ()
        drawn = to_image(draw_ranking(image, data_sample.text[0], ranking, truth))
        return self.present(name, drawn, show, wait_time, out_file, step)


@HOOKS.register_module()
class VisionLanguageVisualizationHook(PredictionVisualizationHook):
    """Draw answered questions in validation and testing; retrieval has no single answers.

    Args:
        interval (int): Every n-th question.
        **kwargs: Passed to :class:`PredictionVisualizationHook`.
    """

    def __init__(self, interval: int = 5000, **kwargs: Any) -> None:
        super().__init__(interval=interval, **kwargs)

    def draw(self, runner, mode: str, number: int, index: int, batch: Any, sample: Any) -> None:
        """Draw a question with its image and its best answers."""
        if 'pred_answer' not in sample:
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        path = sample.get('img_path')
        name = f'{mode}_{numbered(number, Path(path).stem if path else None)}'
        pixels = batch['inputs'][index].flip(0).permute(1, 2, 0).cpu().numpy()  # loaded as BGR
        runner.visualizer.add_datasample(
            name,
            pixels,
            sample,
            model.head.vocabulary,
            **self.options(runner, f'{name}_{runner.iter}'),
        )
