"""Counts one training step of a config's model at full size: operations, memory, traffic."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import OPTIMIZERS
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lm4ve.blocks import count_parameters, frozen_tensors
from lm4ve.cost.fake import (
    build_fake,
    fake_config,
    fake_tensors,
    resolve_auto_dtypes,
)
from lm4ve.cost.length import samples_of_entry
from lm4ve.cost.operations import FORMULAS, Operation, Recorder, storage_of
from lm4ve.tasks import task_of_config
from lm4ve.tasks.base.tested import trained_dataset

#: Wrapper of an optimizer -> the dtype of its autocast where its config names none.
_AUTOCAST = {'AmpOptimWrapper': 'float16', 'AutocastOptimWrapper': 'bfloat16'}
#: Bytes of the loss scaler's state: its scale and its count of good steps.
SCALER = 8


@dataclass
class StepCost:
    """The cost of a training step of one process.

    Attributes:
        batch (int): Samples that reach the model.
        amp (torch.dtype | None): The dtype of autocast; None: there is none.
        trainable, frozen (int): Parameters.
        forward (dict[str, int]): Multiply-accumulates of the forward pass by child of
            the model, and 'all'.
        backward (int): Multiply-accumulates of the backward pass.
        saved (Counter): Bytes that the forward pass keeps for the backward pass, by
            dtype, without weights and their casts.
        casts (int): Bytes of the weights' copies in 16 bits that autocast makes and
            that are kept for the backward pass.
        weights (Counter): Bytes of parameters, buffers and frozen tensors, by dtype.
        gradients (int): Bytes of the gradients of all trained parameters.
        optimizer (int): Bytes of the optimizer's state.
        average (int): Bytes of the average of the weights; 0 if no hook keeps one.
        checkpoint (int): Bytes of a checkpoint: weights (without frozen tensors of
            blocks), the optimizer's state and the average of weights, as the config's
            hooks say.
        memory (dict[str, int]): What takes memory when a step needs most of it ->
            bytes. They add up to ``peak``.
        calls (Counter[Operation]): The operators of forward pass, backward pass and
            update -> how many times each runs.
    """

    batch: int
    amp: torch.dtype | None
    trainable: int
    frozen: int
    forward: dict[str, int]
    backward: int
    saved: Counter[torch.dtype]
    casts: int
    weights: Counter[torch.dtype]
    gradients: int
    optimizer: int
    average: int
    checkpoint: int
    memory: dict[str, int]
    calls: Counter[Operation]

    @property
    def peak(self) -> int:
        """The bytes that a step needs at its peak.

        A GPU's context, what its libraries reserve, and what its allocator loses
        between tensors come on top.
        """
        return sum(self.memory.values())

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

    Mixed precision is torch's autocast of CPUs, on which the tensors are. A GPU's runs
    norms and softmax in fp32, so that it may keep more for the backward pass
    (docs/results/cost.md compares them for ViT-S). Where a mapper is
    folded into the block's projections (``low_rank``), the products of both count.

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
    data = task_of_config(cfg).protocol.batch(cfg, batch, training=True)
    amp = amp_dtype(cfg)
    resolve_auto_dtypes(cfg.model)
    with fake_tensors():
        model: Any = build_fake(cfg)
        with counting(model) as counts:
            loss = loss_of(model, data, amp)
            counts.end_forward()
            loss.backward()
            del loss
            optimizer = _update(cfg, model, counts.recorder)
    trainable, frozen = count_parameters(model)
    weights: Counter[torch.dtype] = Counter()
    for tensor in _tensors_of(model):
        weights[tensor.dtype] += tensor.nbytes
    gradients = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    average = _average_bytes(cfg, model)
    cost = StepCost(
        batch=batch,
        amp=amp,
        trainable=trainable,
        frozen=frozen,
        forward=counts.forward,
        backward=counts.total() - counts.forward['all'],
        saved=counts.saved,
        casts=counts.casts,
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        average=average,
        checkpoint=_checkpoint_bytes(cfg, model, optimizer, average),
        memory={},
        calls=counts.recorder.calls,
    )
    cost.memory = _memory_at_peak(cost, model, counts.recorder)
    return cost


def amp_dtype(cfg: Config) -> torch.dtype | None:
    """Return the dtype in which a config's training runs autocast; None: it does not."""
    wrapper = cfg.get('optim_wrapper') or {}
    kind = str(wrapper.get('type')).rpartition('.')[2]
    if kind not in _AUTOCAST:
        return None
    dtype: torch.dtype = getattr(torch, wrapper.get('dtype') or _AUTOCAST[kind])
    return dtype


def batch_of(cfg: Config) -> int:
    """Return how many samples a step of a config's training has, or of its test.

    A data set that gives several samples of an entry, as ``num_repeats`` says, makes a
    batch so many times larger than the data loader's.
    """
    for name in ('train_dataloader', 'test_dataloader'):
        loader = cfg.get(name)
        if loader:
            entries: int = loader.get('batch_size', 1)
            return entries * samples_of_entry(trained_dataset(cfg))
    return 1


def loss_of(model: Any, data: Any, amp: torch.dtype | None = None) -> Tensor:
    """Run preprocessor and forward pass as MMEngine does in a training step.

    Args:
        model (BaseModel): The model.
        data: A batch, before the preprocessor.
        amp (torch.dtype, optional): The dtype of autocast; None: without it.
    """
    with torch.autocast('cpu', dtype=amp, enabled=amp is not None):
        losses = model(**model.data_preprocessor(data, True), mode='loss')
    loss: Tensor
    loss, _ = model.parse_losses(losses)
    return loss


def optimizer_of(cfg: Config, model: nn.Module) -> Any:
    """Return the config's optimizer for a model, with one rate for all parameters."""
    wrapper = cfg.get('optim_wrapper') or {}
    fields = dict(wrapper.get('optimizer') or dict(type='AdamW'))
    parameters = [p for p in model.parameters() if p.requires_grad]
    return OPTIMIZERS.build(dict(fields, params=parameters))


def _update(cfg: Config, model: nn.Module, recorder: Recorder) -> int:
    """Run the config's optimizer on the model's gradients.

    Returns:
        int: The bytes of the optimizer's state.
    """
    recorder.phase = 'update'
    optimizer = optimizer_of(cfg, model)
    optimizer.step()
    size = 0
    for state in optimizer.state.values():
        for value in state.values():
            if isinstance(value, Tensor):
                size += value.nbytes
    return size


def _memory_at_peak(
    cost: StepCost, model: nn.Module, recorder: Recorder
) -> dict[str, int]:
    """Return what takes memory when a step needs most of it -> bytes.

    Args:
        cost (StepCost): The counts, ``memory`` excepted.
        model (nn.Module): The model after a step.
        recorder (Recorder): What it recorded.
    """
    gradients = recorder.held_at_peak(
        p.grad for p in model.parameters() if p.grad is not None
    )
    rest = recorder.peak - gradients
    activations = min(sum(cost.saved.values()), rest)
    casts = min(cost.casts, rest - activations)
    return {
        'weights': sum(cost.weights.values()),
        'average of the weights': cost.average,
        "optimizer's state": cost.optimizer,
        'loss scaler': SCALER if cost.amp is torch.float16 else 0,
        'gradients': gradients,
        'activations': activations,
        "weights in autocast's dtype": casts,
        'temporary': rest - activations - casts,
    }


@dataclass
class Counts:
    """Counts of one forward and backward pass.

    Attributes:
        flops (FlopCounterMode): Counts while the model runs.
        recorder (Recorder): Records each operator.
        children (dict[str, str]): Child of the model -> its name in these counts.
        saved, casts, forward: See :class:`StepCost`.
    """

    flops: FlopCounterMode
    recorder: Recorder
    children: dict[str, str]
    saved: Counter[torch.dtype] = field(default_factory=Counter)
    casts: int = 0
    forward: dict[str, int] = field(default_factory=dict)

    def total(self) -> int:
        """Return the multiply-accumulates so far."""
        return self.flops.get_total_flops() // 2

    def end_forward(self) -> None:
        """Store the multiply-accumulates so far in ``forward``: by child, and 'all'.

        The operators that follow are those of the backward pass. Children without any
        are left out. A multiply-accumulate is two operations.
        """
        operations_by_module = self.flops.get_flop_counts()
        for name, module in self.children.items():
            operations = sum(operations_by_module.get(module, {}).values())
            macs = operations // 2
            if macs > 0:
                self.forward[name] = macs
        self.forward['all'] = self.total()
        self.recorder.phase = 'backward'


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
    recorder = Recorder(_tensors_of(model))
    flops = FlopCounterMode(display=False, custom_mapping=FORMULAS)
    counts = Counts(flops, recorder, children)
    counted = set()

    def count_saved(tensor: Tensor) -> Tensor:
        key = storage_of(tensor)
        if recorder.is_resident(tensor) or key in counted:
            return tensor
        counted.add(key)
        size = tensor.untyped_storage().nbytes()
        if key in recorder.casts:
            counts.casts += size
        else:
            counts.saved[tensor.dtype] += size
        return tensor

    def unpack(tensor: Tensor) -> Tensor:
        return tensor  # it was saved as it is

    hooks = torch.autograd.graph.saved_tensors_hooks(count_saved, unpack)
    with hooks, flops, recorder:
        yield counts


def _tensors_of(model: nn.Module) -> list[Tensor]:
    """List parameters, buffers and the frozen tensors of blocks."""
    return [*model.parameters(), *model.buffers(), *frozen_tensors(model).values()]


def _checkpoint_bytes(
    cfg: Config, model: nn.Module, optimizer: int, average: int
) -> int:
    """Return the bytes of a checkpoint, as the config's hooks write it.

    Args:
        cfg (Config): The config.
        model (nn.Module): Its model.
        optimizer, average (int): Bytes of the optimizer's state, and of the average of
            weights.
    """
    size = _state_bytes(model) + average
    writer = cfg.get('default_hooks', {}).get('checkpoint') or {}
    if writer.get('save_optimizer', True):
        size += optimizer
    return size


def _average_bytes(cfg: Config, model: nn.Module) -> int:
    """Return the bytes of the average of weights; frozen tensors are shared, not copied."""
    if not _keeps_average(cfg):
        return 0
    return _state_bytes(model)


def _state_bytes(model: nn.Module) -> int:
    """Return the bytes of a model's ``state_dict``."""
    return sum(tensor.nbytes for tensor in model.state_dict().values())


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
