"""Find the schedules of a config, and refuse schedules and learning rates without effect.

MMEngine trains with a schedule that never begins, and with learning rates that a
one-cycle schedule replaces, without a word.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

from lm4ve.errors import UserError, check
from lm4ve.runner.config.fields import dict_at, is_number

#: Fields of a schedule that say when it ends.
ENDS = ('total_steps', 'T_max', 'end')
_ONE_CYCLE = ('OneCycleLR', 'OneCycleParamScheduler')
_NO_EFFECT = 'has no effect: OneCycleLR sets the learning rate of all parameters'


def schedules_in(cfg: Config) -> list[tuple[str, Any]]:
    """Return the path and the dict of each schedule of a config, in order.

    Configs with several optimizers have their schedules by name, which are not returned.
    """
    value = cfg.get('param_scheduler')
    if isinstance(value, Mapping):
        return [('param_scheduler', value)]
    if not isinstance(value, list):
        return []
    schedules = []
    for index, schedule in enumerate(value):
        if isinstance(schedule, Mapping):
            schedules.append((f'param_scheduler.{index}', schedule))
    return schedules


def sets_rates(schedule: Mapping[str, Any]) -> bool:
    """Return whether a schedule sets learning rates, not a momentum or another parameter.

    MMEngine's schedules of a momentum are named for it; its general ones, such as
    ``CosineAnnealingParamScheduler``, have the parameter as a field.
    """
    name = str(schedule.get('type'))
    return not name.endswith('Momentum') and schedule.get('param_name', 'lr') == 'lr'


def find_one_cycle(cfg: Config) -> Any:
    """Return the first one-cycle schedule that begins with the training, or None.

    It sets the learning rate of all parameters in every step.
    """
    for _, schedule in schedules_in(cfg):
        name = str(schedule.get('type')).rpartition('.')[2]
        is_one_cycle = name in _ONE_CYCLE and sets_rates(schedule)
        if is_one_cycle and not schedule.get('begin'):
            return schedule
    return None


def rate_of_optimizer(cfg: Config) -> Any:
    """Return the learning rate of a config's optimizer, or None.

    None: there is no rate, or there are several optimizers.
    """
    optimizer = dict_at(cfg, 'optim_wrapper').get('optimizer')
    if not isinstance(optimizer, Mapping):
        return None
    return optimizer.get('lr')


def check_lengths(cfg: Config) -> None:
    """Check that a training has at least one epoch or iteration.

    Raises:
        UserError: It has none.
    """
    training = dict_at(cfg, 'train_cfg')
    for name in ('max_epochs', 'max_iters'):
        length = training.get(name)
        if is_number(length):
            check(f'train_cfg.{name}', length, least=1)


def check_schedules(cfg: Config) -> None:
    """Check that each schedule begins before it ends, or before the training does.

    Raises:
        UserError: It names the schedule, the training's length and what to change.
    """
    training = dict_at(cfg, 'train_cfg')
    for path, schedule in schedules_in(cfg):
        begin = schedule.get('begin')
        if not is_number(begin) or begin == 0:
            continue
        unit = 'epoch' if schedule.get('by_epoch', True) else 'iter'
        length: Any = training.get(f'max_{unit}s')
        if is_number(length) and begin >= length:
            raise UserError(
                f'train_cfg.max_{unit}s={length}: training ends before {path} '
                f'({schedule.get("type")}) begins, after {unit} {begin}. Fix: train longer, or '
                f'let it begin earlier: {path}.begin=0.'
            )
        end = schedule.get('end')
        if is_number(end) and begin >= end:
            raise UserError(f'{path}.begin={begin} must be below {path}.end={end}.')


def refuse_rates_without_effect(cfg: Config) -> None:
    """Refuse learning rates that a one-cycle schedule replaces.

    MMEngine's ``OneCycleLR`` gives all parameters rates between ``eta_max /
    div_factor`` and ``eta_max``, whatever the optimizer has.

    Raises:
        UserError: It names the field that would have no effect.
    """
    schedule = find_one_cycle(cfg)
    wrapper = cfg.get('optim_wrapper')
    if schedule is None or not isinstance(wrapper, Mapping):
        return
    peak = schedule.get('eta_max')
    rate = rate_of_optimizer(cfg)
    if is_number(rate) and is_number(peak) and rate != peak:
        raise UserError(
            f'optim_wrapper.optimizer.lr={rate} {_NO_EFFECT}, up to '
            f'param_scheduler.eta_max={peak}. Fix: set param_scheduler.eta_max, and the same '
            'lr or none.'
        )
    scaling = cfg.get('auto_scale_lr') or {}
    if scaling.get('enable'):
        raise UserError(
            f'auto_scale_lr.enable=True {_NO_EFFECT}. Fix: scale param_scheduler.eta_max={peak} by '
            'the batch size yourself.'
        )
    factors = wrapper.get('paramwise_cfg')
    for path, factor in _rate_factors(factors, 'optim_wrapper.paramwise_cfg'):
        if factor != 1:
            raise UserError(
                f'{path}={factor} {_NO_EFFECT}. Fix: leave it out, or take another schedule, such '
                'as CosineAnnealingLR.'
            )


def _rate_factors(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the path and value of each factor of learning rates in ``paramwise_cfg``.

    Args:
        node: A part of ``paramwise_cfg``, which is searched to any depth.
        path (str): The path of the part.
    """
    if not isinstance(node, Mapping):
        return
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _rate_factors(value, f'{path}.{key}')
        elif key in ('lr', 'layer_decay_rate') or key.endswith('lr_mult'):
            yield f'{path}.{key}', value
