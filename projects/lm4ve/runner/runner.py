"""From a config to the runner that trains or evaluates it.

:func:`build_runner` is the one way: it makes resuming exact (:mod:`.loops`), loading
strict (:mod:`.hooks`) and the console short (:mod:`.console`).
"""

import copy
import inspect
import logging
from pathlib import Path
from typing import Any

import mmengine.runner
from mmengine.config import Config, ConfigDict
from mmengine.registry import RUNNERS

from lm4ve.errors import UserError, check
from lm4ve.runner.class_count import ClassCountHook
from lm4ve.runner.config.schedules import ENDS
from lm4ve.runner.console import ConsoleHook, raise_when_closed, shorten
from lm4ve.runner.hooks import NeckHook, PlainCheckpointHook, StopHook
from lm4ve.runner.loops import schedules_of
from lm4ve.runner.resume import resume_newest

#: Default hooks of MMEngine, which None switches off.
_MMENGINES_HOOKS = (
    *(
        'runtime_info',
        'timer',
        'sampler_seed',
        'logger',
        'param_scheduler',
        'checkpoint',
    ),
)
_LOOPS = {
    'EpochBasedTrainLoop': 'lm4ve.EpochLoop',
    'IterBasedTrainLoop': 'lm4ve.IterLoop',
}


class Runner(mmengine.runner.Runner):  # type: ignore[misc]
    """MMEngine's ``Runner`` with a short console, which warns of schedules that a resume ignores.

    Args:
        *args, **kwargs: MMEngine's.
        short_console (bool): Show warnings and the lines of :class:`ConsoleHook` on the
            console; the log file holds everything.
    """

    def __init__(self, *args: Any, short_console: bool = False, **kwargs: Any) -> None:
        self._short_console = short_console
        super().__init__(*args, **kwargs)

    def build_logger(self, *args: Any, **kwargs: Any) -> logging.Logger:
        """Build MMEngine's logger."""
        logger: logging.Logger = super().build_logger(*args, **kwargs)
        raise_when_closed(logger)
        if self._short_console:
            shorten(logger)
        return logger

    def resume(self, *args: Any, **kwargs: Any) -> None:
        """Resume a training, and warn of schedules of the config that do not apply."""
        schedules = schedules_of(self)
        built = [dict(s.state_dict()) for s in schedules]
        super().resume(*args, **kwargs)
        for old, new in zip(built, (s.state_dict() for s in schedules), strict=True):
            for key in [k for k in ENDS if old.get(k) != new.get(k)][:1]:
                self.logger.warning(
                    f"param_scheduler.{key}={old.get(key)} does not apply: the checkpoint's "
                    f'schedule has {new.get(key)}. Use load_from without --resume to change it.'
                )


def build_runner(cfg: Config, short_console: bool = False) -> Any:
    """Build the config's runner: ours, or the one that ``runner_type`` names.

    Args:
        cfg (Config): See :func:`lm4ve.runner.command_line.finish_config`.
        short_console (bool): See :class:`Runner`.

    Raises:
        UserError: ``load_from`` names no file.
    """
    name, start = cfg.get('runner_type', 'Runner'), cfg.get('load_from')
    check('runner_type', name, choices=RUNNERS.module_dict)
    if start and '://' not in str(start):
        if not Path(start).exists():
            raise UserError(f"load_from='{start}' does not exist.")
        if name == 'Runner' and Path(start).is_dir():  # others load folders, too
            raise UserError(
                f"load_from='{start}' is a folder. Fix: name a checkpoint in it."
            )
    if cfg.get('resume') and not start:
        resume_newest(cfg)
    if cfg.get('resume'):
        load_strictly_by_default(cfg)
    loop = dict(cfg.get('train_cfg') or {})
    if 'by_epoch' in loop:
        kind = 'EpochBasedTrainLoop' if loop.pop('by_epoch') else 'IterBasedTrainLoop'
        loop.setdefault('type', kind)
    if exact := _LOOPS.get(str(loop.get('type')).removeprefix('mmengine.')):
        cfg.train_cfg = ConfigDict(loop, type=exact)
    _drop_hooks(cfg)
    if name == 'Runner':
        fields = copy.deepcopy(cfg)
        known = inspect.signature(mmengine.runner.Runner).parameters
        arguments = {k: v for k, v in fields.items() if k in known}
        runner: Any = Runner(**arguments, cfg=fields, short_console=short_console)
    else:
        runner = RUNNERS.get(name).from_cfg(cfg)
        if short_console:
            shorten(runner.logger)
    if short_console:
        runner.register_hook(ConsoleHook())
    # The last one comes after the hooks of the config that touch a checkpoint.
    for hook in (NeckHook, StopHook, ClassCountHook, PlainCheckpointHook):
        if not any(isinstance(h, hook) for h in runner.hooks):
            runner.register_hook(hook())
    return runner


def _drop_hooks(cfg: Config) -> None:
    """Leave out default hooks that are None; of those that it does not know MMEngine fails."""
    hooks = cfg.get('default_hooks') or {}
    for name in [n for n, hook in hooks.items() if hook is None]:
        if name not in _MMENGINES_HOOKS:
            del hooks[name]


def load_strictly_by_default(cfg: Config, **options: Any) -> None:
    """Add the hook for strict loading to a config that lacks it, or that sets options of it."""
    hooks = [
        *(cfg.get('default_hooks') or {}).values(),
        *(cfg.get('custom_hooks') or ()),
    ]
    kinds = {
        str(h.get('type')).rpartition('.')[2] for h in hooks if isinstance(h, dict)
    }
    if options or 'WholeCheckpointHook' not in kinds:
        cfg.setdefault('default_hooks', ConfigDict())
        cfg.default_hooks.whole_checkpoint = ConfigDict(
            type='lm4ve.WholeCheckpointHook', **options
        )
