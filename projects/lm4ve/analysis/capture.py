"""Runs a model on a batch and keeps what its modules gave, by forward hooks.

One call, :func:`analyse`, serves every task. It gives tokens at each point, their
places, and attention, from which pictures, scores and pages are made.
"""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from lm4ve.analysis.attention import attention_row, encoder_attentions, llm_attention_row
from lm4ve.analysis.measures import MEASURES, check_measures, normalize
from lm4ve.analysis.points import INPUT, necks_of, resolve_points
from lm4ve.errors import UserError
from lm4ve.necks import LLMBlockNeck, layouts
from lm4ve.tasks import task_of_model
from lm4ve.tasks.base.analysis import Layout, TaskAnalysis, Watched

#: What hosts call the input of an attention.
_INPUTS = ('query', 'x', 'hidden_states')
#: Parts of a model whose attention is not the visual encoder's.
_OTHERS = ('decoder', 'head', 'cls_head', 'text_encoder')


@dataclass
class Point:
    """The tokens that a module gave.

    Attributes:
        name (str): The module's name, with ``:input`` if its input is meant.
        tokens (Tensor): ``[B, N, C]`` without the prefix; B counts views.
        layout (Layout): Their places.
    """

    name: str
    tokens: Tensor
    layout: Layout

    def measure(self, which: str, scaled: bool = True) -> Tensor:
        """Measure the tokens.

        Args:
            which (str): 'magnitude' or 'frequency'.
            scaled (bool): Min-max normalize the values of each sample.

        Returns:
            Tensor: float64 ``[B, N]``.

        Raises:
            UserError: There is no measure of that name.
        """
        check_measures(which)
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
        titles (list[list[str]], optional): H counts rows with these names instead of
            heads, over whose heads the mean is taken.
    """

    name: str
    weights: Tensor
    row: str
    layout: Layout
    titles: list[list[str]] | None = None

    def summed(self) -> Tensor:
        """Return the sum over heads, min-max normalized, ``[B, N]``: the paper's baseline."""
        return normalize(self.weights.double().sum(dim=1), self.layout.padding_mask)


@dataclass
class Analysis:
    """What was seen of one batch.

    Attributes:
        kind (str): The name of the model's task.
        inputs (Tensor | dict): The preprocessed batch.
        points (dict[str, Point]): The points by label, in the order asked for.
        attention (dict[str, Attention]): 'encoder' (its last block) and 'block' (the
            language model's last layer), where they could be read, and what the task
            watches.
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
    watched: dict[str, tuple[Watched, nn.Module, dict]] = field(default_factory=dict)


@torch.no_grad()
def analyse(
    model: nn.Module, data: dict, points: Mapping[str, str] | None = None, attention: bool = True
) -> Analysis:
    """Run a model in evaluation and measure its activations.

    Args:
        model (nn.Module): An MMEngine ``BaseModel``, wrapped or not.
        data (dict): A batch as a dataloader gives it.
        points (Mapping[str, str], optional): Label to module name (``':input'``
            after it for the module's input); :func:`default_points` by default.
        attention (bool): Also recompute attention.

    Returns:
        Analysis: What was seen, with float tensors on the model's device.

    Raises:
        UserError: The model belongs to no task, a name is no module's, a module did
            not run or gives no tokens, or tokens cannot be placed.
    """
    model = unwrapped(model)
    task = task_of_model(type(model))
    wanted = resolve_points(model, points)
    names = dict(points or {})
    with ExitStack() as stack:
        stack.enter_context(_evaluating(model))
        for _, neck in necks_of(model):
            stack.enter_context(neck.observe())
        watched = task.analysis.watched(model) if attention else []
        seen = stack.enter_context(_hooks(model, wanted, attention, watched))
        outputs = model.test_step(task.analysis.runnable(data))
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
        name = names.get(label) or _name_of(model, module, is_input)
        layout = task.analysis.layout_at(
            name, model, seen.inputs, tokens.shape[1], grid or seen.grids.get(tokens.shape[1])
        )
        found[label] = Point(name, tokens[:, layout.prefix :], layout)
    rows = _attention(model, task.analysis, seen, found) if attention else {}
    batch = len(next(iter(found.values())).tokens)
    return Analysis(task.name, seen.inputs, found, rows, outputs, batch // max(len(outputs), 1))


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model in the wrapper of distributed training, or the model itself."""
    return model.module if is_model_wrapper(model) else model


def to_tokens(x: Tensor) -> tuple[Tensor, tuple[int, ...] | None]:
    """Flatten a map to ``[B, N, C]``; also return its grid (None for tokens)."""
    if x.dim() == 3:
        return x, None
    if x.dim() in (4, 5):
        return x.flatten(2).transpose(1, 2), tuple(x.shape[2:])
    raise UserError(
        'Activations must be tokens [B, N, C] or maps [B, C, H, W] or [B, C, T, H, W], got '
        f'{list(x.shape)}. Fix: name another module.'
    )


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Set evaluation mode and run all views at once; restore both afterwards."""
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
    model: nn.Module,
    wanted: Mapping[str, tuple[nn.Module, bool]],
    attention: bool,
    watched: Sequence[Watched],
) -> Iterator[_Seen]:
    """Attach hooks for points, attention and the preprocessed batch."""
    seen, handles = _Seen(), []

    def keep_inputs(module, args, output):
        seen.inputs = output['inputs']

    def keep_grid(module, args):
        x = module.pick(args[0])
        if x.dim() > 3:
            letters = module.layout or layouts.DEFAULTS[x.dim()]
            grid = tuple(n for n, d in zip(x.shape, letters, strict=True) if d not in 'BC')
            seen.grids[math.prod(grid)] = grid

    def keep_value(label, module, args, output=None):
        value = args[0] if output is None else output
        if output is None and isinstance(module, LLMBlockNeck):
            value = module.pick(value)
            if module.layout:
                value = layouts.to_tokens(value, module.in_channels, module.layout).tokens
        seen.values[label] = value

    def keep_encoder(name, module, args, kwargs):
        given = (kwargs[k] for k in _INPUTS if k in kwargs)
        seen.encoder = name, module, args[0] if args else next(given, None)

    def keep_layer(name, module, args):
        seen.layer = name, module, args

    def keep_watched(watch, module, args, kwargs):
        bound = inspect.signature(module.forward).bind(*args, **kwargs)
        seen.watched[watch.label] = watch, module, bound.arguments

    necks = necks_of(model)
    handles.append(model.data_preprocessor.register_forward_hook(keep_inputs))
    handles += [neck.register_forward_pre_hook(keep_grid) for _, neck in necks]
    for label, (module, is_input) in wanted.items():
        register = module.register_forward_pre_hook if is_input else module.register_forward_hook
        handles.append(register(partial(keep_value, label)))
    if attention:
        inside = {m for _, n in necks for m in n.modules()}
        for name, module in encoder_attentions(model):
            if module not in inside and not name.startswith(_OTHERS):
                hook = partial(keep_encoder, name)
                handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
        for watch in watched:
            hook = partial(keep_watched, watch)
            module = model.get_submodule(watch.module)
            handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
        for name, neck in necks[-1:]:
            layers = getattr(neck.block, 'layers', ())  # a control has no attention
            hook = partial(keep_layer, f'{name}.block.layers.{len(layers) - 1}')
            handles += [layer.register_forward_pre_hook(hook) for layer in layers[-1:]]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _attention(
    model: nn.Module, task: TaskAnalysis, seen: _Seen, points: Mapping[str, Point]
) -> dict[str, Attention]:
    """Recompute the rows of attention; a module whose tokens have no place gives none."""

    def layout_of(name: str, x: Tensor) -> Layout | None:
        # A point may know a map's grid, and points differ in resolution.
        for layout in (p.layout for p in points.values()):
            if layout.prefix + layout.num_placed == x.shape[1]:
                return layout
        try:
            grid = seen.grids.get(x.shape[1])
            return task.layout_at(name, model, seen.inputs, x.shape[1], grid)
        except UserError:
            return None

    found = {}

    def keep(label: str, name: str, x: Tensor, weights_of: Callable) -> None:
        layout = layout_of(name, x)
        if layout is not None:
            row, words = task.attention_row(layout, seen.inputs)
            weights = weights_of(row, layout.padding_mask)[..., layout.prefix :]
            found[label] = Attention(name, weights, words, layout)

    if seen.encoder is not None:
        name, module, x = seen.encoder
        if getattr(module, 'batch_first', True) is False:
            x = x.transpose(0, 1)
        keep('encoder', name, x, partial(attention_row, module, x))
    if seen.layer is not None:
        name, layer, (x, mask, _, rotary) = seen.layer
        keep('block', name, x, partial(llm_attention_row, layer, x, mask, rotary))
    for label, (watch, module, arguments) in seen.watched.items():
        rows = watch.read(module, seen.inputs, arguments)
        weights = rows.weights[..., rows.layout.prefix :]
        found[label] = Attention(watch.module, weights, watch.row, rows.layout, rows.titles)
    return found


def _name_of(model: nn.Module, module: nn.Module, is_input: bool) -> str:
    name = next(n for n, m in model.named_modules() if m is module)
    return name + INPUT * is_input


def _tensor_of(value: Any, label: str) -> Tensor:
    """Return the tokens in a module's output (or input)."""
    if isinstance(value, dict):
        value = value.get('tokens')
    if isinstance(value, (tuple, list)):
        tensors: list[Tensor] = [v for v in value if isinstance(v, Tensor) and v.dim() >= 3]
        value = tensors[-1] if tensors else None
    if not isinstance(value, Tensor):
        raise UserError(f"points['{label}'] gives no tensor of tokens. Fix: name another module.")
    return value
