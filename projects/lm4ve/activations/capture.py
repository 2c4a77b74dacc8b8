"""Run a model on a batch and keep what its modules gave, by forward hooks.

One call, :func:`analyse`, serves every task: it gives tokens at each point, their
places, and attention, from which pictures, scores and pages are made.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from lm4ve.activations.attention import (
    attention_row,
    encoder_attentions,
    llm_attention_row,
)
from lm4ve.activations.measures import frequency, magnitude, normalize
from lm4ve.activations.points import necks_of, resolve_points
from lm4ve.activations.token_layout import Layout, kind_of, layout_of, to_tokens
from lm4ve.errors import UserError

MEASURES = dict(magnitude=magnitude, frequency=frequency)


@dataclass
class Point:
    """What a module gave.

    Attributes:
        name (str): The module's name, with ``:input`` if its input is meant.
        tokens (Tensor): ``[B, N, C]`` without the prefix; B counts views.
        layout (Layout): Their places.
    """

    name: str
    tokens: Tensor
    layout: Layout

    def measure(self, which: str, scaled: bool = True) -> Tensor:
        """Magnitude or frequency.

        Args:
            which (str): 'magnitude' or 'frequency'.
            scaled (bool): Min-max normalised for each sample.

        Returns:
            Tensor: float64 ``[B, N]``.

        Raises:
            UserError: Another name.
        """
        if which not in MEASURES:
            raise UserError(f"measure '{which}' must be one of {', '.join(MEASURES)}.")
        mask = self.layout.padding_mask
        values = MEASURES[which](self.tokens, mask)
        return normalize(values, mask) if scaled else values


@dataclass
class Attention:
    """Attention of one query row.

    Attributes:
        name (str): The module's name.
        weights (Tensor): ``[B, H, N]`` over the placed tokens; what the prefix gets
            is left out, so a row sums to at most 1.
        row (str): Whose row: 'class token', 'focal agent' or 'mean over tokens'.
        layout (Layout): The tokens' places.
    """

    name: str
    weights: Tensor
    row: str
    layout: Layout

    def summed(self) -> Tensor:
        """Sum over heads, min-max normalised: the paper's baseline, ``[B, N]``."""
        return normalize(self.weights.double().sum(dim=1), self.layout.padding_mask)


@dataclass
class Analysis:
    """All that was seen of one batch.

    Attributes:
        kind (str): 'image', 'video', 'pointcloud' or 'motion'.
        inputs (Tensor | dict): The preprocessed batch.
        points (dict[str, Point]): By label, in the order asked for.
        attention (dict[str, Attention]): 'encoder' (its last block) and 'block' (the
            language model's last layer), where they could be read.
        outputs (list): The model's predictions.
        views (int): Rows of the points for one sample (clips, crops).
    """

    kind: str
    inputs: Any
    points: dict[str, Point]
    attention: dict[str, Attention]
    outputs: list
    views: int = 1


@dataclass
class _Seen:
    """What the hooks collect."""

    inputs: Any = None
    # Number of tokens to the grid of a map that a neck was given.
    grids: dict[int, tuple[int, ...]] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    encoder: tuple[str, nn.Module, Tensor] | None = None
    layer: tuple[str, nn.Module, tuple] | None = None


@torch.no_grad()
def analyse(
    model: nn.Module,
    data: dict,
    points: Mapping[str, str] | None = None,
    attention: bool = True,
) -> Analysis:
    """Run a model in evaluation and measure its activations.

    Args:
        model (nn.Module): An MMEngine ``BaseModel``, wrapped or not.
        data (dict): A batch as a dataloader gives it.
        points (Mapping[str, str], optional): Label to module name (``':input'``
            after it for the module's input); :func:`default_points` by default.
        attention (bool): Also recompute attention.

    Returns:
        Analysis: With float tensors on the model's device.

    Raises:
        UserError: A name is no module's, a module did not run or gives no tokens, or
            tokens cannot be placed.
    """
    model = model.module if is_model_wrapper(model) else model
    wanted = resolve_points(model, points)
    names = dict(points or {})
    with ExitStack() as stack:
        stack.enter_context(_evaluating(model))
        for _, neck in necks_of(model):
            stack.enter_context(neck.observe())
        seen = stack.enter_context(_hooks(model, wanted, attention))
        outputs = model.test_step(data)
    kind = kind_of(seen.inputs)
    found = {}
    for label, (module, is_input) in wanted.items():
        if label not in seen.values:
            raise UserError(
                f"points['{label}'] ({names.get(label, label)}): the module "
                f'{type(module).__name__} did not run as a module. Fix: name one '
                'that does, for example the one around it.'
            )
        tokens, grid = to_tokens(_tensor_of(seen.values[label], label))
        # Inside a neck maps are tokens, whose grid the neck's input tells.
        layout = layout_of(
            model, seen.inputs, tokens.shape[1], grid or seen.grids.get(tokens.shape[1])
        )
        name = names.get(label) or _name_of(model, module, is_input)
        found[label] = Point(name, tokens[:, layout.prefix :], layout)
    rows = _attention(model, seen, found) if attention else {}
    batch = len(next(iter(found.values())).tokens)
    return Analysis(
        kind, seen.inputs, found, rows, outputs, batch // max(len(outputs), 1)
    )


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, all views at once; both restored afterwards."""
    modes = {m: m.training for m in model.modules()}
    model.eval()
    test_cfg = getattr(model, 'test_cfg', None)
    if test_cfg and 'max_testing_views' in test_cfg:
        # In parts, only the last part's activations would be kept.
        model.test_cfg = {k: v for k, v in test_cfg.items() if k != 'max_testing_views'}
    try:
        yield
    finally:
        if test_cfg is not None:
            model.test_cfg = test_cfg
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def _hooks(
    model: nn.Module, wanted: Mapping[str, tuple[nn.Module, bool]], attention: bool
) -> Iterator[_Seen]:
    """Attach hooks for points, attention and the preprocessed batch."""
    seen, handles = _Seen(), []

    def keep_inputs(module, args, output):
        seen.inputs = output['inputs']

    def keep_grid(module, args):
        x = args[0][-1] if isinstance(args[0], (tuple, list)) else args[0]
        if isinstance(x, Tensor) and x.dim() > 3:
            seen.grids[math.prod(x.shape[2:])] = tuple(x.shape[2:])

    handles.append(model.data_preprocessor.register_forward_hook(keep_inputs))
    handles += [
        neck.register_forward_pre_hook(keep_grid) for _, neck in necks_of(model)
    ]
    for label, (module, is_input) in wanted.items():
        if is_input:
            handles.append(
                module.register_forward_pre_hook(
                    lambda m, args, key=label: seen.values.__setitem__(key, args[0])
                )
            )
        else:
            handles.append(
                module.register_forward_hook(
                    lambda m, args, out, key=label: seen.values.__setitem__(key, out)
                )
            )
    if attention:
        inside = {m for _, n in necks_of(model) for m in n.modules()}
        readable = [
            (n, m)
            for n, m in encoder_attentions(model)
            if m not in inside and not n.startswith(('decoder', 'head', 'cls_head'))
        ]
        for name, module in readable:

            def keep_encoder(m, args, kwargs, name=name):
                x = args[0] if args else kwargs.get('query', kwargs.get('x'))
                seen.encoder = name, m, x

            handles.append(
                module.register_forward_pre_hook(keep_encoder, with_kwargs=True)
            )
        for name, neck in necks_of(model)[-1:]:
            layers = getattr(neck.block, 'layers', None)
            if layers is None:
                continue  # a control without attention

            def keep_layer(m, args, name=f'{name}.block.layers.{len(layers) - 1}'):
                seen.layer = name, m, args

            handles.append(layers[-1].register_forward_pre_hook(keep_layer))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _attention(
    model: nn.Module, seen: _Seen, points: Mapping[str, Point]
) -> dict[str, Attention]:
    """Recompute the rows; a module whose tokens have no place gives none."""
    found = {}
    if seen.encoder is not None:
        name, module, x = seen.encoder
        if getattr(module, 'batch_first', True) is False:
            x = x.transpose(0, 1)
        layout = _layout_or_none(model, seen, x, points)
        if layout is not None:
            row, words = _row(layout, seen.inputs)
            weights = attention_row(module, x, row, layout.padding_mask)
            found['encoder'] = Attention(
                name, weights[..., layout.prefix :], words, layout
            )
    if seen.layer is not None:
        name, layer, (x, mask, _, rotary) = seen.layer
        layout = _layout_or_none(model, seen, x, points)
        if layout is not None:
            row, words = _row(layout, seen.inputs)
            weights = llm_attention_row(
                layer, x, mask, rotary, row, layout.padding_mask
            )
            found['block'] = Attention(
                name, weights[..., layout.prefix :], words, layout
            )
    return found


def _row(layout: Layout, inputs: Any):
    """Whose row of the attention is of interest, and its name."""
    if layout.kind == 'motion':
        return inputs['queries'][:, 0], 'focal agent'
    if layout.prefix:
        return 0, 'class token'
    return None, 'mean over tokens'


def _layout_or_none(
    model: nn.Module, seen: _Seen, x: Tensor, points: Mapping[str, Point]
) -> Layout | None:
    """The places of an attention's tokens; those of a point with as many, first.

    A point may know a map's grid, and points differ in resolution.
    """
    for point in points.values():
        if point.layout.prefix + point.layout.num_placed == x.shape[1]:
            return point.layout
    try:
        return layout_of(model, seen.inputs, x.shape[1], seen.grids.get(x.shape[1]))
    except UserError:
        return None


def _name_of(model: nn.Module, module: nn.Module, is_input: bool) -> str:
    name = next(n for n, m in model.named_modules() if m is module)
    return f'{name}:input' if is_input else name


def _tensor_of(value: Any, label: str) -> Tensor:
    """The tokens in a module's output (or input)."""
    if isinstance(value, dict):
        value = value.get('tokens')
    if isinstance(value, (tuple, list)):
        tensors: list[Tensor] = [
            v for v in value if isinstance(v, Tensor) and v.dim() >= 3
        ]
        value = tensors[-1] if tensors else None
    if not isinstance(value, Tensor):
        raise UserError(
            f"points['{label}'] gives no tensor of tokens. Fix: name another module."
        )
    return value
