"""A full-size model without its numbers: torch's ``FakeTensorMode``, and what it lacks.

A fake tensor has a shape, a type and a device, and no values, so that a model with a
block of LLaMA-7B is built in a second and needs no memory.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any
from unittest.mock import patch

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from lm4ve.cost.shapes import shape_of
from lm4ve.tasks import task_of_config

#: Parts whose sizes a checkpoint decides -> the field that gives them instead. Any
#: other checkpoint only initializes.
SHAPED = {
    'LLMBlock': 'arch',
    'TransformersImageEncoder': 'config',
    'TransformersTextEncoder': 'config',
}
_aten = torch.ops.aten


class AssumedValues(TorchDispatchMode):
    """Assumes values where code reads them, since fake tensors have none.

    A number is 1 and a bool True, but no row of a mask is all True: blocks refuse
    samples that are all padding. A mask selects everything, so that a batch is as large
    as it can be.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        operator = func.overloadpacket
        on_cpu = str(kwargs.get('device', 'cpu')) == 'cpu'
        if operator is _aten.arange and on_cpu:
            # MONAI's losses list the dimensions to sum over.
            with _disable_current_modes():
                return func(*args, **kwargs)
        if operator in (_aten._local_scalar_dense, _aten.item):
            return _assumed_number(args[0])
        if operator in (_aten.allclose, _aten.equal):
            return True
        if operator is _aten.nonzero:
            x = args[0]
            return torch.zeros((x.numel(), x.dim()), dtype=torch.int64, device=x.device)
        if operator is _aten.masked_select:
            shape = torch.broadcast_shapes(*[x.shape for x in args])
            return args[0].expand(shape).reshape(-1)
        if operator is _aten.index:
            args = (args[0], _without_masks(args[1]))
        out = func(*args, **kwargs)
        is_any_of_false = operator is _aten.any and hasattr(args[0], 'is_false')
        if func is _aten.all.dim or is_any_of_false:
            # Whether a row is all True: `_assumed_number` reads it.
            out.is_false = True
        return out


def _assumed_number(x: Tensor) -> bool | int | float:
    """Return what a tensor of one number is taken for."""
    if x.dtype == torch.bool:
        return not hasattr(x, 'is_false')
    if x.dtype.is_floating_point:
        return 1.0
    return 1


def _without_masks(indices: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Replace masks by the indices of their True entries, which are all."""
    found: list[Tensor | None] = []
    for index in indices:
        if index is None or index.dtype != torch.bool:
            found.append(index)
            continue
        zeros = torch.zeros(index.numel(), dtype=torch.int64, device=index.device)
        found += [zeros] * index.dim()
    return found


def _apply(
    module: nn.Module, fn: Callable[[Tensor], Tensor], recurse: bool = True
) -> nn.Module:
    """Replace :meth:`nn.Module._apply`, which changes parameters in place: no fake ones can be."""
    if recurse:
        for child in module.children():
            child._apply(fn)
    with torch.no_grad():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                moved = nn.Parameter(fn(parameter), parameter.requires_grad)
                module._parameters[name] = moved
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = fn(buffer)
    return module


@contextmanager
def fake_tensors() -> Iterator[None]:
    """Make every tensor of the context a fake one."""
    # Torch draws again until no value is outside; assumed ones always are.
    without_draws = patch.object(
        nn.init, '_no_grad_trunc_normal_', lambda tensor, *_, **__: tensor
    )
    with (
        patch.object(nn.Module, '_apply', _apply),
        without_draws,
        FakeTensorMode(allow_non_fake_inputs=True),
        AssumedValues(),
    ):
        yield


def fake_config(cfg: Config) -> Config:
    """Return a copy of a config whose model is built without any file.

    Random models of the same shape replace checkpoints (:mod:`lm4ve.cost.shapes`),
    made-up values what the task reads besides.
    """
    cfg = deepcopy(cfg)
    if cfg.get('data_preprocessor') is not None:
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    _drop_checkpoints(cfg.model)
    task_of_config(cfg).batches.imagine(cfg.model)
    return cfg


def _drop_checkpoints(node: Any) -> None:
    """Replace the checkpoints in a model's config by the shapes of their models."""
    children: Sequence[Any] = ()
    if isinstance(node, ConfigDict):
        class_name = str(node.get('type')).rpartition('.')[2]
        field = SHAPED.get(class_name)
        if field is not None and isinstance(node.get('checkpoint'), str):
            node[field] = ConfigDict(shape_of(node.pop('checkpoint')))
        children = list(node.values())
    elif isinstance(node, (list, tuple)):
        children = node
    for child in children:
        _drop_checkpoints(child)


def build_fake(cfg: Config) -> nn.Module:
    """Build the model of a :func:`fake_config` for training."""
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    model: nn.Module = MODELS.build(cfg.model)
    return model.train()
