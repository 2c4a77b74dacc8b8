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

from lm4ve.draw.figures import to_image, without_ticks
from lm4ve.draw.file_names import file_name
from lm4ve.draw.pictures import Frames, TokenMap
from lm4ve.draw.rankings import TRUE, Ranking, best, draw_bars
from lm4ve.draw.visualizer import PredictionVisualizationHook, PredictionVisualizer
from lm4ve.draw.words import draw_words, flow
from lm4ve.registry import HOOKS, VISUALIZERS
from lm4ve.runner.same_data import innermost

#: What the scores of answers are: sigmoids, of which several may be near one.
INDEPENDENT = 'Each answer is scored on its own: scores need not add up to 100 %.'
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

    def __init__(
        self, pixels: np.ndarray, words: list[str], text: str, joint: bool
    ) -> None:
        super().__init__(pixels)
        self.words = words
        self.joint = joint
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

    def draw_values(
        self, axes: Axes, tokens: TokenMap, colors: str, time: int = 0
    ) -> None:
        """Color cells of the image, boxes of words, or both."""
        grid, count = _split_grid(tokens.grid)
        norm = tokens.norm()
        top = 0.0  # of the words
        if grid:
            rows, columns = grid
            cells = tokens.values[: rows * columns]
            # One scale for image and words: that of all tokens.
            limits: Any = (norm.vmin, norm.vmax)
            image = replace(tokens, values=cells, grid=grid, limits=limits)
            super().draw_values(axes, image, colors, time)
            self._frame(axes)
            top = self.image_height
        if count:
            values = tokens.values[-count:][: len(self.words)]
            self._draw_words(axes, colormaps[colors](norm(values)), top)

    def _draw_words(self, axes: Axes, shades: list | np.ndarray, top: float) -> None:
        """Draw the words as boxes in their colors, from ``top`` inches downward."""
        draw_words(axes, self.words, self.places, self.size, shades, top, self.side)
        self._frame(axes)

    def _frame(self, axes: Axes) -> None:
        """Show the whole panel, in inches from its upper left corner."""
        axes.set(xlim=(0, self.side), ylim=(self.side * self.aspect, 0), aspect='equal')
        without_ticks(axes)

    def _extent(self) -> tuple[float, float, float, float]:
        # In inches of the panel, as the words are.
        return 0, self.side, self.image_height, 0


def _split_grid(grid: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """Return the grid of an image's tokens, empty without them, and the number of words.

    A grid of one number is of words, of two of an image, of three of an image and
    words.
    """
    if len(grid) == 2:
        return grid, 0
    return grid[:-1], grid[-1]


def draw_ranking(
    image: np.ndarray,
    heading: str,
    ranking: Ranking,
    truth: Sequence[str] = (),
    note: str = '',
) -> Figure:
    """Draw an image beside bars of scores.

    Args:
        image (np.ndarray): uint8 ``[H, W, 3]``, RGB.
        heading (str): The question.
        ranking (Sequence[tuple[str, float]]): Answers or captions, best first.
        truth (Sequence[str]): What is true: green where it is among them, and written
            below the image.
        note (str): Stands below the bars.
    """
    figure = Figure(
        figsize=(7.4, 3.4), dpi=110, facecolor='white', layout='constrained'
    )
    figure.suptitle(
        textwrap.fill(heading, 84), fontsize=11, weight='bold', parse_math=False
    )
    left, right = figure.subplots(1, 2)
    _show(left, image)
    if truth:
        text = textwrap.shorten(f'truth: {", ".join(dict.fromkeys(truth))}', 90)
        figure.supxlabel(text, fontsize=8.5, color=TRUE, parse_math=False)
    labels = []
    scores = []
    is_true = []
    for name, score in ranking:
        labels.append(textwrap.fill(name, 42))
        scores.append(score)
        is_true.append(name in truth)
    draw_bars(right, labels, np.array(scores), is_true)
    right.set_xlabel(note, fontsize=8)
    return figure


def draw_images(query: str, ranked: Sequence[tuple[np.ndarray, str, float]]) -> Figure:
    """Draw the images that fit a text best.

    Args:
        query (str): The text.
        ranked (Sequence[tuple]): Image uint8 ``[H, W, 3]`` RGB, its path and its score,
            best first.
    """
    width = max(1.8 * len(ranked), 3.8)
    figure = Figure(
        figsize=(width, 2.8), dpi=110, facecolor='white', layout='constrained'
    )
    title = textwrap.fill(query, int(13 * width))
    figure.suptitle(title, fontsize=11, weight='bold', parse_math=False)
    panels = figure.subplots(1, len(ranked), squeeze=False)[0]
    for i, (image, path, score) in enumerate(ranked):
        axes = panels[i]
        rank = i + 1
        _show(axes, image)
        name = textwrap.shorten(Path(path).name, 26, placeholder='…')
        axes.set_title(f'{rank}.  {score:.2f}\n{name}', fontsize=8, parse_math=False)
    return figure


def _show(axes: Any, image: np.ndarray) -> None:
    """Show an image; a small one with sharp pixels."""
    is_small = min(image.shape[:2]) < 100
    axes.imshow(image, interpolation='nearest' if is_small else 'antialiased')
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
        **options: Any,
    ) -> np.ndarray:
        """Draw a question with its best answers; send it to the backends, a file or a window.

        Args:
            name (str): The picture's name.
            image (np.ndarray): uint8 ``[H, W, 3]``, RGB.
            data_sample (VisionLanguageDataSample): With ``text`` and ``pred_scores``,
                and ``gt_answers`` where they are known.
            vocabulary (Sequence[str]): The answers.
            **options: Of :meth:`PredictionVisualizer.present`.

        Returns:
            np.ndarray: uint8 RGB.
        """
        ranking = best(data_sample.pred_scores, vocabulary)
        truth = data_sample.get('gt_answers') or ()
        figure = draw_ranking(image, data_sample.text[0], ranking, truth, INDEPENDENT)
        return self.present(name, to_image(figure), **options)


@HOOKS.register_module()
class VisionLanguageVisualizationHook(PredictionVisualizationHook):
    """Draw answered questions in validation and testing; retrieval has no single answers.

    Args:
        interval (int): Every n-th question.
        **kwargs: Passed to :class:`PredictionVisualizationHook`.
    """

    def __init__(self, interval: int = 5000, **kwargs: Any) -> None:
        super().__init__(interval=interval, **kwargs)

    def draw(
        self, runner, mode: str, number: int, index: int, batch: Any, sample: Any
    ) -> None:
        """Draw a question with its image and its best answers."""
        if 'pred_answer' not in sample:
            return
        name = f'{mode}_{file_name(number, sample.get("img_path"))}'
        loaded = batch['inputs'][index]  # BGR
        pixels = loaded.flip(0).permute(1, 2, 0).cpu().numpy()
        options = self.options(runner, f'{name}_{runner.iter}')
        vocabulary = innermost(runner.model).head.vocabulary
        runner.visualizer.add_datasample(name, pixels, sample, vocabulary, **options)
