"""The cost of one training step of a config's model at full size, without weights or a GPU."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from torch import nn

from lm4ve.blocks import count_parameters, frozen_tensors
from lm4ve.cost.counting import Counts, StepCounter
from lm4ve.cost.imagining import build_imagined, imagined, imagined_config
from lm4ve.tasks import task_of_config

#: How many numbers of a parameter's size an optimizer keeps, by its type.
STATES = dict(AdamW=2, Adam=2, SGD=1, LAMB=2, Lamb=2)


@dataclass
class StepCost:
    """What a training step of one process costs.

    Attributes:
        batch (int): Samples.
        trainable, frozen (int): Parameters.
        counts (Counts): Operations, and what the forward pass keeps.
        weights (Counter): Bytes of parameters, buffers and frozen tensors, by dtype.
        gradients (int): Bytes of the gradients of all trained parameters.
        fixed (int): Bytes of parameters that are not trained, and of frozen tensors of blocks.
        optimizer (int): Bytes of the optimizer's state.
        checkpoint (int): Bytes of a checkpoint: weights (without frozen tensors of blocks), the
            optimizer's state and the average of weights, as the config's hooks say.
    """

    batch: int
    trainable: int
    frozen: int
    counts: Counts
    weights: Counter
    gradients: int
    fixed: int
    optimizer: int
    checkpoint: int

    @property
    def peak(self) -> Counter:
        """Bytes at the step's peak by dtype: weights, optimizer, gradients and activations."""
        return self.weights + self.counts.peak + Counter({torch.float32: self.optimizer})


def cost_of_step(cfg: Config, batch: int | None = None) -> StepCost:
    """Count a training step.

    Args:
        cfg (Config): See :func:`lm4ve.runner.config.read_config`. Its checkpoints need not be
            there.
        batch (int, optional): Samples of one process; default: the config's.

    Raises:
        UserError: The config is of no task of the suite.
        CheckpointError: Neither the sizes nor the configuration of a checkpoint are known.
    """
    cfg = imagined_config(cfg)
    batch = batch or batch_of(cfg)
    data = task_of_config(cfg).batches.batch(cfg, batch, training=True)
    with imagined() as answers:
        model: Any = build_imagined(cfg, answers)
        data = model.data_preprocessor(data, True)
        counter = StepCounter(model)
        with counter.counting() as counts:
            loss, _ = model.parse_losses(model(**data, mode='loss'))
            loss.backward()
    weights, gradients, optimizer, checkpoint = _sizes(cfg, model)
    trainable, frozen = count_parameters(model)
    fixed = sum(weights.values()) - gradients - sum(b.nbytes for b in model.buffers())
    return StepCost(
        batch, trainable, frozen, counts, weights, gradients, fixed, optimizer, checkpoint
    )


def batch_of(cfg: Config) -> int:
    """Return the samples of a batch of the training, of the test where nothing is trained."""
    loader = cfg.get('train_dataloader') or cfg.get('test_dataloader') or {}
    return loader.get('batch_size', 1)


def _sizes(cfg: Config, model: nn.Module) -> tuple[Counter, int, int, int]:
    """Return bytes: of weights by dtype, of gradients, the optimizer's state, a checkpoint."""
    weights: Counter = Counter()
    for t in (*model.parameters(), *model.buffers(), *frozen_tensors(model).values()):
        weights[t.dtype] += t.nbytes
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    optimizer = cfg.get('optim_wrapper', {}).get('optimizer', {}).get('type', 'AdamW')
    state = STATES.get(optimizer if isinstance(optimizer, str) else optimizer.__name__, 2) * trained
    saved = sum(t.nbytes for t in model.state_dict().values())
    hooks: list[Any] = [*cfg.get('default_hooks', {}).values(), *cfg.get('custom_hooks', ())]
    averages = any(str(h.get('type', '')).endswith('EMAHook') for h in hooks if h)
    keeps = cfg.get('default_hooks', {}).get('checkpoint', {}).get('save_optimizer', True)
    return weights, trained, state, saved * (1 + averages) + state * keeps
