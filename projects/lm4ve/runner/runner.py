"""From a config to the runner that trains or evaluates it.

:func:`build_runner` is the one way: it makes resuming exact (:mod:`.loops`), loading
strict (:mod:`.checkpoint_hooks`) and the console short (:mod:`.console`).
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
from lm4ve.runner.block_in_use import NeckHook
from lm4ve.runner.checkpoint_hooks import PlainCheckpointHook
from lm4ve.runner.class_count import ClassCountHook
from lm4ve.runner.config.schedules import ENDS
from lm4ve.runner.console import ConsoleHook, raise_when_closed, shorten
from lm4ve.runner.loops import schedules_of
from lm4ve.runner.resume import resume_newest
from lm4ve.runner.stopping import StopHook

#: Default hooks of MMEngine, which None switches off.
_MMENGINES_HOOKS = (
    'runtime_info',
    'timer',
    'sampler_seed',
    'logger',
    'param_scheduler',
    'checkpoint',
)
#: MMEngine's loop -> ours, which resumes exactly.
_EXACT_LOOPS = {
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
        built = [dict(schedule.state_dict()) for schedule in schedules]
        super().resume(*args, **kwargs)
        for before, schedule in zip(built, schedules, strict=True):
            self._warn_of_other_end(before, schedule.state_dict())

    def _warn_of_other_end(
        self, built: dict[str, Any], resumed: dict[str, Any]
    ) -> None:
        """Warn of the first field in which a schedule ends otherwise than its config says."""
        for key in ENDS:
            if built.get(key) != resumed.get(key):
                self.logger.warning(
                    f"param_scheduler.{key}={built.get(key)} does not apply: the checkpoint's "
                    f'schedule has {resumed.get(key)}. Use load_from without --resume to change it.'
                )
                return


def build_runner(cfg: Config, short_console: bool = False) -> Any:
    """Build the config's runner: ours, or the one that ``runner_type`` names.

    Args:
        cfg (Config): See :func:`lm4ve.runner.command_line.finish_config`. Changed in
            place.
        short_console (bool): See :class:`Runner`.

    Returns:
        Runner: Ready to train, validate or test.

    Raises:
        UserError: ``load_from`` names no file.
    """
    name = cfg.get('runner_type', 'Runner')
    check('runner_type', name, choices=RUNNERS.module_dict)
    _check_start(cfg, name)
    if cfg.get('resume') and not cfg.get('load_from'):
        resume_newest(cfg)
    if cfg.get('resume'):
        _load_strictly_by_default(cfg)
    _take_exact_loop(cfg)
    _drop_hooks(cfg)
    if name == 'Runner':
        runner = _build_own_runner(cfg, short_console)
    else:
        runner = RUNNERS.get(name).from_cfg(cfg)
        if short_console:
            shorten(runner.logger)
    if short_console:
        runner.register_hook(ConsoleHook())
    # The last one comes after the hooks of the config that touch a checkpoint.
    for hook in (NeckHook, StopHook, ClassCountHook, PlainCheckpointHook):
        if not any(isinstance(present, hook) for present in runner.hooks):
            runner.register_hook(hook())
    return runner


def _check_start(cfg: Config, runner_type: str) -> None:
    """Check that ``load_from`` is a file, or for another runner perhaps a folder.

    Raises:
        UserError: It is not.
    """
    start = cfg.get('load_from')
    if not start or '://' in str(start):
        return
    if not Path(start).exists():
        raise UserError(f"load_from='{start}' does not exist.")
    if runner_type == 'Runner' and Path(start).is_dir():
        raise UserError(
            f"load_from='{start}' is a folder. Fix: name a checkpoint in it."
        )


def _take_exact_loop(cfg: Config) -> None:
    """Put our loop in the place of MMEngine's, which ``by_epoch`` may name, too."""
    loop = dict(cfg.get('train_cfg') or {})
    if 'by_epoch' in loop:
        by_epoch = loop.pop('by_epoch')
        loop.setdefault(
            'type', 'EpochBasedTrainLoop' if by_epoch else 'IterBasedTrainLoop'
        )
    kind = str(loop.get('type')).removeprefix('mmengine.')
    if kind in _EXACT_LOOPS:
        cfg.train_cfg = ConfigDict(loop, type=_EXACT_LOOPS[kind])


def _drop_hooks(cfg: Config) -> None:
    """Leave out default hooks that are None; MMEngine fails on None under a name of ours."""
    hooks = cfg.get('default_hooks') or {}
    for name, hook in list(hooks.items()):
        if hook is None and name not in _MMENGINES_HOOKS:
            del hooks[name]


def _build_own_runner(cfg: Config, short_console: bool) -> Runner:
    fields = copy.deepcopy(cfg)
    known = inspect.signature(mmengine.runner.Runner).parameters
    arguments = {name: value for name, value in fields.items() if name in known}
    return Runner(**arguments, cfg=fields, short_console=short_console)


def set_strict_loading(cfg: Config, **options: Any) -> None:
    """Add the hook for strict loading to a config, in the place of one that is there.

    Args:
        cfg (Config): Changed in place.
        **options: Of :class:`lm4ve.runner.checkpoint_hooks.WholeCheckpointHook`.
    """
    cfg.setdefault('default_hooks', ConfigDict())
    cfg.default_hooks.whole_checkpoint = ConfigDict(
        type='lm4ve.WholeCheckpointHook', **options
    )


def _load_strictly_by_default(cfg: Config) -> None:
    """Add the hook for strict loading to a config that lacks it."""
    hooks = [
        *(cfg.get('default_hooks') or {}).values(),
        *(cfg.get('custom_hooks') or ()),
    ]
    for hook in hooks:
        if not isinstance(hook, dict):
            continue
        if str(hook.get('type')).rpartition('.')[2] == 'WholeCheckpointHook':
            return
    set_strict_loading(cfg)
