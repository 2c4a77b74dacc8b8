"""A GPU without a GPU: torch's ``meta`` device, and refusal of tensors left on the CPU.

``FakeTensorMode`` takes ``device='cuda'`` in a torch without CUDA, but indexing such a
tensor (``x[:, 0]``) and its backward pass ask CUDA itself and fail. The ``meta`` device has
both. What torch does not refuse there, an operation on tensors of two devices, is refused
here by CUDA's own rule: numbers (0 dimensions) and indices may be on the CPU.
"""

from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.utils._pytree import tree_leaves, tree_map

from lm4ve.cost.imagining import Answers, build_imagined, imagined, known_to_autocast
from lm4ve.tasks import task_of_config
from lm4ve.tasks.base import point_ops

GPU = torch.device('meta')
_aten = torch.ops.aten
_farthest_points = point_ops._looped_farthest_points
_INDEXED = (_aten.index, _aten.index_put, _aten.index_put_, _aten._index_put_impl_)


class SimulatedGPU(Answers):
    """Within it an operation on tensors of two devices raises an error."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, packet = kwargs or {}, func.overloadpacket
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        devices = {t.device.type for t in given if t.dim()}
        if packet in _INDEXED:
            devices = {args[0].device.type}
        if packet is _aten.copy_ and devices == {'cpu', 'meta'}:
            return args[0]
        if len(devices) > 1:
            sizes = [f'{t.device.type}{list(t.shape)}' for t in given]
            raise RuntimeError(f'{packet} of tensors on two devices: {", ".join(sizes)}')
        home = kwargs.get('device')
        if packet is _aten._to_copy and devices <= {'meta'} and str(home) == 'cpu':
            kind = kwargs.get('dtype') or args[0].dtype
            return torch.zeros(args[0].shape, dtype=kind)  # values, for what goes to numpy
        return super().__torch_dispatch__(func, types, args, kwargs)


def few_rounds(points: Tensor, num: int) -> Tensor:
    """Pick by three rounds of the loop: a room has thousands, all of the same operations."""
    picks = _farthest_points(points, min(num, 3))
    return torch.cat((picks, picks[:, :1].expand(-1, num - picks.shape[1])), dim=1)


@contextmanager
def simulated_gpu():
    """Simulate a GPU; autocast takes it for a CPU, and a list of its numbers is one of ones."""
    autocast, tensor = torch.autocast, torch.tensor

    def plain(x: Any) -> Any:
        return 1 if isinstance(x, Tensor) and x.device == GPU else x

    with (
        patch.object(torch, 'autocast', lambda kind, **k: autocast(known_to_autocast(kind), **k)),
        patch.object(point_ops, '_looped_farthest_points', few_rounds),
        patch.object(torch, 'tensor', lambda data, **k: tensor(tree_map(plain, data), **k)),
        SimulatedGPU() as gpu,
    ):
        yield gpu


def on_gpu(cfg: Config) -> nn.Module:
    """Build the model of an imagined config on the CPU, and move it as a runner does."""
    with imagined() as answers:
        model = build_imagined(cfg, answers)
        move = nn.Module._apply

        def moved(self: nn.Module, fn: Any, recurse: bool = True) -> nn.Module:
            return move(self, lambda t: _real(fn(t)), recurse)

        with patch.object(nn.Module, '_apply', moved):
            model.to(GPU)
    return model


def _real(t: Tensor) -> Tensor:
    if not isinstance(t, FakeTensor) or t.device != GPU:
        return t
    with unset_fake_temporarily():
        return torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=GPU)


def train_and_predict(cfg: Config, predicts: bool = True) -> None:
    """Run a training step on the simulated GPU, and a prediction; of two samples each."""
    batches = task_of_config(cfg).batches
    data = [batches.batch(cfg, 2, training) for training in (True, *[False] * predicts)]
    model = on_gpu(cfg)
    with simulated_gpu():
        trained = model.data_preprocessor(data[0], True)
        loss, _ = model.parse_losses(model(**trained, mode='loss'))
        loss.backward()
        model.eval()
        for tested in data[1:]:
            with torch.no_grad():
                model(**model.data_preprocessor(tested, False), mode='predict')
