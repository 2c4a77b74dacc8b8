"""Captures the activations of a model on a batch, by forward hooks.

One call, :func:`analyse`, serves every task. It returns the tokens at each point, their
places, and attention, from which pictures, scores and pages are made.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from lm4ve.analysis.activations import Analysis, Point
from lm4ve.analysis.attention_sources import (
    AttentionSource,
    list_sources,
    recompute_attention,
)
from lm4ve.analysis.points import ResolvedPoint, necks_of, resolve_points
from lm4ve.analysis.recording import Calls, evaluation_mode, record_calls
from lm4ve.errors import UserError
from lm4ve.necks import LLMBlockNeck, layouts
from lm4ve.tasks import task_of_model
from lm4ve.tasks.base.layouts import Layout
from lm4ve.tasks.base.protocol import TaskProtocol

#: Number of tokens -> the grid of the map that they were.
Grids = dict[int, tuple[int, ...]]


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
            after it for the module's input);
            :func:`lm4ve.analysis.points.default_points` by default.
        attention (bool): Also recompute attention.

    Returns:
        Analysis: Its float tensors are on the model's device.

    Raises:
        UserError: The model belongs to no task, a name is no module's, a module did
            not run or gives no tokens, or tokens cannot be placed.
    """
    host: Any = unwrapped(model)
    task = task_of_model(type(host))
    resolved = resolve_points(host, points)
    necks = [neck for _, neck in necks_of(host)]
    sources: list[AttentionSource] = []
    if attention:
        sources = list_sources(host, necks, task.protocol.watched(host))

    modules: set[nn.Module] = {host.data_preprocessor, *necks}
    modules.update(point.module for point in resolved.values())
    for source in sources:
        modules.update(source.modules)
    with ExitStack() as stack:
        stack.enter_context(evaluation_mode(host))
        for neck in necks:
            stack.enter_context(neck.observe())
        calls = stack.enter_context(record_calls(modules))
        outputs = host.test_step(task.protocol.runnable(data))

    placing = _Placing(host, task.protocol, calls, _map_grids(necks, calls))
    captured = {}
    for label, point in resolved.items():
        captured[label] = placing.place(label, point)

    def layout_of(name: str, count: int) -> Layout | None:
        return placing.layout_of(name, count, list(captured.values()))

    rows = recompute_attention(sources, host, task.protocol, calls, layout_of)
    batch = len(next(iter(captured.values())).tokens)
    views = batch // max(len(outputs), 1)
    return Analysis(task.name, placing.inputs, captured, rows, outputs, views)


def unwrapped(model: Any) -> nn.Module:
    """Return the model in the wrapper of distributed training, or the model itself."""
    return model.module if is_model_wrapper(model) else model


class _Placing:
    """Finds where in the input the tokens of modules lie.

    Args:
        model (nn.Module): The model.
        protocol (TaskProtocol): The task's, which places tokens.
        calls (Calls): The recorded inputs and outputs of modules.
        grids (dict): The grids of the maps that went into necks, by their number of
            tokens: tokens of the same number are taken to be those of the map.
    """

    def __init__(
        self, model: Any, protocol: TaskProtocol, calls: Calls, grids: Grids
    ) -> None:
        self.model = model
        self.protocol = protocol
        self.calls = calls
        self.grids = grids
        self.inputs = calls[model.data_preprocessor].output['inputs']

    def place(self, label: str, point: ResolvedPoint) -> Point:
        """Return the tokens at a point without the prefix, and their layout.

        Args:
            label (str): The point's label, for errors.
            point (ResolvedPoint): The module, and whether its input is meant.

        Raises:
            UserError: The module did not run or gives no tokens, or they have no place.
        """
        if point.module not in self.calls:
            raise UserError(
                f"points['{label}']='{point.name}' did not run as a module of the model."
            )
        call = self.calls[point.module]
        value = call.output
        if point.is_input:
            value = _input_of(point.module, call.input)
        tokens, grid = _tokens_of(value, label)
        count = tokens.shape[1]
        if grid is None:
            # Inside a neck maps are tokens, whose grid is that of the neck's input.
            grid = self.grids.get(count)
        layout = self.protocol.layout(point.name, self.model, self.inputs, count, grid)
        return Point(point.name, tokens[:, layout.prefix :], layout)

    def layout_of(
        self, name: str, count: int, points: Sequence[Point]
    ) -> Layout | None:
        """Return the layout of a module's tokens, or None where they have no place.

        A point that has the same number of tokens gives its layout, which may come from
        the grid of a map. Without such a point, the task places the tokens.

        Args:
            name (str): The module's name.
            count (int): The number of tokens, prefix included.
            points (Sequence[Point]): The points whose tokens were placed before.
        """
        for point in points:
            count_at_point = point.layout.prefix + point.layout.num_placed
            if count_at_point == count:
                return point.layout
        grid = self.grids.get(count)
        try:
            return self.protocol.layout(name, self.model, self.inputs, count, grid)
        except UserError:
            return None


def _tokens_of(value: Any, label: str) -> tuple[Tensor, tuple[int, ...] | None]:
    """Find the tokens in a module's input or output.

    Args:
        value: A tensor of tokens ``[B, N, C]`` or a map ``[B, C, ...]`` of two or three
            dimensions; a sequence whose last such tensor counts; or a dict with either
            under 'tokens'.
        label (str): The label of the point, for the error.

    Returns:
        tuple[Tensor, tuple[int, ...] | None]: The tokens ``[B, N, C]``, and the grid of
        the map that they were, or None if they were tokens.

    Raises:
        UserError: There is no such tensor.
    """
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


def _map_grids(necks: Sequence[LLMBlockNeck], calls: Calls) -> Grids:
    """Return the grids of the maps that went into necks: number of tokens -> grid."""
    grids = {}
    for neck in necks:
        if neck not in calls:
            continue
        x = neck.pick(calls[neck].input)
        if x.dim() <= 3:
            continue
        letters = neck.layout or layouts.DEFAULTS[x.dim()]
        grid = []
        for size, letter in zip(x.shape, letters, strict=True):
            if letter not in 'BC':
                grid.append(size)
        grids[math.prod(grid)] = tuple(grid)
    return grids


def _input_of(module: nn.Module, value: Any) -> Any:
    """Return the features in a module's recorded input.

    Args:
        module (nn.Module): The module.
        value: Its first argument. A neck may get features of several stages: the ones
            that it reads are taken, as tokens ``[B, N, C]`` if its layout is given.
    """
    if not isinstance(module, LLMBlockNeck):
        return value
    features = module.pick(value)
    if not module.layout:
        return features
    tokens, _ = layouts.to_tokens(features, module.in_channels, module.layout)
    return tokens
