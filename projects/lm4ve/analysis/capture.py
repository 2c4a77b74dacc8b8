"""Captures the activations of a model on a batch, by forward hooks.

One call, :func:`analyse`, serves every task. It returns the tokens at each point, their
places, and attention, from which pictures, scores and pages are made.
"""

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from lm4ve.analysis.attention import attention_row, encoder_attentions, llm_attention_row
from lm4ve.analysis.measures import MEASURES, check_measures, normalize
from lm4ve.analysis.points import default_points, necks_of, resolve_points
from lm4ve.errors import UserError
from lm4ve.necks import LLMBlockNeck, layouts
from lm4ve.tasks import task_of_model
from lm4ve.tasks.base.analysis import Layout, TaskAnalysis, Watched

#: Parts of a model whose attention is not the visual encoder's.
_OTHERS = ('decoder', 'head', 'cls_head', 'text_encoder')


@dataclass
class Point:
    """The output tokens of a module.

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
        (name,) = check_measures(which)
        mask = self.layout.padding_mask
        values = MEASURES[name](self.tokens, mask)
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
    """The captured activations of one batch.

    Attributes:
        kind (str): The name of the model's task.
        inputs (Tensor | dict): The preprocessed batch.
        points (dict[str, Point]): The points by label, in the requested order.
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


#: The name of a module, the module, and the arguments of its last call by name.
Call = tuple[str, nn.Module, dict[str, Any]]


@dataclass
class _Captured:
    """The values that the hooks collect."""

    inputs: Any = None
    # Number of tokens -> the grid of a map with so many, of a neck's input.
    grids: dict[int, tuple[int, ...]] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    # 'encoder', 'block' or the label of a watched attention -> its last call.
    calls: dict[str, Call] = field(default_factory=dict)


@torch.no_grad()
def analyse(
    model: nn.Module, data: dict, points: Mapping[str, str] | None = None, attention: bool = True
) -> Analysis:
    """Run a model in evaluation and capture its activations.

    Args:
        model (nn.Module): An MMEngine ``BaseModel``, wrapped or not.
        data (dict): A batch as a dataloader gives it.
        points (Mapping[str, str], optional): Label to module name (``':input'``
            after it for the module's input); :func:`default_points` by default.
        attention (bool): Also recompute attention.

    Returns:
        Analysis: Its float tensors are on the model's device.

    Raises:
        UserError: The model belongs to no task, a name is no module's, a module did
            not run or gives no tokens, or tokens cannot be placed.
    """
    model = unwrapped(model)
    task = task_of_model(type(model))
    names = dict(points or default_points(model))
    watched = task.analysis.watched(model) if attention else []
    with ExitStack() as stack:
        stack.enter_context(_evaluating(model))
        for _, neck in necks_of(model):
            stack.enter_context(neck.observe())
        captured = stack.enter_context(_hooks(model, names, attention, watched))
        outputs = model.test_step(task.analysis.runnable(data))
    found = {}
    for label, name in names.items():
        if label not in captured.values:
            raise UserError(f"points['{label}']='{name}' did not run as a module of the model.")
        tokens, grid = to_tokens(captured.values[label], label)
        # Inside a neck maps are tokens, whose grid is that of the neck's input.
        grid = grid or captured.grids.get(tokens.shape[1])
        layout = task.analysis.layout_at(name, model, captured.inputs, tokens.shape[1], grid)
        found[label] = Point(name, tokens[:, layout.prefix :], layout)
    rows = _attention(model, task.analysis, captured, found, watched)
    batch = len(next(iter(found.values())).tokens)
    return Analysis(task.name, captured.inputs, found, rows, outputs, batch // max(len(outputs), 1))


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model in the wrapper of distributed training, or the model itself."""
    return model.module if is_model_wrapper(model) else model


def to_tokens(value: Any, label: str) -> tuple[Tensor, tuple[int, ...] | None]:
    """Return the tokens ``[B, N, C]`` of a module's value, and a map's grid (None for tokens)."""
    if isinstance(value, dict):
        value = value.get('tokens')
    if isinstance(value, (tuple, list)):
        tensors = [v for v in value if isinstance(v, Tensor) and v.dim() >= 3]
        value = tensors[-1] if tensors else None
    if not isinstance(value, Tensor) or value.dim() not in (3, 4, 5):
        raise UserError(f"points['{label}'] gives no tensor of tokens. Name another module.")
    if value.dim() == 3:
        return value, None
    return value.flatten(2).transpose(1, 2), tuple(value.shape[2:])


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
    model: nn.Module, names: Mapping[str, str], attention: bool, watched: Sequence[Watched]
) -> Iterator[_Captured]:
    """Attach hooks for points, attention and the preprocessed batch."""
    captured, handles = _Captured(), []

    def keep_inputs(module, args, output):
        captured.inputs = output['inputs']

    def keep_grid(module, args):
        x = module.pick(args[0])
        if x.dim() > 3:
            letters = module.layout or layouts.DEFAULTS[x.dim()]
            grid = tuple(n for n, d in zip(x.shape, letters, strict=True) if d not in 'BC')
            captured.grids[math.prod(grid)] = grid

    def keep_input(label, module, args):
        value = args[0]
        if isinstance(module, LLMBlockNeck):
            value = module.pick(value)
            if module.layout:
                value, _ = layouts.to_tokens(value, module.in_channels, module.layout)
        captured.values[label] = value

    def keep_output(label, module, args, output):
        captured.values[label] = output

    def keep_call(label, name, module, args, kwargs):
        bound = inspect.signature(module.forward).bind(*args, **kwargs)
        captured.calls[label] = name, module, bound.arguments

    necks = necks_of(model)
    handles.append(model.data_preprocessor.register_forward_hook(keep_inputs))
    handles += [neck.register_forward_pre_hook(keep_grid) for _, neck in necks]
    for label, (module, is_input) in resolve_points(model, names).items():
        if is_input:
            handles.append(module.register_forward_pre_hook(partial(keep_input, label)))
        else:
            handles.append(module.register_forward_hook(partial(keep_output, label)))
    attentions = _attention_modules(model, watched) if attention else []
    for label, name, module in attentions:
        hook = partial(keep_call, label, name)
        handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
    try:
        yield captured
    finally:
        for handle in handles:
            handle.remove()


def _attention_modules(
    model: nn.Module, watched: Sequence[Watched]
) -> Iterator[tuple[str, str, nn.Module]]:
    """Yield label, name and module of the attentions; of one label, the last that runs counts."""
    necks = necks_of(model)
    inside = {m for _, n in necks for m in n.modules()}
    for name, module in encoder_attentions(model):
        if module not in inside and not name.startswith(_OTHERS):
            yield 'encoder', name, module
    for watch in watched:
        yield watch.label, watch.module, model.get_submodule(watch.module)
    for name, neck in necks[-1:]:
        layers = getattr(neck.block, 'layers', ())  # a control has no attention
        for layer in layers[-1:]:
            yield 'block', f'{name}.block.layers.{len(layers) - 1}', layer


def _attention(
    model: nn.Module,
    task: TaskAnalysis,
    captured: _Captured,
    points: Mapping[str, Point],
    watched: Sequence[Watched],
) -> dict[str, Attention]:
    """Recompute the rows of attention; a module whose tokens have no place gives none."""
    inputs, calls = captured.inputs, captured.calls

    def layout_of(name: str, count: int) -> Layout | None:
        # A point may have a map's grid, and points differ in resolution.
        for layout in (p.layout for p in points.values()):
            if layout.prefix + layout.num_placed == count:
                return layout
        with suppress(UserError):
            return task.layout_at(name, model, inputs, count, captured.grids.get(count))
        return None

    found = {}
    for label in ('encoder', 'block'):
        if label not in calls:
            continue
        name, module, arguments = calls[label]
        x = next(iter(arguments.values()))
        if getattr(module, 'batch_first', True) is False:
            x = x.transpose(0, 1)
        layout = layout_of(name, x.shape[1])
        if layout is not None:
            row, words = task.attention_row(layout, inputs)
            if label == 'block':
                further = arguments.get('mask'), arguments.get('rotary'), row, layout.padding_mask
                weights = llm_attention_row(module, x, *further)
            else:
                weights = attention_row(module, x, row, layout.padding_mask)
            found[label] = Attention(name, weights[..., layout.prefix :], words, layout)
    for watch in (w for w in watched if w.label in calls):
        _, module, arguments = calls[watch.label]
        rows = watch.read(module, inputs, arguments)
        weights = rows.weights[..., rows.layout.prefix :]
        found[watch.label] = Attention(watch.module, weights, watch.row, rows.layout, rows.titles)
    return found
