"""Turns a batch's :class:`Analysis` into samples: arrays, names and numbers.

Pictures and tables are made of the same samples, so that a picture and its page agree.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from lm4ve.analysis.capture import Analysis, Attention
from lm4ve.analysis.measures import MEASURES, check_measures
from lm4ve.tasks import get_task
from lm4ve.tasks.base.analysis import Layout
from lm4ve.tasks.base.pictures import Picture, TokenMap, share_scales

#: Color maps, both perceptually uniform.
MEASURE_COLORS, ATTENTION_COLORS = 'viridis', 'magma'
#: Rows of attention with a name get so many panels, the first ones.
_MOST_ROWS = 11


@dataclass
class Section:
    """Panels that belong together.

    Attributes:
        title (str): Above them.
        colors (str): The name of their color map.
        maps (list[TokenMap]): The values of each panel.
    """

    title: str
    colors: str
    maps: list[TokenMap]

    @property
    def is_attention(self) -> bool:
        """Whether all panels show one module, which the title names."""
        return self.colors == ATTENTION_COLORS


@dataclass
class Number:
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
        name (str): What it is called.
        picture (Picture): Draws input and tokens.
        sections (list[Section]): Magnitude, frequency, attention.
        facts (dict[str, str]): What the model said, and the truth if known.
        numbers (list[Number]): The numbers of the sections, unscaled.
    """

    name: str
    picture: Picture
    sections: list[Section]
    facts: dict[str, str] = field(default_factory=dict)
    numbers: list[Number] = field(default_factory=list)


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
        model (nn.Module): The model that was analysed, which the task's pictures may
            ask.
        names (Sequence[str]): The names of the samples.
        measures (Sequence[str]): Which of 'magnitude', 'frequency' to show.
        classes (Sequence[str], optional): Names of the labels.
        heads (int, optional): So many attention heads get a panel of their own, the
            first ones; None: all of them, and of rows with a name all, too.

    Returns:
        list[Sample]: The samples. Where a model sees several views of one, the first
        view is shown; see :meth:`lm4ve.tasks.base.analysis.TaskAnalysis.frames_shown`.
    """
    measures = check_measures(measures)
    task = get_task(analysis.kind).analysis
    inputs, outputs = analysis.inputs, analysis.outputs
    seen = (*analysis.points.values(), *analysis.attention.values())
    frames = task.frames_shown(inputs, [v.layout for v in seen])
    pictures = task.pictures(model, inputs, outputs, frames)
    found = []
    for i, name in zip(range(len(outputs)), names, strict=True):
        sections, numbers = [], []
        for measure in measures:
            maps = []
            for label, point in analysis.points.items():
                rows = _rows(analysis, i, point.tokens, point.layout, frames)
                values = MEASURES[measure](point.tokens[rows], _mask(point.layout, rows))
                maps.append(_map(label, point.name, values, point.layout, rows))
                extent = float(np.nanmean(maps[-1].values)), float(np.nanmax(maps[-1].values))
                numbers.append(Number(measure, label, point.name, *extent))
            share_scales(maps)
            sections.append(Section(measure.capitalize(), MEASURE_COLORS, maps))
        for label, attention in analysis.attention.items():
            rows = _rows(analysis, i, attention.weights, attention.layout, frames)
            sections.append(_attention_section(label, attention, rows, heads))
            numbers.append(_entropy_row(label, attention, rows))
        facts = task.facts(outputs[i], classes)
        found.append(Sample(name, pictures[i], sections, facts, numbers))
    return found


# ----------------------------------------------------------------------- tokens
def _rows(analysis: Analysis, i: int, values: Tensor, layout: Layout, frames: int) -> slice:
    """Return which rows of a point or an attention show sample ``i``."""
    each = len(values) // len(analysis.outputs)
    return slice(i * each, i * each + max(frames // layout.times, 1))


def _mask(layout: Layout, rows: slice) -> Tensor | None:
    return None if layout.padding_mask is None else layout.padding_mask[rows]


def _map(title: str, module: str, values: Tensor, layout: Layout, rows: slice) -> TokenMap:
    """Return the map of values ``[rows, N]``, NaN at padding, frames one after the other."""
    if layout.padding_mask is not None:
        values = values.masked_fill(layout.padding_mask[rows], torch.nan)
    grid, count = tuple(layout.grid), len(values)
    if count > 1:
        grid = (layout.times * count, *grid[-2:])
    return TokenMap(title, module, values.detach().double().flatten().cpu().numpy(), grid)


def _attention_section(label: str, attention: Attention, rows: slice, heads: int | None) -> Section:
    weights, titles = _named_rows(attention, rows)
    count = weights.shape[1]
    if titles is None:
        titles = [f'head {h + 1}' for h in range(count)]
        panels, most = [(f'sum of {count} heads', weights.sum(dim=1))], heads
    else:
        # A single row is its own mean.
        panels = [(f'mean of {count} rows', weights.mean(dim=1))] if count > 1 else []
        most = None if heads is None else _MOST_ROWS
    panels += zip(titles[:most], weights.unbind(dim=1), strict=False)
    maps = [_map(title, attention.name, w, attention.layout, rows) for title, w in panels]
    share_scales(maps[1:])  # of the heads: their sum has other values
    row = attention.row if attention.row.startswith('mean') else f'of the {attention.row}'
    title = f'Attention, {label}: {row} ({attention.name})'
    return Section(title, ATTENTION_COLORS, maps)


def _named_rows(attention: Attention, rows: slice) -> tuple[Tensor, list[str] | None]:
    """Return a sample's weights ``[rows, H, N]`` and the names of the H rows, if any."""
    weights = attention.weights[rows].double()
    if attention.titles is None:
        return weights, None
    titles = attention.titles[rows.start]
    return weights[:, : len(titles)], titles


def entropy(weights: Tensor) -> Tensor:
    """Return the entropy of attention over the placed tokens, in nats.

    Args:
        weights (Tensor): ``[..., N]``, not negative; scaled to sum 1.

    Returns:
        Tensor: ``[...]``, from 0 (one token) to log N (all the same).
    """
    p = weights.double()
    p = p / p.sum(dim=-1, keepdim=True).clamp(min=1e-300)
    return -torch.xlogy(p, p).sum(dim=-1)


def _entropy_row(label: str, attention: Attention, rows: slice) -> Number:
    found = entropy(_named_rows(attention, rows)[0])
    mask = _mask(attention.layout, rows)
    count = attention.weights.shape[-1] if mask is None else int((~mask).sum())
    quantity = f'attention entropy (at most {math.log(count):.2f} nats)'
    return Number(quantity, label, attention.name, float(found.mean()), float(found.max()))
