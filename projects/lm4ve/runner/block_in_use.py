"""A training whose block does nothing ends in its first iteration.

:mod:`lm4ve.necks.usage` looks at the necks; this hook is there when an iteration is over, also
where gradients are accumulated or mappers are frozen, and compares the model with its config.
"""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from lm4ve.errors import UserError
from lm4ve.necks import LLMBlockNeck
from lm4ve.necks.usage import ADVICE, NeckUsage, inspect_usage, watch_necks
from lm4ve.registry import HOOKS


@HOOKS.register_module()
class BlockInUseHook(Hook):  # type: ignore[misc]
    """Raise if a neck was not built, did not run, or has no part in the loss.

    Iterations whose loss is exactly zero, as a batch without truth gives it, are passed
    over. Compiled models are not watched.
    """

    # Before the hooks that save.
    priority = 'ABOVE_NORMAL'

    def __init__(self) -> None:
        self._watched: list[NeckUsage] = []

    def before_train(self, runner: Runner) -> None:
        """Compare what was built with what the config names, and begin to watch.

        Raises:
            UserError: A host did not build the neck that it was given.
        """
        built = sum(isinstance(m, LLMBlockNeck) for m in runner.model.modules())
        fields = list(_fields(runner.cfg.get('model'), 'model'))
        if len(fields) > built:
            host = type(getattr(runner.model, 'module', runner.model)).__name__
            raise UserError(
                f"{', '.join(fields)} of the config: {host} did not build this type='LLMBlockNeck' "
                'and would train without the block.' + ADVICE
            )
        for host in runner.model.modules():
            _check_class_tokens(host)
        if not runner.cfg.get('compile'):
            self._watched = watch_necks(runner.model)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Judge the first iteration, or the first with a loss.

        Raises:
            UserError: See :func:`lm4ve.necks.usage.inspect_usage`.
        """
        losses = [v for k, v in (outputs or {}).items() if 'loss' in k]
        without_truth = bool(losses) and not any(torch.as_tensor(v).any() for v in losses)
        if self._watched and not without_truth:
            watched, self._watched = self._watched, []
            inspect_usage(watched)


def _check_class_tokens(host: Any) -> None:
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
    text = f'the first {extra} tokens of {type(encoder).__name__}, which are no patches. Fix: '
    text += f'model.neck.num_extra_tokens={extra}'
    if neck.out_type == 'avg_featmap':
        text = f"model.neck.out_type='avg_featmap' averages {text}, if that is not meant."
        print_log(text, logger='current', level=logging.WARNING)
    elif neck.train_only is not None and neck.train_only.queries is not None:
        raise UserError(f'model.neck.train_queries draws from {text}.')


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
