"""Train a config for other epochs, with another rate or batch: the flags of ``lm4ve train``.

An override of one field by ``--cfg-options`` changes this field, and what has to be
equal to it. These change a recipe as a whole: ``--epochs 30`` of a recipe of 300 with
20 of warm-up warms up for 2.
"""

import copy
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from lm4ve.errors import UserError, check
from lm4ve.runner.config.fields import dict_at, is_number
from lm4ve.runner.config.schedules import (
    find_one_cycle,
    rate_of_optimizer,
    schedules_in,
    sets_rates,
)

#: Fields of a schedule that count its epochs or iterations from the training's start.
_MOMENTS = ('begin', 'end')
#: Those that count them from the schedule's own start.
_LENGTHS = ('T_max', 'total_steps')
#: Those that count epochs or iterations from no moment.
_COUNTS = ('step_size', 'skipped')
#: Fields of MMEngine's hooks that count epochs or iterations from the training's start.
_MOMENTS_OF_HOOKS = ('save_begin', 'begin_epoch', 'begin_iter')
#: The lowest rate of a schedule.
_LOWEST = ('eta_min', 'min_value')


def set_epochs(cfg: Config, epochs: int) -> None:
    """Train for other epochs; warm-up, milestones and ends of schedules move in proportion.

    So do the first epochs of validation, checkpoints and averages (EMA). A warm-up that
    would be shorter than half an epoch is left out. What a schedule counts in iterations
    moves alike. No other length is below one epoch or iteration, and a warning names
    those that would be. What happens every so many epochs happens at least after the
    last. Epochs of other hooks stay, and a warning names them.

    Args:
        cfg (Config): Changed in place.
        epochs (int): At least 1.

    Raises:
        UserError: The config counts iterations, or has schedules of several optimizers.
    """
    before: Any = dict_at(cfg, 'train_cfg').get('max_epochs')
    if not is_number(before):
        raise UserError(
            '--epochs: this config has no train_cfg.max_epochs; it counts iterations. '
            'Fix: --cfg-options train_cfg.max_iters=N, and the same in its schedules.'
        )
    schedules = cfg.get('param_scheduler')
    if isinstance(schedules, dict) and 'type' not in schedules:
        raise UserError(
            '--epochs: param_scheduler has the schedules of several optimizers. Fix: set '
            'train_cfg.max_epochs and these schedules in the config.'
        )
    ratio = epochs / before
    for path, schedule in schedules_in(cfg):
        stretched = copy.deepcopy(schedule)
        _stretch(stretched, ratio)
        _warn_of_least_lengths(path, schedule, stretched, ratio)
        schedule.update(stretched)
    if isinstance(schedules, list):
        cfg.param_scheduler = [s for s in schedules if not _is_empty(s, epochs)]
    cfg.train_cfg.max_epochs = epochs
    _move_validation(cfg, ratio, epochs)
    _move_hooks(cfg, ratio)
    _shorten_intervals(cfg, epochs)


def _stretch(schedule: Any, ratio: float) -> None:
    """Move a schedule's begin, end, milestones and length by a factor, in place.

    All moments are rounded as counted from the training's start: what met before still
    does, such as the end of a warm-up and the begin of a cosine, or its end and that of
    the training.
    """
    begin_before = _begin(schedule)
    end_before = schedule.get('end')
    for key in _MOMENTS:
        if is_number(schedule.get(key)):
            schedule[key] = round(schedule[key] * ratio)
    begin = _begin(schedule)
    # One that counts epochs and has none left is left out: see `_is_empty`.
    counts_iterations = not schedule.get('by_epoch', True)
    if counts_iterations and is_number(end_before) and end_before > begin_before:
        schedule['end'] = max(schedule['end'], begin + 1)
    for key in _LENGTHS:
        if is_number(schedule.get(key)):
            end = round((begin_before + schedule[key]) * ratio)
            schedule[key] = max(end - begin, 1)
    for key in _COUNTS:
        if is_number(schedule.get(key)):
            schedule[key] = max(round(schedule[key] * ratio), 1)
    if 'milestones' in schedule:
        # Milestones that fall together still lower the rate as often.
        milestones = []
        for milestone in schedule['milestones']:
            milestones.append(round((begin_before + milestone) * ratio) - begin)
        schedule['milestones'] = milestones
    if 'periods' in schedule:
        schedule['periods'] = _stretch_periods(schedule['periods'], ratio)


def _warn_of_least_lengths(
    path: str, before: Any, stretched: Any, ratio: float
) -> None:
    """Warn of the lengths of a schedule that are 1, since they would be less.

    Args:
        path (str): Where the schedule stands in the config.
        before (dict): The schedule as its recipe has it.
        stretched (dict): As it is now.
        ratio (float): Of the present length of the training to that of the recipe.
    """
    unit = 'epochs' if before.get('by_epoch', True) else 'iterations'
    lengths = {key: before.get(key) for key in (*_LENGTHS, *_COUNTS)}
    if unit == 'iterations' and is_number(before.get('end')):
        lengths['end'] = before['end'] - _begin(before)
    for key, length in lengths.items():
        if not is_number(length) or length <= 0 or length * ratio >= 0.5:
            continue
        print_log(
            f'--epochs: {path}.{key}={before[key]} {unit} would be {length * ratio:.2g}, '
            f'and is {stretched[key]}. Fix: --cfg-options {path}.{key}=N, if another is meant.',
            logger='current',
            level=logging.WARNING,
        )


def _stretch_periods(periods: Any, ratio: float) -> list[int]:
    """Return the lengths of a schedule's periods, so that they end in proportion."""
    stretched = []
    end_before = 0
    end = 0
    for period in periods:
        end_before += period
        length = max(round(end_before * ratio) - end, 1)
        stretched.append(length)
        end += length
    return stretched


def _begin(schedule: Any) -> int:
    """Return the epoch or iteration after which a schedule begins."""
    begin: Any = schedule.get('begin')
    if not is_number(begin):
        return 0
    return int(begin)


def _is_empty(schedule: Any, epochs: int) -> bool:
    """Whether a schedule ends where it begins, or begins where the training ends."""
    begin = _begin(schedule)
    if schedule.get('end') == begin:
        return True
    return bool(schedule.get('by_epoch', True)) and begin >= epochs


def _move_validation(cfg: Config, ratio: float, epochs: int) -> None:
    """Move the epochs from which on validation takes place, or has another interval."""
    begin: Any = cfg.train_cfg.get('val_begin')
    if is_number(begin):
        cfg.train_cfg.val_begin = max(round(begin * ratio), 1)
    intervals: Any = cfg.train_cfg.get('dynamic_intervals')
    if intervals:
        moved = []
        for moment, interval in intervals:
            moved.append((round(moment * ratio), min(interval, epochs)))
        cfg.train_cfg.dynamic_intervals = moved


def _move_hooks(cfg: Config, ratio: float) -> None:
    """Move the epochs of MMEngine's hooks, and warn of those that other hooks count."""
    others = []
    for path, hook in _hooks_in(cfg):
        for key in _MOMENTS_OF_HOOKS:
            if is_number(hook.get(key)):
                hook[key] = round(hook[key] * ratio)
        for key, value in hook.items():
            is_count = is_number(value) and not isinstance(value, bool)
            if is_count and 'epoch' in key and key not in _MOMENTS_OF_HOOKS:
                others.append(f'{path}.{key}={value}')
    if others:
        print_log(
            f'--epochs does not change {", ".join(others)}; --cfg-options does.',
            logger='current',
            level=logging.WARNING,
        )


def _hooks_in(cfg: Config) -> Iterator[tuple[str, Any]]:
    """Yield the path and the dict of each hook of a config."""
    for name, hook in dict_at(cfg, 'default_hooks').items():
        if isinstance(hook, Mapping):
            yield f'default_hooks.{name}', hook
    for index, hook in enumerate(cfg.get('custom_hooks') or ()):
        if isinstance(hook, Mapping):
            yield f'custom_hooks.{index}', hook


def _shorten_intervals(cfg: Config, epochs: int) -> None:
    """Let the intervals of validation and checkpoints be no longer than the training."""
    interval: Any = cfg.train_cfg.get('val_interval')
    if is_number(interval):
        cfg.train_cfg.val_interval = min(interval, epochs)
    hook = dict_at(cfg, 'default_hooks').get('checkpoint')
    if isinstance(hook, dict) and hook.get('by_epoch', True):
        interval = hook.get('interval')  # -1 is: never
        if is_number(interval):
            hook['interval'] = min(interval, epochs)


def set_rate(cfg: Config, rate: float) -> None:
    """Train with another learning rate; the lowest rate of schedules moves in proportion.

    Factors of groups of parameters are relative to the rate, and stay.

    Args:
        cfg (Config): Changed in place.
        rate (float): The optimizer's, and the peak of a one-cycle schedule; positive.

    Raises:
        UserError: The config has no such rate, or it is not positive.
    """
    check('--lr', rate, above=0)
    one_cycle = find_one_cycle(cfg)
    before = rate_of_optimizer(cfg)
    if one_cycle is not None:
        before = one_cycle.get('eta_max')
        one_cycle['eta_max'] = rate
    if not is_number(before):
        raise UserError(
            '--lr: this config has no optim_wrapper.optimizer.lr, or several optimizers. '
            'Fix: set the rates in the config.'
        )
    if one_cycle is None or rate_of_optimizer(cfg) is not None:
        cfg.optim_wrapper.optimizer.lr = rate
    for _, schedule in schedules_in(cfg):
        if not sets_rates(schedule):
            continue
        for key in _LOWEST:
            lowest = schedule.get(key)
            if is_number(lowest):
                schedule[key] = lowest * rate / before


def set_batch_size(cfg: Config, size: int) -> None:
    """Train with other batches of each process.

    The rate stays, unless the config has ``auto_scale_lr.enable=True``.

    Args:
        cfg (Config): Changed in place.
        size (int): Samples of one process in a step, at least 1.

    Raises:
        UserError: The training's data loader makes batches of its own.
    """
    if 'batch_size' not in dict_at(cfg, 'train_dataloader'):
        raise UserError(
            '--batch-size: train_dataloader has no batch_size; its batch_sampler decides. '
            'Fix: set the size there.'
        )
    cfg.train_dataloader.batch_size = size
