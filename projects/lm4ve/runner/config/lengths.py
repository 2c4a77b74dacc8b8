"""Train a config for other epochs, with another rate or batch: the flags of ``lm4ve train``.

An override of one field by ``--cfg-options`` changes this field, and what has to be
equal to it. These change a recipe as a whole: ``--epochs 30`` of a recipe of 300 with
20 of warm-up warms up for 2.
"""

from typing import Any

from mmengine.config import Config

from lm4ve.errors import UserError, check
from lm4ve.runner.config.fields import dict_at, is_number
from lm4ve.runner.config.schedules import (
    find_one_cycle,
    rate_of_optimizer,
    schedules_in,
)

#: Fields of a schedule that count its epochs or iterations from the training's start.
_MOMENTS = ('begin', 'end')
#: Those that count from the schedule's own start.
_LENGTHS = ('T_max', 'total_steps', 'step_size', 'skipped')


def set_epochs(cfg: Config, epochs: int) -> None:
    """Train for other epochs; warm-up, milestones and ends of schedules move in proportion.

    A warm-up that would be shorter than half an epoch is left out. What happens every
    so many epochs happens at least after the last.

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
    for _, schedule in schedules_in(cfg):
        _stretch(schedule, ratio)
    if isinstance(schedules, list):
        cfg.param_scheduler = [s for s in schedules if not _is_empty(s)]
    cfg.train_cfg.max_epochs = epochs
    _shorten_intervals(cfg, epochs)


def _stretch(schedule: Any, ratio: float) -> None:
    """Move a schedule's begin, end, milestones and length by a factor, in place.

    Neighbors stay neighbors, since equal moments are rounded alike; a length that spanned
    the schedule still does.
    """
    length_before = _length(schedule)
    for key in _MOMENTS:
        if is_number(schedule.get(key)):
            schedule[key] = round(schedule[key] * ratio)
    for key in _LENGTHS:
        value = schedule.get(key)
        if not is_number(value):
            continue
        if value == length_before:
            schedule[key] = _length(schedule)
        else:
            schedule[key] = max(round(value * ratio), 1)
    if 'milestones' in schedule:
        # Milestones that fall together still lower the rate as often.
        schedule['milestones'] = [round(m * ratio) for m in schedule['milestones']]


def _length(schedule: Any) -> int | None:
    """Return how many epochs or iterations a schedule spans, or None if that is open."""
    end = schedule.get('end')
    if not is_number(end):
        return None
    return int(end - schedule.get('begin', 0))


def _is_empty(schedule: Any) -> bool:
    """Whether a schedule ends where it begins."""
    return _length(schedule) == 0


def _shorten_intervals(cfg: Config, epochs: int) -> None:
    """Let the intervals of validation and checkpoints be no longer than the training."""
    for name in ('val_interval', 'val_begin'):
        interval: Any = cfg.train_cfg.get(name)
        if is_number(interval):
            cfg.train_cfg[name] = min(interval, epochs)
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
        lowest = schedule.get('eta_min')
        if is_number(lowest):
            schedule['eta_min'] = lowest * rate / before


def set_batch_size(cfg: Config, size: int) -> None:
    """Train with other batches of each process; the rate stays.

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
