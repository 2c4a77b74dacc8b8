"""A block that nobody uses is an error of the first training step.

A container whose ``forward`` is never called, an output that the encoder drops, a host
that builds ``neck=`` and does not call it: each of them trains without a word, and the
block does nothing. The neck sees two things of a training step, whether it ran and whether
a gradient came back to its output. Optimizers are asked just before they step, so that the
guard needs neither a hook of a runner nor a field of a config.
"""

import logging
import weakref
from collections.abc import Callable
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from lm4ve.errors import UserError
from lm4ve.necks.normed_before import norm_before


class Use:
    """What a neck has seen of training.

    Attributes:
        ran (bool): A forward pass was made.
        differentiable (bool): Its output could have had a gradient.
        reached (bool): A gradient came back to its output.
        place (str): Where the neck is, for messages; empty if nobody has said so.
        name_of (Callable, optional): Tells the name of a parameter of the model.
    """

    def __init__(self, place: str = '') -> None:
        self.ran = self.differentiable = self.reached = False
        self.place = place
        self.name_of: Callable[[nn.Parameter], str] | None = None

    def look_at(self, x: Tensor) -> None:
        """Warn once if the features of the first training step have been normed before."""
        if self.ran or torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return
        found = norm_before(x)
        name_of, self.name_of = self.name_of, None
        if found is None:
            return
        gain = found[0]
        name = name_of(gain) if name_of is not None and gain is not None else ''
        width = '' if gain is None else f' of width {gain.numel()}'
        print_log(
            f'What reaches LLMBlockNeck comes out of a norm{width}'
            f"{f' ({name})' if name else ''}, and the neck has a norm of its own: the paper's "
            "place for the block is between the encoder's last layer and its final norm. Fix: turn "
            'that norm off, for example by model.backbone.final_norm=False (the line for each '
            'encoder is in docs/guides/backbones.md), or set model.neck.norm_cfg=None.',
            logger='current',
            level=logging.WARNING,
        )

    def watch(self, out: Tensor) -> None:
        """Note a forward pass, and have its gradient noted.

        A gradient of exact zeros counts: a batch without truth has one. Nothing is noted
        while the pass is traced, since what is traced does not happen.
        """
        if self.reached or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return
        self.ran = True
        if torch.is_grad_enabled() and out.requires_grad:
            self.differentiable = True
            out.register_hook(self._reach)

    def _reach(self, _: Tensor) -> None:
        self.reached = True

    def defect(self) -> str | None:
        """Return what is wrong after a training step, or None."""
        where = f' ({self.place})' if self.place else ''
        if self.reached:
            return None
        if not self.ran:
            return (
                f"The model's LLMBlockNeck{where} was built and did not run: the host does not "
                'call it, or the place that it was attached to is never called.'
            )
        return (
            f"The output of the model's LLMBlockNeck{where} does not reach the loss: the "
            'gradient of its mappers is missing, so the encoder or the head drops that output.'
        )


#: What the two errors of this module advise.
ADVICE = (
    ' Fix: use a host that calls its neck (ImageClassifier, Recognizer2D, '
    'Recognizer3D), or LLMBlockInsert with after= a submodule that runs and index= the entry of '
    'its output that is used; neck.guard=False where the block is meant to rest in some steps.'
)

_pending: 'weakref.WeakSet[nn.Module]' = weakref.WeakSet()


def expect_use(neck: nn.Module) -> None:
    """Let the first step of an optimizer that trains a neck's mappers check its use.

    Args:
        neck (nn.Module): With ``use``, ``mapper_in`` and ``mapper_out``.
    """
    _pending.add(neck)


def _check_before_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    """Raise if an optimizer is about to train a neck that no gradient has reached.

    Mappers that are frozen, split by FSDP or in another optimizer are left alone; so are
    steps in which nothing at all has a gradient.

    Raises:
        UserError: The neck did not run, or nobody uses its output.
    """
    if not _pending or torch.compiler.is_compiling():
        return
    parameters = [p for group in optimizer.param_groups for p in group['params']]
    trained = {id(p) for p in parameters}
    neck: Any
    for neck in [*_pending]:
        mappers = [m.weight for m in (neck.mapper_in, neck.mapper_out)]
        mine = [w for w in mappers if id(w) in trained and w.requires_grad and w.numel()]
        if neck.use.reached or any(w.grad is not None for w in mine):
            _pending.discard(neck)
        elif mine and any(p.grad is not None for p in parameters):
            raise UserError(f'{neck.use.defect()}{ADVICE}')


register_optimizer_step_pre_hook(_check_before_step)
