"""An error at the first step of an optimizer whose neck ran under ``no_grad`` in training.

A frozen encoder is often run under ``torch.no_grad()``, and a reversible encoder
computes its gradients by calling parts of its layers again, past every hook. In both
the mappers get no gradient, and the optimizer skips them without a word. The forward
pass alone does not show it: gradient checkpointing runs it under ``no_grad`` too, and
so does a look at the output's shape. A step of an optimizer that has the mappers and
finds no gradient does.
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
    if neck in _waiting or not _trained_mappers(neck):
        return
    _waiting.add(neck)
    if not _hooks:
        _hooks.append(register_optimizer_step_pre_hook(_inspect))


def _inspect(optimizer: Optimizer, args: Any, kwargs: dict[str, Any]) -> None:
    """Check that the mappers which an optimizer is about to train have gradients.

    torch calls it before each step of any optimizer. A neck is checked once.

    Args:
        optimizer (Optimizer): The optimizer.
        args (tuple): The arguments of its step; the second may be a closure.
        kwargs (dict): Those by name.

    Raises:
        UserError: A neck ran under ``torch.no_grad()``, and none of its mappers'
            parameters has a gradient.
    """
    if not _waiting:
        return
    closure = kwargs.get('closure')
    if len(args) > 1:
        closure = args[1]
    if closure is not None:  # it computes the gradients within the step
        return
    for neck in list(_waiting):
        mappers = _trained_mappers(neck)
        if not _has_any(optimizer, mappers):
            continue
        _waiting.discard(neck)
        if all(parameter.grad is None for parameter in mappers):
            raise UserError(
                'An LLMBlockNeck ran under torch.no_grad() in training, and its '
                'mappers got no gradient. Fix: freeze the encoder by '
                'requires_grad_(False) and run it with gradients; or a place that is '
                'no part of a reversible layer; or guard=False.'
            )


def _trained_mappers(neck: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of a neck's mappers that train in this process."""
    trained = []
    for name, parameter in neck.named_parameters():
        # With FSDP1, a parameter of another process's shard is empty here, and gets no
        # gradient.
        is_here = parameter.numel() > 0
        if name.startswith('mapper_') and parameter.requires_grad and is_here:
            trained.append(parameter)
    return trained


def _has_any(optimizer: Optimizer, parameters: list[nn.Parameter]) -> bool:
    """Return whether an optimizer trains at least one of some parameters."""
    ids = {id(parameter) for parameter in parameters}
    for group in optimizer.param_groups:
        for parameter in group['params']:
            if id(parameter) in ids:
                return True
    return False
