"""Turns a batch's :class:`Analysis` into samples: arrays, names and numbers.

Pictures and tables are made of the same samples, so that a picture and its page agree.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lm4ve.analysis.activations import Analysis, Attention
from lm4ve.analysis.measures import MEASURES
from lm4ve.draw.pictures import Picture, TokenMap, share_scales
from lm4ve.tasks import get_task
from lm4ve.tasks.base.layouts import Layout

#: Color maps, both perceptually uniform.
MEASURE_COLORS = 'viridis'
ATTENTION_COLORS = 'magma'
#: At most so many named rows of attention get a panel, from the first on.
_MOST_ROWS = 11
#: Attention that varies by less than this share of its mean is called nearly uniform.
_NEARLY_UNIFORM = 0.1


class Section(NamedTuple):
    """Panels that belong together, under a title and with one color map."""

    title: str
    colors: str
    maps: list[TokenMap]


class Number(NamedTuple):
    """A row of the page's table: mean and largest value of a quantity, not normalized."""

    quantity: str
    label: str
    module: str
    mean: float
    largest: float


@dataclass
class Sample:
    """One sample, ready to be drawn.

    Attributes:
        name (str): Its name.
        picture (Picture): Draws input and tokens.
        sections (list[Section]): Magnitude, frequency, attention.
        facts (dict[str, str]): The prediction, the truth if known, and the score.
        numbers (list[Number]): The numbers of the sections, unscaled.
    """

    name: str
    picture: Picture
    sections: list[Section]
    facts: dict[str, str]
    numbers: list[Number]


def samples_of(
    analysis: Analysis,
    model: nn.Module,
    names: Sequence[str],
    evaluator: Any,
    measures: Sequence[str] = tuple(MEASURES),
    classes: Sequence[str] | None = None,
    heads: int | None = None,
) -> list[Sample]:
    """Split the analysis of a batch into samples.

    Args:
        analysis (Analysis): The batch's analysis.
        model (nn.Module): The model that was analysed, for the task's pictures.
        names (Sequence[str]): The names of the samples.
        evaluator (dict | list, optional): The config's settings of its metrics, for the
            score of a prediction (:func:`lm4ve.tasks.base.tested.tested_evaluator`).
        measures (Sequence[str]): Which of 'magnitude', 'frequency' to show.
        classes (Sequence[str], optional): Names of the labels.
        heads (int, optional): How many attention heads get a panel of their own, from
            the first on; None: all. Attention of named rows, such as the words of a
            question, has a panel for each row instead: for all with None, else for at
            most 11.

    Returns:
        list[Sample]: The samples. Where a model sees several views of one, the first
        view is shown; see :meth:`lm4ve.tasks.base.protocol.TaskProtocol.frames_shown`.
    """
    protocol = get_task(analysis.kind).protocol
    layouts = [point.layout for point in analysis.points.values()]
    layouts += [attention.layout for attention in analysis.attention.values()]
    frames = protocol.frames_shown(analysis.inputs, layouts)
    pictures = protocol.pictures(model, analysis.inputs, analysis.outputs, frames)
    splitting = _Splitting(analysis, frames)
    samples = []
    for i, (name, output) in enumerate(zip(names, analysis.outputs, strict=True)):
        sections, numbers = splitting.sections_of(i, measures, heads)
        facts = protocol.describe(output, classes, evaluator)
        samples.append(Sample(name, pictures[i], sections, facts, numbers))
    return samples


class _Splitting:
    """Splits the analysis of a batch by samples.

    Args:
        analysis (Analysis): The analysis of the batch.
        frames (int): How many frames of a clip are shown; 1 for other inputs.
    """

    def __init__(self, analysis: Analysis, frames: int) -> None:
        self.analysis = analysis
        self.frames = frames

    def sections_of(
        self, i: int, measures: Sequence[str], heads: int | None
    ) -> tuple[list[Section], list[Number]]:
        """Return a section for each measure and each attention of sample ``i``.

        Args:
            i (int): The sample's place in the batch.
            measures (Sequence[str]): Which of 'magnitude', 'frequency' to show.
            heads (int, optional): See :func:`samples_of`.

        Returns:
            tuple[list[Section], list[Number]]: The sections, and their numbers: for a
            measure one for each point, for an attention its entropy.
        """
        sections = []
        numbers = []
        for measure in measures:
            section, numbers_of_points = self.measure(i, measure)
            sections.append(section)
            numbers.extend(numbers_of_points)
        for label, attention in self.analysis.attention.items():
            rows = self.rows_of(i, attention.weights, attention.layout)
            section, entropy = _attention_section(label, attention, rows, heads)
            sections.append(section)
            numbers.append(entropy)
        return sections, numbers

    def rows_of(self, i: int, values: Tensor, layout: Layout) -> slice:
        """Return the rows of a point's or an attention's values that show sample ``i``.

        A sample has a row for each of its views; for a clip that is seen frame by frame,
        a row for each frame.

        Args:
            i (int): The sample's place in the batch.
            values (Tensor): ``[B, ...]``, where B counts rows.
            layout (Layout): The layout of its tokens; a row has ``times`` frames.
        """
        rows_of_sample = len(values) // len(self.analysis.outputs)
        shown = max(self.frames // layout.times, 1)
        first = i * rows_of_sample
        return slice(first, first + shown)

    def measure(self, i: int, measure: str) -> tuple[Section, list[Number]]:
        """Measure sample ``i`` at every point; return the panels and their numbers.

        Args:
            i (int): The sample's place in the batch.
            measure (str): 'magnitude' or 'frequency'.
        """
        maps = []
        numbers = []
        for label, point in self.analysis.points.items():
            layout = point.layout
            rows = self.rows_of(i, point.tokens, layout)
            values = MEASURES[measure](point.tokens[rows], _padding(layout, rows))
            token_map = _map(label, point.name, values, layout, rows)
            mean = float(np.nanmean(token_map.values))
            largest = float(np.nanmax(token_map.values))
            maps.append(token_map)
            numbers.append(Number(measure, label, point.name, mean, largest))
        share_scales(maps)
        return Section(measure.capitalize(), MEASURE_COLORS, maps), numbers


def _padding(layout: Layout, rows: slice) -> Tensor | None:
    """Return the padding mask of some rows of the batch, or None if it has none."""
    if layout.padding_mask is None:
        return None
    return layout.padding_mask[rows]


def _map(
    title: str, module: str, values: Tensor, layout: Layout, rows: slice
) -> TokenMap:
    """Make the map of a panel from values of tokens.

    Args:
        title, module (str): The panel's title, and the module that gave the tokens.
        values (Tensor): ``[rows, N]``: one row, or a row for each frame.
        layout (Layout): The layout of the tokens.
        rows (slice): The rows of the batch that the values are of.

    Returns:
        TokenMap: The values of all frames in order, NaN at padding.
    """
    padding = _padding(layout, rows)
    if padding is not None:
        values = values.masked_fill(padding, torch.nan)
    grid = tuple(layout.grid)
    count = len(values)
    if count > 1:
        grid = (layout.times * count, *grid[-2:])
    flat = values.detach().double().flatten().cpu().numpy()
    return TokenMap(title, module, flat, grid)


def _attention_section(
    label: str, attention: Attention, rows: slice, heads: int | None
) -> tuple[Section, Number]:
    """Return the panels of one sample's attention, and its entropy.

    Args:
        label (str): 'encoder', 'block', or the label of a task's own.
        attention (Attention): The attention of the batch.
        rows (slice): The rows of the sample.
        heads (int, optional): See :func:`samples_of`.
    """
    weights = attention.weights[rows].double()
    if attention.titles is None:
        panels = _panels_of_heads(weights, heads)
    else:
        titles = attention.titles[rows.start]
        weights = weights[:, : len(titles)]
        panels = _panels_of_rows(weights, titles, heads)
    maps = []
    for title, values in panels:
        maps.append(_map(title, attention.name, values, attention.layout, rows))
    share_scales(maps[1:])  # of the heads: their sum has other values
    for token_map in maps:
        _mark_uniform(token_map)
    row = attention.row
    if not row.startswith('mean'):
        row = f'of the {row}'
    title = f'Attention, {label}: {row} ({attention.name})'
    entropy = _entropy(label, attention, weights, rows)
    return Section(title, ATTENTION_COLORS, maps), entropy


def _panels_of_heads(weights: Tensor, heads: int | None) -> list[tuple[str, Tensor]]:
    """Return titles and values of the panels of attention heads: their sum, then each.

    Args:
        weights (Tensor): ``[rows, H, N]``.
        heads (int, optional): How many heads get a panel, from the first on; None: all.
    """
    count = weights.shape[1]
    panels = [(f'sum of {count} heads', weights.sum(dim=1))]
    for head in range(count)[:heads]:
        panels.append((f'head {head + 1}', weights[:, head]))
    return panels


def _panels_of_rows(
    weights: Tensor, titles: Sequence[str], heads: int | None
) -> list[tuple[str, Tensor]]:
    """Return titles and values of the panels of named rows: their mean, then each.

    Args:
        weights (Tensor): ``[rows, R, N]``.
        titles (Sequence[str]): R names.
        heads (int, optional): None: all rows get a panel. Any number, which counts
            heads and has no meaning for rows: at most :data:`_MOST_ROWS` get one.
    """
    panels = []
    if len(titles) > 1:  # a single row is its own mean
        panels.append((f'mean of {len(titles)} rows', weights.mean(dim=1)))
    most = None if heads is None else _MOST_ROWS
    for i, title in enumerate(titles[:most]):
        panels.append((title, weights[:, i]))
    return panels


def _mark_uniform(token_map: TokenMap) -> None:
    """Mark a map of attention whose weights are nearly equal, by its title and its color scale.

    The scale begins at zero then, where one from the smallest to the largest value would
    show small differences as a pattern. It ends where it did before. A map whose weights
    are all zero is not marked. Padding (NaN) does not count.

    Args:
        token_map (TokenMap): Weights, which are not negative. It is changed in place.
    """
    smallest, largest = token_map.ends()  # without padding
    mean = np.nanmean(token_map.values)
    is_nearly_uniform = largest - smallest < _NEARLY_UNIFORM * mean
    if not is_nearly_uniform:
        return
    end_of_scale = largest
    if token_map.limits is not None:
        _, end_of_scale = token_map.limits
    token_map.title = f'{token_map.title}, nearly uniform'
    token_map.limits = (0.0, end_of_scale)


def _entropy(label: str, attention: Attention, weights: Tensor, rows: slice) -> Number:
    """Return the entropy of attention rows in nats; the quantity's name has its maximum.

    The weights are normalized first, since what the prefix gets is missing.

    Args:
        label (str): The attention's label.
        attention (Attention): The attention.
        weights (Tensor): float64 ``[rows, H, N]``.
        rows (slice): Which rows of the batch they are.
    """
    p = weights / weights.sum(dim=-1, keepdim=True).clamp(min=1e-300)
    entropy = torch.special.entr(p).sum(dim=-1)
    padding = _padding(attention.layout, rows)
    count = weights.shape[-1]
    if padding is not None:
        count = int((~padding).sum())
    quantity = f'attention entropy (at most {math.log(count):.2f} nats)'
    mean = float(entropy.mean())
    largest = float(entropy.max())
    return Number(quantity, label, attention.name, mean, largest)
