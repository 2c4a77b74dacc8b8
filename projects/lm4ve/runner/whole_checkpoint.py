"""Evaluate what was trained: all of a checkpoint, and frozen weights as they were read.

MMEngine loads what fits and logs the rest, so that a test of another model's checkpoint
ends with a score near chance and exit status 0.
"""

import logging
from collections import OrderedDict
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

from lm4ve.blocks.provenance import accept_records
from lm4ve.compat.mmengine_load_reason import source_of, starts_training
from lm4ve.necks import LLMBlockNeck
from lm4ve.registry import HOOKS
from lm4ve.runner.checkpoint_files import load_strictly, select_state


@HOOKS.register_module()
class WholeCheckpointHook(Hook):  # type: ignore[misc]
    """Refuse a checkpoint that does not fit the model, by the names of its tensors.

    This holds for evaluation and for ``resume``. Training that begins with ``load_from``
    may take a part of a file, as fine-tuning does. Models that FSDP has split are not
    checked. When training or evaluation begins, the frozen weights are compared with what
    was read.

    Args:
        allow_partial (bool): Load what fits and log the rest, as MMEngine does.
    """

    # After the hooks that change the state, such as EMA's.
    priority = 'LOWEST'

    def __init__(self, allow_partial: bool = False) -> None:
        self.allow_partial = allow_partial

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Load the state strictly; what MMEngine then loads is the same.

        Raises:
            UserError: The file holds no state of a model.
            CheckpointError: Tensors are missing, unknown or of another shape.
        """
        model = _inner(runner.model)
        if starts_training(runner) or _is_split(model):
            return
        state = checkpoint.get('state_dict', checkpoint)
        if self.allow_partial:
            accept_records(model, state)
            return
        plain: OrderedDict[str, Any] = OrderedDict(select_state(dict(state_dict=state)))
        plain._metadata = getattr(state, '_metadata', {})  # type: ignore[attr-defined]
        load_strictly(model, plain, f"The checkpoint '{source_of(runner)}'")


def _inner(model: nn.Module) -> nn.Module:
    """Return the model without distributed or test-time wrappers, as MMEngine loads it."""
    inner: Any = model
    while is_model_wrapper(inner) or isinstance(inner, BaseTTAModel):
        inner = inner.module
    return inner  # type: ignore[no-any-return]


def _is_split(model: nn.Module) -> bool:
    return any(isinstance(m, FullyShardedDataParallel) for m in model.modules())


def warn_of_two_norms(model: nn.Module | Any) -> None:
    """Warn where the encoder applies its final norm before the neck, which has one too."""
    if not isinstance(model, nn.Module):
        return  # a FlexibleRunner has the config until it trains
    inner = _inner(model)
    if not any(isinstance(m, LLMBlockNeck) and m.norm is not None for m in inner.children()):
        return
    for name, part in inner.named_children():
        norms = [getattr(part, n, None) for n in ('final_norm', 'norm')]
        if name in ('backbone', 'encoder') and any(
            n is True or isinstance(n, nn.LayerNorm) for n in norms
        ):
            print_log(
                f'model.{name} applies its final norm before model.neck, which has one of its own: '
                "the paper's place for the block is between the last layer and the norm. Fix: "
                f'model.{name}.final_norm=False, or model.neck.norm_cfg=None.',
                logger='current',
                level=logging.WARNING,
            )
