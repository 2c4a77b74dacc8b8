"""An error at the first step of an optimizer whose neck ran under ``no_grad`` in training.

A frozen encoder is often run under ``torch.no_grad()``, and a reversible encoder
computes its gradients by calling parts of its layers again, past every hook. In both
the mappers get no gradient, and the optimizer skips them without a word. The forward
pass alone cannot tell: gradient checkpointing runs it under ``no_grad`` too, and so
does a look at the output's shape. What tells is a step of an optimizer that has the
mappers and finds no gradient.
"""

import weakref
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

from lm4ve.errors import UserError

#: Necks that wait for a step.
_waiting: 'weakref.WeakSet[nn.Module]' = weakref.WeakSet()
# The hook of all optimizers, once it is needed. It stays: torch walks through its hooks
# while it calls them, so that none may remove itself.
_hooks: list[RemovableHandle] = []


def expect_gradient(neck: nn.Module) -> None:
    """Let the first optimizer step that trains a neck's mappers raise if they got no gradient.

    Args:
        neck (nn.Module): A neck in training mode that runs under ``torch.no_grad()``.
    """
    if torch.compiler.is_compiling():
        return
    if neck in _waiting or not _trained(neck):
        return
    _waiting.add(neck)
    if not _hooks:
        _hooks.append(register_optimizer_step_pre_hook(_inspect))


def _inspect(optimizer: Optimizer, args: Any, kwargs: dict[str, Any]) -> None:
    """Look at the necks whose mappers an optimizer has; torch calls it before each step."""
    if not _waiting:
        return
    closure = args[1] if len(args) > 1 else kwargs.get('closure')
    if closure is not None:  # it computes the gradients within the step
        return
    for neck in list(_waiting):
        if not _trains(optimizer, neck):
            continue
        _waiting.discard(neck)
        if not _has_gradient(neck):
            raise UserError(
                'An LLMBlockNeck ran under torch.no_grad() in training, and its mappers got no '
                'gradient. Fix: freeze the encoder by requires_grad_(False) and run it with '
                'gradients; or a place that is no part of a reversible layer; or guard=False.'
            )


def _trained(neck: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of mappers that train."""
    named = neck.named_parameters()
    return [p for name, p in named if name.startswith('mapper_') and p.requires_grad]


def _trains(optimizer: Optimizer, neck: nn.Module) -> bool:
    """Whether an optimizer has a neck's mappers."""
    mine = {id(p) for p in _trained(neck)}
    return any(
        id(p) in mine for group in optimizer.param_groups for p in group['params']
    )


def _has_gradient(neck: nn.Module) -> bool:
    """Whether a mapper has got a gradient."""
    return any(p.grad is not None for p in _trained(neck))
