"""A full-size model without its numbers: torch's ``FakeTensorMode``, and what it lacks.

A fake tensor knows its shape, type and device, and nothing else, so that a model with a
block of LLaMA-7B is built in a second and takes no memory. Code that asks for a value gets
an answer of :func:`answer_for`.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from lm4ve.cost.shapes import shape_of
from lm4ve.tasks import task_of_config

#: What code is told that asks for a value, by file and function, where 1 (yes) would lead it
#: to refuse the batch or to leave its usual path. The last entry says why.
ANSWERS: dict[tuple[str, str], tuple[int, str]] = {
    ('blocks/llm_block.py', '_check'): (0, 'yes: a sample is all padding, and is refused')
}
#: Parts whose sizes a checkpoint decides -> the field that says them instead. Any other
#: checkpoint is one to begin with.
SHAPED = dict(LLMBlock='arch', TransformersImageEncoder='config', TransformersTextEncoder='config')
_FILLS = ('uniform_', 'normal_', 'fill_', 'zero_', 'erfinv_', 'clamp_', 'mul_', 'add_')
_AT = Path(__file__).resolve().parents[1]


class Answers(TorchDispatchMode):
    """Answers questions about values, which fake tensors do not have.

    A number is :func:`answer_for` the code that asks. A mask selects everything: the largest
    that a batch can be.

    Attributes:
        initializes (bool): Whether tensors are filled now, which need not be done.
        asked (set): The places that asked for a number, as the keys of :data:`ANSWERS`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.initializes = False
        self.asked: set[tuple[str, str]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func.overloadpacket
        aten = torch.ops.aten
        if self.initializes and packet.__name__ in _FILLS:
            return args[0]  # which values it gets makes no difference
        if packet in (aten._local_scalar_dense, aten.item):
            return self._number(args[0])
        if packet in (aten.allclose, aten.equal):
            return True
        if packet is aten.nonzero:
            x = args[0]
            return torch.zeros((x.numel(), x.dim()), dtype=torch.int64, device=x.device)
        if packet is aten.masked_select:
            return args[0].expand(torch.broadcast_shapes(*(x.shape for x in args))).reshape(-1)
        if packet is aten.index and any(_is_mask(i) for i in args[1]):
            args = (args[0], [j for i in args[1] for j in _places(i)])
        return func(*args, **(kwargs or {}))

    def _number(self, x: Tensor) -> Any:
        place = _place()
        self.asked.add(place)
        number = ANSWERS.get(place, (1, ''))[0]
        if x.dtype == torch.bool:
            return bool(number)
        return float(number) if x.is_floating_point() else number


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype == torch.bool


def _places(index: Any) -> list[Any]:
    """Turn a mask into the numbers of the places where it is True, which are all."""
    if not _is_mask(index):
        return [index]
    count = index.numel()
    return [torch.zeros(count, dtype=torch.int64, device=index.device)] * index.dim()


def _place() -> tuple[str, str]:
    """Return file and function of the nearest caller that is neither torch nor a mode."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        name, function = frame.f_code.co_filename, frame.f_code.co_name
        if '/torch/' not in name and function != '__torch_dispatch__':
            path = Path(name)
            if path.is_relative_to(_AT):
                return path.relative_to(_AT).as_posix(), function
            return '/'.join(path.parts[-3:]), function
        frame = frame.f_back
    return '', ''


def known_to_autocast(device: str) -> str:
    """Return the CPU for the meta device, which stands for a GPU here."""
    return 'cpu' if device == 'meta' else device


@contextmanager
def imagined() -> Iterator[Answers]:
    """Make every tensor of this context a fake one.

    Modules move between devices by new parameters: fake ones cannot be swapped in place.
    Frozen norms and MLPs run whole, as on a GPU, not in pieces for a CPU's cache.

    Yields:
        Answers: What was asked.
    """

    def apply(self: nn.Module, fn: Any, recurse: bool = True) -> nn.Module:
        if recurse:
            for child in self.children():
                child._apply(fn)
        for name, p in self._parameters.items():
            if p is not None:
                with torch.no_grad():
                    self._parameters[name] = nn.Parameter(fn(p), p.requires_grad)
        for name, b in self._buffers.items():
            if b is not None:
                self._buffers[name] = fn(b)
        return self

    answers, autocast = Answers(), torch.autocast
    with (
        patch.object(nn.Module, '_apply', apply),
        # Where 'meta' stands for a GPU, of which autocast knows nothing.
        patch.object(
            torch, 'autocast', lambda kind, *a, **k: autocast(known_to_autocast(kind), *a, **k)
        ),
        FakeTensorMode(allow_non_fake_inputs=True),
        answers,
    ):
        yield answers


def imagined_config(cfg: Config) -> Config:
    """Return a copy of a config whose model is built without any file.

    Random models of the same shape stand for checkpoints (:mod:`lm4ve.cost.shapes`), made-up
    values for what the task reads besides.
    """
    cfg = deepcopy(cfg)
    if cfg.get('data_preprocessor') is not None:
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    _without_checkpoints(cfg.model)
    task_of_config(cfg).batches.imagine(cfg.model)
    return cfg


def _without_checkpoints(node: Any) -> None:
    if isinstance(node, ConfigDict):
        field = SHAPED.get(str(node.get('type')).rpartition('.')[2])
        if field and isinstance(node.get('checkpoint'), str):
            node[field] = ConfigDict(shape_of(node.pop('checkpoint')))
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for value in node:
            _without_checkpoints(value)


def build_imagined(cfg: Config, answers: Answers | None = None) -> nn.Module:
    """Build the model of an :func:`imagined_config`, for training.

    Args:
        cfg (Config): The config.
        answers (Answers, optional): Within :func:`imagined`, what it gave.
    """
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    if answers is not None:
        answers.initializes = True
    try:
        model: nn.Module = MODELS.build(cfg.model)
    finally:
        if answers is not None:
            answers.initializes = False
    return model.train()
