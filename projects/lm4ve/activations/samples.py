"""From a batch's :class:`Analysis` to samples: arrays, names and numbers.

What is drawn and what is written into tables is the same here, so that a picture and
its page agree; nothing below needs the model.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lm4ve.activations.capture import MEASURES, Analysis, Attention, Point
from lm4ve.activations.panels import Cloud, Frames, TokenMap, TrafficScene
from lm4ve.activations.token_layout import Layout
from lm4ve.errors import UserError

#: Colour maps, both perceptually uniform.
MEASURE_COLORS, ATTENTION_COLORS = 'viridis', 'magma'
#: Of a frame-wise video model's crops and segments.
MOST_FRAMES = 32


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
        kind (str): As of :class:`lm4ve.activations.Layout`.
        picture (Frames | Cloud | TrafficScene): Draws input and tokens.
        sections (list[Section]): Magnitude, frequency, attention.
        facts (dict[str, str]): What the model said, and the truth if known.
        numbers (list[Number]): Of the sections, unscaled.
    """

    name: str
    kind: str
    picture: Frames | Cloud | TrafficScene
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
        raise UserError(
            f'measures={list(measures)} must be one or more of {", ".join(MEASURES)}.'
        )
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
    frames = _frames_shown(analysis)
    pictures = _pictures(analysis, model, frames)
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
            Sample(
                name,
                analysis.kind,
                pictures[i],
                sections,
                _facts(analysis.outputs[i], classes),
                numbers,
            )
        )
    return found


# ----------------------------------------------------------------------- tokens
def _frames_shown(analysis: Analysis) -> int:
    """Frames of a frame-wise video model's sample that are drawn; else 0.

    Where a neck joins frames to clips, those of the first clip; else all, but of
    many crops and segments the first ones.
    """
    if analysis.kind != 'video' or analysis.inputs.dim() != 5:
        return 0
    layouts = [
        v.layout for v in (*analysis.points.values(), *analysis.attention.values())
    ]
    joined = max(_times(x) for x in layouts)
    return joined if joined > 1 else min(analysis.inputs.shape[1], MOST_FRAMES)


def _times(layout: Layout) -> int:
    return layout.grid[0] if len(layout.grid) == 3 else 1


def _rows(
    analysis: Analysis, i: int, values: Tensor, layout: Layout, frames: int
) -> slice:
    """Rows of a point's or an attention's that are shown of sample ``i``."""
    each = len(values) // len(analysis.outputs)
    return slice(i * each, i * each + max(frames // _times(layout), 1))


def _array(x: Tensor) -> np.ndarray:
    return x.detach().double().cpu().numpy()


def _values(point: Point, measure: str, rows: slice) -> np.ndarray:
    """The measure of the rows, ``[rows * N]``, NaN at padding."""
    layout = point.layout
    mask = None if layout.padding_mask is None else layout.padding_mask[rows]
    part = Point(
        point.name,
        point.tokens[rows],
        Layout(layout.kind, layout.prefix, layout.grid, mask),
    )
    return _array(_without_padding(part.measure(measure, scaled=False), mask))


def _without_padding(values: Tensor, mask: Tensor | None) -> Tensor:
    if mask is not None:
        values = values.masked_fill(mask, torch.nan)
    return values.flatten()


def _map(
    title: str, module: str, values: np.ndarray, layout: Layout, rows: slice
) -> TokenMap:
    grid = tuple(layout.grid)
    if layout.kind == 'video':
        grid = (_times(layout) * (rows.stop - rows.start), *grid[-2:])
    return TokenMap(title, module, values, grid)


def _attention_section(
    label: str, attention: Attention, rows: slice, heads: int | None
) -> Section:
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
    row = (
        attention.row
        if attention.row.startswith('mean')
        else (f'of the {attention.row}')
    )
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


# --------------------------------------------------------------------- pictures
def _pictures(analysis: Analysis, model: nn.Module, frames: int) -> list:
    inputs, count = analysis.inputs, len(analysis.outputs)
    if analysis.kind == 'motion':
        arrays = {
            k: inputs[k].cpu().numpy()
            for k in (
                'agents',
                'agents_valid',
                'agent_padding',
                'lanes',
                'lane_padding',
            )
        }
        return [
            TrafficScene(
                arrays['agents'][i],
                arrays['agents_valid'][i] & ~arrays['agent_padding'][i][:, None],
                arrays['lanes'][i],
                arrays['lane_padding'][i],
                _prediction(analysis.outputs[i]),
            )
            for i in range(count)
        ]
    if analysis.kind == 'pointcloud':
        _, groups = model.backbone.group(inputs)
        return [
            Cloud(_array(p), g.cpu().numpy())
            for p, g in zip(inputs, groups, strict=True)
        ]
    pixels = _pixels(inputs, model.data_preprocessor)
    if analysis.kind == 'image':
        return [Frames(p[None]) for p in pixels]
    # Clips [B, V, T, H, W, 3], of which the first view; frames [B, V, H, W, 3].
    return [Frames(p[:frames] if frames else p[0]) for p in pixels]


def _prediction(output: Any) -> dict | None:
    return output if isinstance(output, dict) and 'scene' in output else None


def _pixels(inputs: Tensor, preprocessor: nn.Module) -> np.ndarray:
    """Undo the preprocessor: channels last, uint8.

    Channels are in the preprocessor's order; where it does not convert, in that
    of the pipeline, which is RGB in all data sets that do so.
    """
    axis = 1 if inputs.dim() == 4 else 2
    x = inputs.detach().double().movedim(axis, -1).cpu()
    mean, std = (getattr(preprocessor, k, None) for k in ('mean', 'std'))
    if mean is not None and std is not None:
        x = x * std.double().cpu().flatten() + mean.double().cpu().flatten()
    if x.shape[-1] == 1:
        x = x.expand(*x.shape[:-1], 3)
    return x.round().clamp(0, 255).byte().numpy()


# ------------------------------------------------------------------------ facts
def _facts(output: Any, classes: Sequence[str] | None) -> dict[str, str]:
    """What the model predicted, and what is true, in words."""
    if isinstance(output, dict):
        return _forecast_facts(output) if 'trajectories' in output else {}
    facts = {}
    label = _get(output, 'pred_label')
    if label is not None and label.numel() == 1:
        scores = next(
            (
                s
                for s in map(lambda k: _get(output, k), ('pred_score', 'pred_scores'))
                if isinstance(s, Tensor)
            ),
            None,
        )
        facts['prediction'] = _class(label, classes) + (
            '' if scores is None else f' ({100 * float(scores.max()):.1f} %)'
        )
    truth = _get(output, 'gt_label')
    if truth is not None and truth.numel() >= 1 and (truth >= 0).all():
        facts['truth'] = ', '.join(_class(t, classes) for t in truth.flatten())
    return facts


def _get(output: Any, key: str) -> Tensor | None:
    value = output.get(key) if hasattr(output, 'get') else None
    return value if isinstance(value, Tensor) else None


def _class(label: Tensor, classes: Sequence[str] | None) -> str:
    i = int(label)
    return str(classes[i]) if classes and i < len(classes) else f'class {i}'


def _forecast_facts(output: dict) -> dict[str, str]:
    from lm4ve.tasks.motion import forecast_metrics

    lines, p = output['trajectories'], output['probabilities']
    facts = dict(
        prediction=f'{len(lines)} trajectories, the likeliest with '
        f'{100 * float(np.max(p)):.1f} %'
    )
    scene = output['scene']
    truth, valid = (
        a[scene.focal, scene.history_steps :] for a in (scene.positions, scene.valid)
    )
    if valid.any():
        m = forecast_metrics(lines, p, truth, valid)
        facts['against the truth'] = (
            f'minADE {m["minADE"]:.2f} m, minFDE {m["minFDE"]:.2f} m'
        )
    return facts
