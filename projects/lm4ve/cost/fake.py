"""A full-size model without its numbers: torch's ``FakeTensorMode``, and what it lacks.

A fake tensor has a shape, a type and a device, and no values, so that a model with a
block of LLaMA-7B is built in a second and needs no memory.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
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
        """Run an operator of torch; those whose result depends on values get assumed ones.

        Args:
            func (OpOverload): The operator.
            types: The types of its tensors, which do not matter here.
            args, kwargs: Its arguments.
        """
        if kwargs is None:
            kwargs = {}
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
            # "Is a row all True?" is assumed to be False; the mark reaches
            # `_assumed_number` when code reads the value.
            out.is_false = True
        return out


def _assumed_number(x: Tensor) -> bool | int | float:
    """Return the number that stands for the unknown value of a tensor of one element."""
    if x.dtype == torch.bool:
        return not hasattr(x, 'is_false')
    if x.dtype.is_floating_point:
        return 1.0
    return 1


def _without_masks(indices: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Replace bool masks among the indices of a tensor by integer indices.

    A mask is taken to select all its entries. It becomes an index for each of its
    dimensions; only the number of indices counts, so all of them are 0.

    Args:
        indices (Sequence[Tensor | None]): An entry for each dimension; None: all of it.
    """
    without_masks: list[Tensor | None] = []
    for index in indices:
        if index is None or index.dtype != torch.bool:
            without_masks.append(index)
            continue
        zeros = torch.zeros(index.numel(), dtype=torch.int64, device=index.device)
        without_masks += [zeros] * index.dim()
    return without_masks


def _apply(
    module: nn.Module, fn: Callable[[Tensor], Tensor], recurse: bool = True
) -> nn.Module:
    """Apply a function to a module's tensors as ``nn.Module._apply`` does, for fake tensors.

    Torch changes parameters in place, which fake tensors do not allow. Here new
    parameters take the place of the old ones: they keep ``requires_grad``, have no
    gradients, and a parameter that two modules shared becomes two.

    Args:
        module (nn.Module): The module, changed in place and returned.
        fn (Callable): Returns the new tensor of an old one, for example on a device.
        recurse (bool): Also change the modules within.
    """
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


_to_numpy = Tensor.numpy


def _numpy(tensor: Tensor, *args: Any, **kwargs: Any) -> np.ndarray:
    """Return zeros as the values of a fake tensor; of any other, what torch returns.

    mmaction2's heads compute the training's accuracy with NumPy.
    """
    if isinstance(tensor, FakeTensor):
        return np.zeros(tuple(tensor.shape))
    return _to_numpy(tensor, *args, **kwargs)


@contextmanager
def fake_tensors() -> Iterator[None]:
    """Make every tensor that is created inside the context a fake one."""
    # torch draws a truncated normal anew until all values are within its bounds. Assumed
    # values never are, so this would not end.
    without_draws = patch.object(
        nn.init, '_no_grad_trunc_normal_', lambda tensor, *_, **__: tensor
    )
    with (
        patch.object(nn.Module, '_apply', _apply),
        patch.object(Tensor, 'numpy', _numpy),
        without_draws,
        FakeTensorMode(allow_non_fake_inputs=True),
        AssumedValues(),
    ):
        yield


def fake_config(cfg: Config) -> Config:
    """Return a copy of a config whose model is built without any file.

    Models of the same shape replace checkpoints (:mod:`lm4ve.cost.shapes`). For other
    files that the model reads, the task fills in made-up values.
    """
    cfg = deepcopy(cfg)
    if cfg.get('data_preprocessor') is not None:
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    _drop_checkpoints(cfg.model)
    task_of_config(cfg).protocol.imagine(cfg.model)
    return cfg


def _drop_checkpoints(node: Any) -> None:
    """Replace the checkpoints in a model's config by the shapes of their models.

    Args:
        node: The config or a value in it; it is changed, with everything below it.
    """
    children: Sequence[Any] = ()
    if isinstance(node, ConfigDict):
        class_name = str(node.get('type')).rpartition('.')[2]
        field = SHAPED.get(class_name)
        if field is not None and isinstance(node.get('checkpoint'), str):
            node[field] = ConfigDict(shape_of(node.pop('checkpoint')))
            if isinstance(node.get('pretrained'), str):
                node['pretrained'] = (
                    False  # there are no weights to permute or to scale
                )
        children = list(node.values())
    elif isinstance(node, (list, tuple)):
        children = node
    for child in children:
        _drop_checkpoints(child)


def resolve_auto_dtypes(node: Any) -> None:
    """Set the dtype of blocks that leave it to the device to that of a GPU, bfloat16.

    Args:
        node: The model's config or a value in it; it is changed, with everything below
            it.
    """
    children: Sequence[Any] = ()
    if isinstance(node, ConfigDict):
        if node.get('type') == 'LLMBlock' and node.get('dtype') == 'auto':
            node.dtype = 'bfloat16'
        children = list(node.values())
    elif isinstance(node, (list, tuple)):
        children = node
    for child in children:
        resolve_auto_dtypes(child)


def build_fake(cfg: Config) -> nn.Module:
    """Build the model of a :func:`fake_config` for training."""
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    model: nn.Module = MODELS.build(cfg.model)
    return model.train()
