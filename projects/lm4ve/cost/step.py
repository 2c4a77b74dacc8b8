"""Counts one training step of a config's model at full size: operations, memory, traffic."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from lm4ve.blocks import count_parameters, frozen_tensors
from lm4ve.cost.fake import build_fake, fake_config, fake_tensors
from lm4ve.tasks import task_of_config

#: How many numbers of a parameter's size an optimizer keeps, by its type.
STATES = dict(AdamW=2, Adam=2, SGD=1, LAMB=2, Lamb=2)
_aten = torch.ops.aten
#: Operators that torch does not count -> formulas for their floating-point operations,
#: from the shapes of their arguments: attention on CPUs, which costs as much as the
#: other fused kernels, and the product of 8-bit integers.
_CPU = _aten._scaled_dot_product_flash_attention_for_cpu
_CPU_BACKWARD = _aten._scaled_dot_product_flash_attention_for_cpu_backward
FORMULAS = {
    _CPU: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    _CPU_BACKWARD: lambda g, q, k, v, *_, **__: sdpa_backward_flop_count(g, q, k, v),
    _aten._int_mm: lambda x, y, *_, **__: 2 * x[0] * x[1] * y[1],
}


@dataclass
class StepCost:
    """The cost of a training step of one process.

    Attributes:
        batch (int): Samples.
        trainable, frozen (int): Parameters.
        forward (dict[str, int]): Multiply-accumulates of the forward pass by child of
            the model, and 'all'.
        backward (int): Multiply-accumulates of the backward pass.
        saved (Counter): Bytes that the forward pass keeps for the backward pass, by
            dtype.
        weights (Counter): Bytes of parameters, buffers and frozen tensors, by dtype.
        gradients (int): Bytes of the gradients of all trained parameters.
        optimizer (int): Bytes of the optimizer's state.
        checkpoint (int): Bytes of a checkpoint: weights (without frozen tensors of
            blocks), the optimizer's state and the average of weights, as the config's
            hooks say.
    """

    batch: int
    trainable: int
    frozen: int
    forward: dict[str, int]
    backward: int
    saved: Counter[torch.dtype]
    weights: Counter[torch.dtype]
    gradients: int
    optimizer: int
    checkpoint: int

    @property
    def macs(self) -> int:
        """The multiply-accumulates of the whole step."""
        return self.forward['all'] + self.backward

    def bytes_sent(self, processes: int) -> dict[str, float]:
        """Return the bytes that each process sends in a step that updates the weights.

        'DDP' averages the gradients of trained parameters by a ring all-reduce; 'FSDP'
        gathers parameters for the forward and again for the backward pass, and scatters
        gradients. A ring of N sends (N - 1) / N of the data for a gathering, and as
        much for a scattering; an all-reduce is both (Patarasuk and Yuan, J. Parallel
        Distrib. Comput. 69, 2009). Frozen tensors of blocks are no parameters, so
        neither sends them.
        """
        share = (processes - 1) / processes
        return {'DDP': 2 * share * self.gradients, 'FSDP': 3 * share * self.gradients}


def cost_of_step(cfg: Config, batch: int | None = None) -> StepCost:
    """Count a training step.

    Where a mapper is folded into the block's projections (``low_rank``), the products
    of both count.

    Args:
        cfg (Config): See :func:`lm4ve.runner.config.read_config`. Its checkpoints need
            not exist.
        batch (int, optional): Samples of one process; default: the config's.

    Raises:
        UserError: The config is of no task of the suite.
        CheckpointError: Neither the sizes nor the configuration of a checkpoint are
            known.
    """
    cfg = fake_config(cfg)
    if batch is None:
        batch = batch_of(cfg)
    data = task_of_config(cfg).batches.batch(cfg, batch, training=True)
    with fake_tensors():
        model: Any = build_fake(cfg)
        data = model.data_preprocessor(data, True)
        with counting(model) as counts:
            loss, _ = model.parse_losses(model(**data, mode='loss'))
            counts.end_forward()
            loss.backward()
    trainable, frozen = count_parameters(model)
    weights: Counter[torch.dtype] = Counter()
    for tensor in _tensors_of(model):
        weights[tensor.dtype] += tensor.nbytes
    gradients = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    optimizer = _numbers_kept(cfg) * gradients
    return StepCost(
        batch=batch,
        trainable=trainable,
        frozen=frozen,
        forward=counts.forward,
        backward=counts.total() - counts.forward['all'],
        saved=counts.saved,
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        checkpoint=_checkpoint_bytes(cfg, model, optimizer),
    )


def batch_of(cfg: Config) -> int:
    """Return the batch size of a config's training, or of its test if it does not train."""
    for name in ('train_dataloader', 'test_dataloader'):
        loader = cfg.get(name)
        if loader:
            return loader.get('batch_size', 1)
    return 1


@dataclass
class Counts:
    """Counts of one forward and backward pass.

    Attributes:
        flops (FlopCounterMode): Counts while the model runs.
        children (dict[str, str]): Child of the model -> its name in these counts.
        saved, forward: See :class:`StepCost`.
    """

    flops: FlopCounterMode
    children: dict[str, str]
    saved: Counter[torch.dtype] = field(default_factory=Counter)
    forward: dict[str, int] = field(default_factory=dict)

    def total(self) -> int:
        """Return the multiply-accumulates so far."""
        return self.flops.get_total_flops() // 2

    def end_forward(self) -> None:
        """Store the multiply-accumulates so far in ``forward``: by child, and 'all'.

        Children without any are left out. A multiply-accumulate is two operations.
        """
        operations_by_module = self.flops.get_flop_counts()
        for name, module in self.children.items():
            operations = sum(operations_by_module.get(module, {}).values())
            macs = operations // 2
            if macs > 0:
                self.forward[name] = macs
        self.forward['all'] = self.total()


@contextmanager
def counting(model: nn.Module) -> Iterator[Counts]:
    """Count the operations inside the context, and the memory kept for the backward pass.

    Args:
        model (nn.Module): The model that runs. Its own tensors are not counted as
            memory, and of several views of one storage only the first is.

    Yields:
        Counts: Filled while the model runs.
    """
    class_name = type(model).__name__
    children = {name: f'{class_name}.{name}' for name, _ in model.named_children()}
    counts = Counts(FlopCounterMode(display=False, custom_mapping=FORMULAS), children)
    counted = {tensor.untyped_storage()._cdata for tensor in _tensors_of(model)}

    def count_saved(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in counted:
            counted.add(storage._cdata)
            counts.saved[tensor.dtype] += storage.nbytes()
        return tensor

    def unpack(tensor: Tensor) -> Tensor:
        return tensor  # it was saved as it is

    hooks = torch.autograd.graph.saved_tensors_hooks(count_saved, unpack)
    with hooks, counts.flops:
        yield counts


def _tensors_of(model: nn.Module) -> list[Tensor]:
    """List parameters, buffers and the frozen tensors of blocks."""
    return [*model.parameters(), *model.buffers(), *frozen_tensors(model).values()]


def _numbers_kept(cfg: Config) -> int:
    """Return how many numbers the config's optimizer keeps for each trained one.

    An optimizer that :data:`STATES` lacks is taken for one that keeps two, as Adam does.
    """
    wrapper = cfg.get('optim_wrapper') or {}
    optimizer = wrapper.get('optimizer', {}).get('type', 'AdamW')
    name = optimizer if isinstance(optimizer, str) else optimizer.__name__
    return STATES.get(name, 2)


def _checkpoint_bytes(cfg: Config, model: nn.Module, optimizer: int) -> int:
    """Return the bytes of a checkpoint, as the config's hooks write it.

    Args:
        cfg (Config): The config.
        model (nn.Module): Its model.
        optimizer (int): Bytes of the optimizer's state.
    """
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    size = weights
    if _keeps_average(cfg):
        size += weights
    writer = cfg.get('default_hooks', {}).get('checkpoint') or {}
    if writer.get('save_optimizer', True):
        size += optimizer
    return size


def _keeps_average(cfg: Config) -> bool:
    """Return whether a hook of the config keeps an average of the weights."""
    hooks = list(cfg.get('default_hooks', {}).values())
    hooks += cfg.get('custom_hooks') or []
    for hook in hooks:
        if not hook:  # a default hook that is switched off
            continue
        if str(hook.get('type', '')).endswith('EMAHook'):
            return True
    return False
