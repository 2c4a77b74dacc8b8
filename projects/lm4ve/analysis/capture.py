"""Captures the activations of a model on a batch, by forward hooks.

One call, :func:`analyse`, serves every task. It returns the tokens at each point, their
places, and attention, from which pictures, scores and pages are made. A *point* is a
label and a module's name, with ``:input`` after it for the module's input; the paper
compares the encoder's output with what the block makes of it.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from lm4ve.analysis.attention import (
    attention_row,
    encoder_attentions,
    llm_attention_row,
)
from lm4ve.analysis.measures import MEASURES, normalize
from lm4ve.errors import UserError, did_you_mean
from lm4ve.necks import LLMBlockNeck, layouts
from lm4ve.tasks import all_tasks, task_of_model
from lm4ve.tasks.base.analysis import Layout, TaskAnalysis, Watched

#: Parts of a model whose attention is not the visual encoder's.
_OTHERS = ('decoder', 'head', 'cls_head', 'text_encoder')
#: Follows a module's name where its input is meant.
INPUT = ':input'
# Names of the list of an encoder's blocks in the hosts and here, deepest first.
_STACKS = ('blocks', 'layers', 'stages')


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
        """
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


class _Call(NamedTuple):
    """The last call of a module: its arguments by name, and its output."""

    arguments: dict[str, Any]
    output: Any

    @property
    def input(self) -> Any:
        return next(iter(self.arguments.values()))


#: Module -> its last call, in the order of running.
_Calls = dict[nn.Module, _Call]
#: A label, what a task watches under it, and the modules that may compute the
#: attention.
_Source = tuple[str, Watched | None, list[nn.Module]]


@torch.no_grad()
def analyse(
    model: nn.Module,
    data: dict,
    points: Mapping[str, str] | None = None,
    attention: bool = True,
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
    host: Any = unwrapped(model)
    model = host
    task = task_of_model(type(model))
    resolved = resolve_points(model, points)
    necks = [neck for _, neck in necks_of(model)]
    sources = (
        _attention_sources(model, necks, task.analysis.watched(model))
        if attention
        else []
    )
    modules: set[Any] = {host.data_preprocessor, *necks}
    modules.update(module for _, module, _ in resolved.values())
    modules.update(*(candidates for *_, candidates in sources))
    with ExitStack() as stack:
        stack.enter_context(_evaluating(model))
        for neck in necks:
            stack.enter_context(neck.observe())
        calls = stack.enter_context(_recorded(modules))
        outputs = host.test_step(task.analysis.runnable(data))
    inputs, grids = (
        calls[host.data_preprocessor].output['inputs'],
        _map_grids(necks, calls),
    )
    found = {}
    for label, (name, module, is_input) in resolved.items():
        if module not in calls:
            raise UserError(
                f"points['{label}']='{name}' did not run as a module of the model."
            )
        value = _input_of(module, calls[module]) if is_input else calls[module].output
        tokens, grid = to_tokens(value, label)
        # Inside a neck maps are tokens, whose grid is that of the neck's input.
        grid = grid or grids.get(tokens.shape[1])
        layout = task.analysis.layout_at(name, model, inputs, tokens.shape[1], grid)
        found[label] = Point(name, tokens[:, layout.prefix :], layout)

    def layout_of(name: str, count: int) -> Layout | None:
        # A point may have a map's grid, and points differ in resolution.
        for layout in (p.layout for p in found.values()):
            if layout.prefix + layout.num_placed == count:
                return layout
        with suppress(UserError):
            return task.analysis.layout_at(name, model, inputs, count, grids.get(count))
        return None

    rows = _attention(sources, model, task.analysis, calls, layout_of)
    batch = len(next(iter(found.values())).tokens)
    return Analysis(
        task.name, inputs, found, rows, outputs, batch // max(len(outputs), 1)
    )


def unwrapped(model: Any) -> nn.Module:
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
        raise UserError(
            f"points['{label}'] gives no tensor of tokens. Name another module."
        )
    if value.dim() == 3:
        return value, None
    return value.flatten(2).transpose(1, 2), tuple(value.shape[2:])


@contextmanager
def _recorded(modules: Iterable[nn.Module]) -> Iterator[_Calls]:
    """Record the last call of each module inside the context."""
    calls: _Calls = {}

    def record(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        calls.pop(module, None)
        bound = inspect.signature(module.forward).bind(*args, **kwargs)
        calls[module] = _Call(bound.arguments, output)

    handles = [m.register_forward_hook(record, with_kwargs=True) for m in modules]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
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


def _map_grids(
    necks: Sequence[LLMBlockNeck], calls: _Calls
) -> dict[int, tuple[int, ...]]:
    """Return the grids of the maps that went into necks, by their number of tokens."""
    grids = {}
    for neck in (n for n in necks if n in calls):
        x = neck.pick(calls[neck].input)
        if x.dim() > 3:
            letters = neck.layout or layouts.DEFAULTS[x.dim()]
            grid = tuple(
                n for n, d in zip(x.shape, letters, strict=True) if d not in 'BC'
            )
            grids[math.prod(grid)] = grid
    return grids


def _input_of(module: nn.Module, call: _Call) -> Any:
    """Return what went into a module; of a neck, the tokens that it picks."""
    if not isinstance(module, LLMBlockNeck):
        return call.input
    value = module.pick(call.input)
    if module.layout:
        value, _ = layouts.to_tokens(value, module.in_channels, module.layout)
    return value


# ------------------------------------------------------------------------- attention
def _attention_sources(
    model: nn.Module, necks: Sequence[LLMBlockNeck], watched: Sequence[Watched]
) -> list[_Source]:
    """List the attentions to recompute; of several modules, the last that runs counts."""
    inside = {m for neck in necks for m in neck.modules()}
    encoder = [
        module
        for name, module in encoder_attentions(model)
        if module not in inside and not name.startswith(_OTHERS)
    ]
    block = (
        [*getattr(necks[-1].block, 'layers', ())][-1:] if necks else []
    )  # a control has none
    further = [(w.label, w, [model.get_submodule(w.module)]) for w in watched]
    return [('encoder', None, encoder), ('block', None, block), *further]


def _attention(
    sources: Sequence[_Source],
    model: Any,
    task: TaskAnalysis,
    calls: _Calls,
    layout_of: Callable[[str, int], Layout | None],
) -> dict[str, Attention]:
    """Recompute the rows of attention; a module whose tokens have no place gives none."""
    names = {module: name for name, module in model.named_modules()}
    inputs, found = calls[model.data_preprocessor].output['inputs'], {}
    for label, watch, candidates in sources:
        module: Any = next((m for m in reversed(calls) if m in candidates), None)
        if module is None:
            continue
        name, call = names[module], calls[module]
        if watch is not None:
            rows = watch.read(module, inputs, call.arguments)
            weights = rows.weights[..., rows.layout.prefix :]
            found[label] = Attention(name, weights, watch.row, rows.layout, rows.titles)
            continue
        x = (
            call.input
            if getattr(module, 'batch_first', True)
            else call.input.transpose(0, 1)
        )
        if (layout := layout_of(name, x.shape[1])) is None:
            continue
        row, words = task.attention_row(layout, inputs)
        if label == 'block':
            mask, rotary = (call.arguments.get(k) for k in ('mask', 'rotary'))
            weights = llm_attention_row(
                module, x, mask, rotary, row, layout.padding_mask
            )
        else:
            weights = attention_row(module, x, row, layout.padding_mask)
        found[label] = Attention(name, weights[..., layout.prefix :], words, layout)
    return found


# ---------------------------------------------------------------------------- points
def necks_of(model: nn.Module) -> list[tuple[str, LLMBlockNeck]]:
    """List the model's :class:`LLMBlockNeck` with their names."""
    return [(n, m) for n, m in model.named_modules() if isinstance(m, LLMBlockNeck)]


def default_points(model: nn.Module) -> dict[str, str]:
    """Choose the points of a model.

    With a neck: 'encoder' (the neck's input, C channels), 'mapped' (the block's input,
    D), 'block' (the block's output, D) and 'after' (behind the second mapper, C, before
    the norm); of several necks, those of the last. Without a neck: 'encoder', the
    output of the encoder's last block. A task may add others, as words.

    Args:
        model (nn.Module): A host's or one of ours.

    Returns:
        dict[str, str]: Label to module name.

    Raises:
        UserError: There is no neck, and no list of blocks where hosts keep it.
    """
    tasks = (task for task in all_tasks() if task.recognizes(type(model)))
    further: dict[str, str] = next(
        (task.analysis.further_points(model) for task in tasks), {}
    )
    if necks := necks_of(model):
        neck = necks[-1][0]
        inside = f'{neck}.' if neck else ''
        around = dict(encoder=f'{neck}{INPUT}', mapped=f'{inside}mapper_in')
        around |= dict(block=f'{inside}block', after=f'{inside}mapper_out')
        return around | further | around
    if further:
        return further
    for encoder in ('backbone', 'encoder'):
        for stack in _STACKS:
            blocks = getattr(getattr(model, encoder, None), stack, None)
            if isinstance(blocks, (nn.ModuleList, nn.Sequential)) and len(blocks):
                return dict(encoder=f'{encoder}.{stack}.{len(blocks) - 1}')
    if hasattr(model, 'encoder'):
        return dict(encoder='encoder')  # it gives tokens itself
    raise UserError(
        f'{type(model).__name__} has no LLMBlockNeck and no known list of blocks. '
        "Name a module, for example points=dict(encoder='backbone.layer4')."
    )


def resolve_points(
    model: nn.Module, points: Mapping[str, str] | None
) -> dict[str, tuple[str, nn.Module, bool]]:
    """Look up the modules of points.

    Args:
        model (nn.Module): The model.
        points (Mapping[str, str], optional): Label to module name, by default
            :func:`default_points`.

    Returns:
        dict[str, tuple[str, nn.Module, bool]]: Label to name, module, and whether the
        module's input is meant.

    Raises:
        UserError: There is no such module.
    """
    modules = dict(model.named_modules())
    found = {}
    for label, name in (points or default_points(model)).items():
        path = name.removesuffix(INPUT)
        if path not in modules:
            close = did_you_mean(path, modules)
            raise UserError(
                f"points['{label}']='{name}' is no module of the model.{close}"
            )
        found[label] = name, modules[path], name.endswith(INPUT)
    return found


def read_points(words: Sequence[str]) -> dict[str, str] | None:
    """Read ``LABEL=MODULE`` words of a command line; without words, return None."""
    return dict(word.partition('=')[::2] for word in words) or None
