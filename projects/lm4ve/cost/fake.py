"""A full-size model without its numbers: torch's ``FakeTensorMode``, and what it lacks.

A fake tensor has a shape, a type and a device, and no values, so that a model with a
block of LLaMA-7B is built in a second and needs no memory.
"""

from collections.abc import Callable, Iterator
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
SHAPED = dict(
    LLMBlock='arch', TransformersImageEncoder='config', TransformersTextEncoder='config'
)


class AssumedValues(TorchDispatchMode):
    """Assumes values where code reads them, since fake tensors have none.

    A number is 1 and a bool True, but no row of a mask is all True: blocks refuse
    samples that are all padding. A mask selects everything, so that a batch is as large
    as it can be.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        packet, aten, kwargs = func.overloadpacket, torch.ops.aten, kwargs or {}
        on_cpu = str(kwargs.get('device', 'cpu')) == 'cpu'
        if (
            packet is aten.arange and on_cpu
        ):  # MONAI's losses list the dimensions to sum over
            with _disable_current_modes():
                return func(*args, **kwargs)
        if packet in (aten._local_scalar_dense, aten.item):
            if args[0].dtype == torch.bool:
                return not hasattr(args[0], 'is_false')
            return 1.0 if args[0].dtype.is_floating_point else 1
        if packet in (aten.allclose, aten.equal):
            return True
        if packet is aten.nonzero:
            x = args[0]
            return torch.zeros((x.numel(), x.dim()), dtype=torch.int64, device=x.device)
        if packet is aten.masked_select:
            return (
                args[0]
                .expand(torch.broadcast_shapes(*(x.shape for x in args)))
                .reshape(-1)
            )
        if packet is aten.index:
            args = (args[0], [j for i in args[1] for j in _indices(i)])
        out = func(*args, **kwargs)
        if func is aten.all.dim or (
            packet is aten.any and hasattr(args[0], 'is_false')
        ):
            out.is_false = True
        return out


def _indices(index: Tensor | None) -> list[Tensor | None]:
    """Turn a mask into the indices of its True entries, which are all."""
    if index is None or index.dtype != torch.bool:
        return [index]
    return [
        torch.zeros(index.numel(), dtype=torch.int64, device=index.device)
    ] * index.dim()


def _apply(
    module: nn.Module, fn: Callable[[Tensor], Tensor], recurse: bool = True
) -> nn.Module:
    """Replace :meth:`nn.Module._apply`, which changes parameters in place: no fake ones can be."""
    for child in module.children() if recurse else ():
        child._apply(fn)
    with torch.no_grad():
        for name, p in module._parameters.items():
            module._parameters[name] = (
                p if p is None else nn.Parameter(fn(p), p.requires_grad)
            )
        for name, b in module._buffers.items():
            module._buffers[name] = b if b is None else fn(b)
    return module


@contextmanager
def fake_tensors() -> Iterator[None]:
    """Make every tensor of the context a fake one."""
    with (
        patch.object(nn.Module, '_apply', _apply),
        # Torch draws again until no value is outside; assumed ones always are.
        patch.object(
            nn.init, '_no_grad_trunc_normal_', lambda tensor, *_, **__: tensor
        ),
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
    if isinstance(node, ConfigDict):
        name = SHAPED.get(str(node.get('type')).rpartition('.')[2])
        if name and isinstance(node.get('checkpoint'), str):
            node[name] = ConfigDict(shape_of(node.pop('checkpoint')))
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for value in node:
            _drop_checkpoints(value)


def build_fake(cfg: Config) -> nn.Module:
    """Build the model of a :func:`fake_config` for training."""
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    model: nn.Module = MODELS.build(cfg.model)
    return model.train()
