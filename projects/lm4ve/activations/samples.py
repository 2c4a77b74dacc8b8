"""From a batch's :class:`Analysis` to samples: arrays, names and numbers.

What is drawn and what is written into tables is the same here, so that a picture and
its page agree; nothing below needs the model.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from lm4ve.activations.capture import MEASURES, Analysis, Attention, Point
from lm4ve.errors import UserError
from lm4ve.tasks import get_task
from lm4ve.tasks.analysis import Layout
from lm4ve.tasks.pictures import Picture, TokenMap

#: Colour maps, both perceptually uniform.
MEASURE_COLORS, ATTENTION_COLORS = 'viridis', 'magma'


@dataclass
class Section:
    """Panels that belong together.

    Attributes:
        title (str): Above them.
        colors (str): Their colour map.
        maps (list[TokenMap]): One a panel.
    """

    title: str
    colors: str
    maps: list[TokenMap]

    @property
    def is_attention(self) -> bool:
        """All panels are one module's, which the title names."""
        return self.colors == ATTENTION_COLORS


@dataclass
class Number:
    """A row of the page's table: mean and largest of a quantity, not normalised."""

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
        numbers (list[Number]): Of the sections, unscaled.
    """

    name: str
    picture: Picture
    sections: list[Section]
    facts: dict[str, str] = field(default_factory=dict)
    numbers: list[Number] = field(default_factory=list)


def check_measures(measures: Sequence[str]) -> tuple:
    """Return the measures, or refuse them.

    Raises:
        UserError: One is neither 'magnitude' nor 'frequency', or there is none.
    """
    measures = (measures,) if isinstance(measures, str) else tuple(measures)
    wrong = [m for m in measures if m not in MEASURES]
    if wrong or not measures:
        raise UserError(f'measures={list(measures)} must be one or more of {", ".join(MEASURES)}.')
    return measures


def samples_of(
    analysis: Analysis,
    model: nn.Module,
    names: Sequence[str],
    measures: Sequence[str] = tuple(MEASURES),
    classes: Sequence[str] | None = None,
    heads: int | None = None,
) -> list[Sample]:
    """Split a batch into samples.

    Args:
        analysis (Analysis): Of the batch.
        model (nn.Module): Whose it is: its preprocessor gives back pixels, its
            encoder a cloud's groups.
        names (Sequence[str]): One a sample.
        measures (Sequence[str]): Which of 'magnitude', 'frequency'.
        classes (Sequence[str], optional): Names of the labels.
        heads (int, optional): Attention heads that get a panel of their own, the
            first ones; None: all.

    Returns:
        list[Sample]: Of several views of a sample (crops, clips) the first; the
        segments of a frame-wise video model are its frames, those of the first
        clip where a neck joins them.
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
                numbers.append(
                    Number(
                        measure,
                        label,
                        point.name,
                        float(np.nanmean(maps[-1].values)),
                        float(np.nanmax(maps[-1].values)),
                    )
                )
            sections.append(Section(measure.capitalize(), MEASURE_COLORS, maps))
        for label, attention in analysis.attention.items():
            rows = _rows(analysis, i, attention.weights, attention.layout, frames)
            sections.append(_attention_section(label, attention, rows, heads))
            numbers.append(_entropy_row(label, attention, rows))
        found.append(
            Sample(name, pictures[i], sections, task.facts(analysis.outputs[i], classes), numbers)
        )
    return found


# ----------------------------------------------------------------------- tokens
def _rows(analysis: Analysis, i: int, values: Tensor, layout: Layout, frames: int) -> slice:
    """Rows of a point's or an attention's that are shown of sample ``i``."""
    each = len(values) // len(analysis.outputs)
    return slice(i * each, i * each + max(frames // layout.times, 1))


def _array(x: Tensor) -> np.ndarray:
    return x.detach().double().cpu().numpy()


def _values(point: Point, measure: str, rows: slice) -> np.ndarray:
    """The measure of the rows, ``[rows * N]``, NaN at padding."""
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
    layout, weights = attention.layout, attention.weights[rows].double()
    mask = None if layout.padding_mask is None else layout.padding_mask[rows]
    count = weights.shape[1]
    shown = count if heads is None else min(heads, count)
    maps = [
        _map(title, attention.name, _array(_without_padding(w, mask)), layout, rows)
        for title, w in [
            (f'sum of {count} heads', weights.sum(dim=1)),
            *((f'head {h + 1}', weights[:, h]) for h in range(shown)),
        ]
    ]
    row = attention.row if attention.row.startswith('mean') else (f'of the {attention.row}')
    title = f'Attention, {label}: {row} ({attention.name})'
    return Section(title, ATTENTION_COLORS, maps)


def entropy(weights: Tensor) -> Tensor:
    """Entropy of attention over the placed tokens, in nats.

    Args:
        weights (Tensor): ``[..., N]``, not negative; scaled to sum 1.

    Returns:
        Tensor: ``[...]``, from 0 (one token) to log N (all the same).
    """
    p = weights.double()
    p = p / p.sum(dim=-1, keepdim=True).clamp(min=1e-300)
    return -torch.xlogy(p, p).sum(dim=-1)


def _entropy_row(label: str, attention: Attention, rows: slice) -> Number:
    found = entropy(attention.weights[rows])
    mask = attention.layout.padding_mask
    count = attention.weights.shape[-1] if mask is None else int((~mask[rows]).sum())
    return Number(
        f'attention entropy (at most {math.log(count):.2f} nats)',
        label,
        attention.name,
        float(found.mean()),
        float(found.max()),
    )
