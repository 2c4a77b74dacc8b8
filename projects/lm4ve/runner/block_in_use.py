"""A training whose block does nothing ends in its first iteration.

The neck's own guard (:mod:`lm4ve.necks.guard`) asks at an optimizer's first step. A runner
knows more: what the config has named, where each neck is, and when an iteration is over,
also where gradients are accumulated, mappers are frozen or FSDP has split them.
"""

import functools
import logging
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import nn

from lm4ve.errors import UserError
from lm4ve.necks import LLMBlockNeck
from lm4ve.necks.first_batch import is_compiled
from lm4ve.necks.guard import ADVICE
from lm4ve.registry import HOOKS


@HOOKS.register_module()
class BlockInUseHook(Hook):  # type: ignore[misc]
    """Raise if a neck was not built, did not run, or has no part in the loss.

    Iterations whose loss is exactly zero, as a batch without truth gives it, are passed
    over. Of compiled models only the neck's own guard knows.
    """

    # Before the hooks that save.
    priority = 'ABOVE_NORMAL'

    def __init__(self) -> None:
        self._open: dict[str, LLMBlockNeck] = {}

    def before_train(self, runner: Runner) -> None:
        """Compare what was built with what the config names.

        Raises:
            UserError: A host did not build the neck that it was given.
        """
        necks = {
            n: m for n, m in runner.model.named_modules() if isinstance(m, LLMBlockNeck) and m.guard
        }
        fields = list(_fields(runner.cfg.get('model'), 'model'))
        if len(fields) > sum(isinstance(m, LLMBlockNeck) for m in runner.model.modules()):
            host = type(getattr(runner.model, 'module', runner.model)).__name__
            raise UserError(
                f"{', '.join(fields)} of the config: {host} did not build this type='LLMBlockNeck' "
                'and would train without the block.' + ADVICE
            )
        for name, neck in necks.items():
            neck.use.place = neck.use.place or f'model.{name.removeprefix("module.")}'
            neck.use.name_of = functools.partial(_name_of, weakref.ref(runner.model))
        for host in runner.model.modules():
            _check_class_tokens(host)
        compiled = runner.cfg.get('compile') or is_compiled(runner.model)
        self._open = {} if compiled else necks

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Ask the necks that have not shown their use yet.

        Raises:
            UserError: One did not run, or no gradient came back to it.
        """
        if not self._open:
            return
        self._open = {n: m for n, m in self._open.items() if not m.use.reached}
        losses = [v for k, v in (outputs or {}).items() if 'loss' in k]
        without_truth = bool(losses) and not any(torch.as_tensor(v).any() for v in losses)
        for name, neck in [*self._open.items()]:
            if neck.use.ran and not neck.use.differentiable:  # nothing before or in it trains
                del self._open[name]
            elif not (neck.use.ran and without_truth):
                raise UserError(f'{neck.use.defect()}{ADVICE}')


def _name_of(model: 'weakref.ref[nn.Module]', parameter: nn.Parameter) -> str:
    owner = model()
    named = [] if owner is None else owner.named_parameters()
    name = next((n for n, p in named if p is parameter), '')
    return f'model.{name.rpartition(".")[0].removeprefix("module.")}' if name else ''


def _check_class_tokens(host: nn.Module) -> None:
    """Warn where a neck's mean would have the class tokens of its encoder in it.

    Raises:
        UserError: The neck would draw from the class tokens, which the head expects first.
    """
    neck, encoder = (getattr(host, n, None) for n in ('neck', 'backbone'))
    extra = getattr(encoder, 'num_extra_tokens', 0)
    if (
        not extra
        or not isinstance(neck, LLMBlockNeck)
        or neck.num_extra_tokens == extra
        or getattr(encoder, 'out_type', 'raw') != 'raw'
    ):
        return
    fix = f'Fix: model.neck.num_extra_tokens={extra}'
    first = f'the first {extra} tokens of {type(encoder).__name__}, which are no patches'
    if neck.out_type == 'avg_featmap':
        print_log(
            f"model.neck.out_type='avg_featmap' averages {first}, too; MAE, BEiT and EVA-02 leave "
            f'them out. {fix}, if that is meant.',
            logger='current',
            level=logging.WARNING,
        )
    elif neck.train_queries is not None and not neck.train_queries.gradient_only:
        raise UserError(
            f'model.neck.train_queries draws from {first}, too, and the head would read another '
            f'token in their place. {fix}.'
        )


def _fields(cfg: Any, name: str) -> Iterator[str]:
    """Yield the names of the fields that are an ``LLMBlockNeck``."""
    if isinstance(cfg, Mapping):
        kind = cfg.get('type')
        named = kind if isinstance(kind, str) else getattr(kind, '__name__', '')
        if named.rpartition('.')[2] == 'LLMBlockNeck':
            yield name
        for key, value in cfg.items():
            yield from _fields(value, f'{name}.{key}')
    elif isinstance(cfg, (list, tuple)):
        for i, value in enumerate(cfg):
            yield from _fields(value, f'{name}.{i}')
