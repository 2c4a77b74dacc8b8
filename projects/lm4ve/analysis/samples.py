"""Turns a batch's :class:`Analysis` into samples: arrays, names and numbers.

Pictures and tables are made of the same samples, so that a picture and its page agree.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from lm4ve.analysis.capture import Analysis, Attention, Point
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
    if len(names) != len(analysis.outputs):
        raise ValueError(f'{len(names)} names for {len(analysis.outputs)} samples')
    task = get_task(analysis.kind).analysis
    inputs, outputs = analysis.inputs, analysis.outputs
    seen = (*analysis.points.values(), *analysis.attention.values())
    frames = task.frames_shown(inputs, [v.layout for v in seen])
    pictures = task.pictures(model, inputs, outputs, frames)
    found = []
    for i, name in enumerate(names):
        sections, numbers = [], []
        for measure in measures:
            maps = []
            for label, point in analysis.points.items():
                rows = _rows(analysis, i, point.tokens, point.layout, frames)
                values = _values(point, measure, rows)
                maps.append(_map(label, point.name, values, point.layout, rows))
                mean, largest = float(np.nanmean(values)), float(np.nanmax(values))
                numbers.append(Number(measure, label, point.name, mean, largest))
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


def _array(x: Tensor) -> np.ndarray:
    return x.detach().double().cpu().numpy()


def _values(point: Point, measure: str, rows: slice) -> np.ndarray:
    """Return the measure of the rows, ``[rows * N]``, NaN at padding."""
    layout = point.layout
    mask = None if layout.padding_mask is None else layout.padding_mask[rows]
    part = Point(point.name, point.tokens[rows], replace(layout, padding_mask=mask))
    return _array(_without_padding(part.measure(measure, scaled=False), mask))


def _without_padding(values: Tensor, mask: Tensor | None) -> Tensor:
    if mask is not None:
        values = values.masked_fill(mask, torch.nan)
    return values.flatten()


def _map(title: str, module: str, values: np.ndarray, layout: Layout, rows: slice) -> TokenMap:
    grid, count = tuple(layout.grid), rows.stop - rows.start
    if count > 1:  # frames one after the other
        grid = (layout.times * count, *grid[-2:])
    return TokenMap(title, module, values, grid)


def _attention_section(label: str, attention: Attention, rows: slice, heads: int | None) -> Section:
    layout = attention.layout
    weights, titles = _named_rows(attention, rows)
    mask = None if layout.padding_mask is None else layout.padding_mask[rows]
    count = weights.shape[1]
    if titles is None:
        shown = count if heads is None else min(heads, count)
        titles = [f'head {h + 1}' for h in range(shown)]
        first = f'sum of {count} heads', weights.sum(dim=1)
    else:
        shown = count if heads is None else min(_MOST_ROWS, count)
        first = f'mean of {count} rows', weights.mean(dim=1)
    panels = [first, *((titles[h], weights[:, h]) for h in range(shown))]
    if count == 1 and attention.titles is not None:
        panels = panels[1:]  # which is its own mean
    maps = [
        _map(title, attention.name, _array(_without_padding(w, mask)), layout, rows)
        for title, w in panels
    ]
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
    mask = attention.layout.padding_mask
    count = attention.weights.shape[-1] if mask is None else int((~mask[rows]).sum())
    quantity = f'attention entropy (at most {math.log(count):.2f} nats)'
    return Number(quantity, label, attention.name, float(found.mean()), float(found.max()))
