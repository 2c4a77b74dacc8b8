"""Checks the learning rate from the first step to the last."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.optim import OptimWrapper
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope

from lm4ve.dry_run.finding import Finding, warning_if
from lm4ve.dry_run.plan import Plan
from lm4ve.runner.accumulation import check_batch, describe_update
from lm4ve.runner.config.schedules import rate_of_optimizer, schedules_in

#: Steps of an epoch that stand for all, where schedules count in epochs.
_STEPS_PER_EPOCH = 20
#: A rate above this part of its peak is called high at the end.
_HIGH = 0.5


@dataclass(frozen=True)
class Rates:
    """The learning rates of a training.

    Attributes:
        first, peak, last (float): The rates of the first step, the highest, the last.
        peak_at (float): Where the peak is first reached, from 0 to 1.
        flat_from (float): From where on the rate stays as it is, from 0 to 1.
        of_epochs (list[float]): The rate of the first step of each epoch.
    """

    first: float
    peak: float
    peak_at: float
    last: float
    flat_from: float
    of_epochs: list[float]


def check_schedule(plan: Plan) -> Finding:
    """Follow the learning rate to the end; warn of a schedule that cannot be meant.

    That is one of another length, or one that trains what ``lr_mult=0`` shall keep.

    Raises:
        UserError: Iterations do not make up the batch that the rate is for.
    """
    cfg = plan.cfg
    rate = rate_of_optimizer(cfg)
    if not isinstance(rate, (int, float)):
        return Finding('several optimizers or no rate: not followed')
    schedules = schedules_in(cfg)
    rate *= scale_of_rate(cfg)
    update = _check_update(cfg)
    if not schedules:
        plan.peak = 1.0
        return Finding(f'learning rate {rate:.3g} throughout{update}')
    length = len(plan.loaders['train'])
    rates = follow_rates(cfg, rate, plan.iterations, length)
    if rates.first > 0:
        plan.peak = rates.peak / rates.first
    text = (
        f'learning rate {rates.first:.2g}, peak {rates.peak:.2g} after '
        f'{rates.peak_at:.0%}, at the end {rates.last:.2g}{update}'
    )
    problem = _find_problem(rates)
    kept = _parts_kept(cfg)
    if kept:
        rate_of_kept = follow_rates(cfg, 0.0, plan.iterations, length).peak
        if rate_of_kept > 0:
            problem = (
                f"The rate of '{kept[0]}' is 0 by lr_mult, but param_scheduler raises it "
                f'to {rate_of_kept:.2g}. Fix: eta_min_ratio in place of eta_min.'
            )
    return warning_if(problem, text)


def _parts_kept(cfg: Config) -> list[str]:
    """Return the keys of parameters whose learning rate is 0 by ``lr_mult``."""
    fields = cfg.optim_wrapper.get('paramwise_cfg') or {}
    keys = fields.get('custom_keys') or {}
    return [key for key, value in keys.items() if value.get('lr_mult', 1) == 0]


def _check_update(cfg: Config) -> str:
    """Return what an update adds up, to be appended to a text; '' if it is one iteration.

    Raises:
        UserError: See :func:`lm4ve.runner.accumulation.check_batch`.
    """
    processes = get_world_size()
    check_batch(cfg, processes)
    update = describe_update(cfg, processes)
    return f'; {update}' if update else ''


def scale_of_rate(cfg: Config) -> float:
    """Return the factor of the learning rate by ``auto_scale_lr``."""
    scaling = cfg.get('auto_scale_lr') or {}
    if not scaling.get('enable'):
        return 1.0
    batch = cfg.train_dataloader.batch_size * get_world_size()
    return float(batch / scaling['base_batch_size'])


def follow_rates(cfg: Config, rate: float, iterations: int, epoch_length: int) -> Rates:
    """Run the schedules of a config with one parameter.

    Where all of them count in epochs, an epoch has at most 20 steps here.

    Args:
        cfg (Config): The config.
        rate (float): The optimizer's learning rate.
        iterations (int): The length of the training.
        epoch_length (int): Iterations of an epoch.
    """
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    fields = [dict(schedule) for _, schedule in schedules_in(cfg)]
    steps = epoch_length
    if all(each.get('by_epoch', True) for each in fields):
        steps = min(epoch_length, _STEPS_PER_EPOCH)
    total = max(1, iterations * steps // epoch_length)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=rate)
    wrapper = OptimWrapper(optimizer)
    schedulers = []
    for each in fields:
        schedulers.append(_build_schedule(cfg, each, wrapper, steps, total))
    wrapper.step()  # schedules warn if they come first
    values = []
    for step in range(1, total + 1):
        values.append(optimizer.param_groups[0]['lr'])
        for scheduler in schedulers:
            if not scheduler.by_epoch or step % steps == 0:
                scheduler.step()
    return _summarize(values, steps)


def _build_schedule(
    cfg: Config, fields: Mapping[str, Any], wrapper: Any, steps: int, total: int
) -> Any:
    """Build a schedule as MMEngine's runner does, with its default end.

    Args:
        cfg (Config): The config.
        fields (Mapping): The schedule's.
        wrapper (OptimWrapper): Of the optimizer.
        steps (int): Of an epoch.
        total (int): Of the training.
    """
    end = total
    if fields.get('by_epoch', True):
        end = (cfg.get('train_cfg') or {}).get('max_epochs', total)
    return PARAM_SCHEDULERS.build(
        {'end': end, **fields}, default_args=dict(optimizer=wrapper, epoch_length=steps)
    )


def _summarize(values: list[float], steps: int) -> Rates:
    """Return what matters of the learning rates of all steps, so many of them an epoch."""
    peak = max(values)
    flat = len(values) - 1
    while flat > 0 and values[flat - 1] == values[-1]:
        flat -= 1
    return Rates(
        first=values[0],
        peak=peak,
        peak_at=values.index(peak) / len(values),
        last=values[-1],
        flat_from=flat / len(values),
        of_epochs=values[::steps],
    )


def _find_problem(rates: Rates) -> str:
    """Return what is unusual in a schedule, for the table; '' if nothing is."""
    if rates.peak_at > _HIGH:
        return (
            'The warm-up takes more than half of the training: see param_scheduler and '
            'train_cfg.'
        )
    if rates.last > _HIGH * rates.peak:
        return (
            'It is still high at the end: the schedule may be longer than the training.'
        )
    if rates.flat_from < 1 - _HIGH and rates.last < rates.peak:
        return 'It stays at its end for more than half of the training.'
    return ''
