"""Turns a batch's :class:`Analysis` into samples: arrays, names and numbers.

Pictures and tables are made of the same samples, so that a picture and its page agree.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lm4ve.analysis.capture import Analysis, Attention
from lm4ve.analysis.measures import MEASURES
from lm4ve.draw.pictures import Picture, TokenMap, share_scales
from lm4ve.tasks import get_task
from lm4ve.tasks.base.analysis import Layout

#: Color maps, both perceptually uniform.
MEASURE_COLORS, ATTENTION_COLORS = 'viridis', 'magma'
#: At most so many rows of attention with a name get a panel, the first ones.
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
        facts (dict[str, str]): The prediction, and the truth if known.
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
    measures: Sequence[str] = tuple(MEASURES),
    classes: Sequence[str] | None = None,
    heads: int | None = None,
) -> list[Sample]:
    """Split the analysis of a batch into samples.

    Args:
        analysis (Analysis): The batch's analysis.
        model (nn.Module): The model that was analysed, for the task's pictures.
        names (Sequence[str]): The names of the samples.
        measures (Sequence[str]): Which of 'magnitude', 'frequency' to show.
        classes (Sequence[str], optional): Names of the labels.
        heads (int, optional): So many attention heads get a panel of their own, the
            first ones; None: all of them, and of rows with a name all, too.

    Returns:
        list[Sample]: The samples. Where a model sees several views of one, the first
        view is shown; see :meth:`lm4ve.tasks.base.analysis.TaskAnalysis.frames_shown`.
    """
    task = get_task(analysis.kind).analysis
    inputs, outputs = analysis.inputs, analysis.outputs
    layouts = [point.layout for point in analysis.points.values()]
    layouts += [attention.layout for attention in analysis.attention.values()]
    frames = task.frames_shown(inputs, layouts)
    pictures = task.pictures(model, inputs, outputs, frames)

    def rows_of(i: int, values: Tensor, layout: Layout) -> slice:
        """Return which rows of a point or an attention show sample ``i``."""
        each = len(values) // len(outputs)
        return slice(i * each, i * each + max(frames // layout.times, 1))

    found = []
    for i, (name, output) in enumerate(zip(names, outputs, strict=True)):
        sections, numbers = [], []
        for measure in measures:
            maps = []
            for label, point in analysis.points.items():
                rows = rows_of(i, point.tokens, point.layout)
                values = MEASURES[measure](
                    point.tokens[rows], _padding(point.layout, rows)
                )
                maps.append(_map(label, point.name, values, point.layout, rows))
                extent = (
                    float(np.nanmean(maps[-1].values)),
                    float(np.nanmax(maps[-1].values)),
                )
                numbers.append(Number(measure, label, point.name, *extent))
            share_scales(maps)
            sections.append(Section(measure.capitalize(), MEASURE_COLORS, maps))
        for label, attention in analysis.attention.items():
            rows = rows_of(i, attention.weights, attention.layout)
            section, number = _attention_section(label, attention, rows, heads)
            sections.append(section)
            numbers.append(number)
        facts = task.facts(output, classes)
        found.append(Sample(name, pictures[i], sections, facts, numbers))
    return found


def _padding(layout: Layout, rows: slice) -> Tensor | None:
    return None if layout.padding_mask is None else layout.padding_mask[rows]


def _map(
    title: str, module: str, values: Tensor, layout: Layout, rows: slice
) -> TokenMap:
    """Return the map of values ``[rows, N]``, NaN at padding, frames one after the other."""
    if layout.padding_mask is not None:
        values = values.masked_fill(layout.padding_mask[rows], torch.nan)
    grid, count = tuple(layout.grid), len(values)
    if count > 1:
        grid = (layout.times * count, *grid[-2:])
    return TokenMap(
        title, module, values.detach().double().flatten().cpu().numpy(), grid
    )


def _attention_section(
    label: str, attention: Attention, rows: slice, heads: int | None
) -> tuple[Section, Number]:
    """Return the panels of an attention, and the entropy of its rows."""
    weights, layout = attention.weights[rows].double(), attention.layout
    if attention.titles is None:
        titles = [f'head {h + 1}' for h in range(weights.shape[1])]
        panels, most = [(f'sum of {len(titles)} heads', weights.sum(dim=1))], heads
    else:
        titles = attention.titles[rows.start]
        weights = weights[:, : len(titles)]
        # A single row is its own mean.
        panels = [(f'mean of {len(titles)} rows', weights.mean(dim=1))] * (
            len(titles) > 1
        )
        most = None if heads is None else _MOST_ROWS
    panels += zip(titles[:most], weights.unbind(dim=1), strict=False)
    maps = [_map(title, attention.name, w, layout, rows) for title, w in panels]
    share_scales(maps[1:])  # of the heads: their sum has other values
    for m in maps:
        (low, high), top = m.ends(), (m.limits or m.ends())[1]
        # A scale from the smallest to the largest value would show rounding as a
        # pattern.
        if high - low < _NEARLY_UNIFORM * np.nanmean(m.values):
            m.title, m.limits = f'{m.title}, nearly uniform', (0.0, top)
    row = (
        attention.row if attention.row.startswith('mean') else f'of the {attention.row}'
    )
    title = f'Attention, {label}: {row} ({attention.name})'
    p = weights / weights.sum(dim=-1, keepdim=True).clamp(min=1e-300)
    entropy, padding = torch.special.entr(p).sum(dim=-1), _padding(layout, rows)
    count = weights.shape[-1] if padding is None else int((~padding).sum())
    quantity = f'attention entropy (at most {math.log(count):.2f} nats)'
    extent = float(entropy.mean()), float(entropy.max())
    number = Number(quantity, label, attention.name, *extent)
    return Section(title, ATTENTION_COLORS, maps), number
