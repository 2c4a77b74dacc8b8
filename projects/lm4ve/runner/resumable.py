"""What a checkpoint must hold so that training can go on from it.

MMEngine takes every field as it is: a checkpoint that somebody has edited, merged or cut
into pieces ends in a traceback of MMEngine's, after minutes of reading data or in the
first step.
"""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.logging import print_log
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor
from torch.optim import Optimizer

from lm4ve.errors import CheckpointError, UserError
from lm4ve.runner.checkpoint_hooks import HISTORY, is_history

#: A place in the checkpoint, what is there, what should be, and whether it is.
Claim = tuple[str, object, str, bool]
_FIX = (
    'Fix: resume an older checkpoint of the run, or begin a new schedule with these weights by '
    'load_from, without --resume.'
)
_ENDS = ('total_steps', 'T_max', 'end')
_PER_GROUP = ('base_values', '_last_value')
_LIKE_PARAMETER = ('exp_avg', 'exp_avg_sq', 'max_exp_avg_sq', 'momentum_buffer')


def find_gap(checkpoint: Mapping[str, Any]) -> str | None:
    """Say what training cannot go on from, as "<place> is <what>, expected <what>", or None.

    Args:
        checkpoint (Mapping): The content of a checkpoint file.
    """
    for place, found, wanted, fits in _claims(checkpoint):
        if not fits:
            text = repr(found) if isinstance(found, (str, int, float)) else type(found).__name__
            text = 'missing' if found is None else text if len(text) < 60 else f'{text[:57]}...'
            return f'{place} is {text}, expected {wanted}'
    return None


def _claims(content: Mapping[str, Any]) -> Iterator[Claim]:
    """Yield claims; none is asked for after one that fails."""
    meta: Any = content.get('meta')
    yield 'meta', meta, 'a dict', isinstance(meta, dict)
    for key in ('epoch', 'iter'):
        value = meta.get(key)
        yield f"meta['{key}']", value, 'a whole number from 0', _is_count(value)
    seed = meta.get('seed')
    yield "meta['seed']", seed, 'a whole number', seed is None or _is_count(seed)
    yield from _hub_claims(content.get('message_hub'))
    if 'optimizer' in content:
        yield from _optimizer_claims('optimizer', content['optimizer'])
    if 'param_schedulers' in content:
        yield from _scheduler_claims('param_schedulers', content['param_schedulers'])
    if 'ema_state_dict' in content:
        average = content['ema_state_dict']
        tensors = isinstance(average, dict) and all(isinstance(v, Tensor) for v in average.values())
        yield 'ema_state_dict', average, 'tensors by name', tensors


def _hub_claims(hub: Any) -> Iterator[Claim]:
    yield 'message_hub', hub, 'a dict', isinstance(hub, dict)
    for key in ('log_scalars', 'runtime_info', 'resumed_keys'):
        place, value = f"message_hub['{key}']", hub.get(key)
        yield place, value, 'a dict', isinstance(value, dict)
        yield place, 'no dict of names', 'names', all(isinstance(k, str) for k in value)
    for name, value in hub['resumed_keys'].items():
        place = f"message_hub['resumed_keys']['{name}']"
        yield place, value, 'True or False', isinstance(value, bool)
    for name, value in hub['log_scalars'].items():
        if isinstance(value, dict) and HISTORY in value:
            place = f"message_hub['log_scalars']['{name}']"
            yield place, 'no history', 'as many counts as values', is_history(value)
    for name, value in hub['runtime_info'].items():
        place = f"message_hub['runtime_info']['{name}']"
        if name.startswith('best_score'):
            yield place, value, 'a number', _is_number(value)
        elif name.startswith('best_ckpt') or name == 'last_ckpt':
            yield place, value, 'a path', value is None or isinstance(value, str)


def _optimizer_claims(place: str, state: Any) -> Iterator[Claim]:
    yield place, state, 'a dict', isinstance(state, dict)
    if 'param_groups' not in state and state and all(isinstance(v, dict) for v in state.values()):
        for name, value in state.items():  # several optimizers
            yield from _optimizer_claims(f"{place}['{name}']", value)
        return
    values, groups = state.get('state'), state.get('param_groups')
    yield f"{place}['state']", values, 'a dict', isinstance(values, dict)
    for key, value in values.items():
        wanted = 'a dict of values by name'
        yield f"{place}['state'][{key!r}]", value, wanted, isinstance(value, dict)
    yield f"{place}['param_groups']", groups, 'a list', isinstance(groups, list) and bool(groups)
    for i, group in enumerate(groups):
        where = f"{place}['param_groups'][{i}]"
        yield where, group, 'a dict', isinstance(group, dict)
        params = group.get('params')
        fits = isinstance(params, list) and all(map(_is_count, params))
        yield f"{where}['params']", params, 'a list of numbers', fits
        for key in ('lr', 'initial_lr', 'weight_decay'):
            if key in group or key == 'lr':
                value = group.get(key)
                yield f"{where}['{key}']", value, 'a number', _is_number(value)


def _scheduler_claims(place: str, states: Any) -> Iterator[Claim]:
    yield place, states, 'a list', isinstance(states, (list, dict))
    if isinstance(states, dict):  # of several optimizers
        for name, value in states.items():
            yield from _scheduler_claims(f"{place}['{name}']", value)
        return
    for i, state in enumerate(states):
        yield f'{place}[{i}]', state, 'a dict', isinstance(state, dict)
        # A schedule that begins later is one step before its first.
        for key, first in (('last_step', -1), ('_global_step', 0)):
            value = state.get(key)
            fits = _is_count(value) or (first == -1 and value == -1)
            yield f"{place}[{i}]['{key}']", value, f'a whole number from {first}', fits
        for key in _PER_GROUP:
            value = state.get(key)
            fits = isinstance(value, list) and all(map(_is_number, value))
            yield f"{place}[{i}]['{key}']", value, 'a list of numbers', fits


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: object) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1
    return isinstance(value, (int, float)) and not isinstance(value, bool)


# ------------------------------------------------------------------ while resuming
def with_checked_resume(runner: type[Runner]) -> type[Runner]:
    """Return the runner's class; a checkpoint that cannot be resumed is one message."""

    def resume(self: Any, filename: str, *args: Any, **kwargs: Any) -> None:
        schedules = [dict(s.state_dict()) for s in _schedulers(self)]
        options = [_options(o) for o in _optimizers(self.optim_wrapper)]
        try:
            runner.resume(self, filename, *args, **kwargs)
            for i, (old, new) in enumerate(zip(schedules, _schedulers(self), strict=True)):
                _check_schedule(f'param_schedulers[{i}]', old, new.state_dict())
            for groups, optimizer in zip(options, _optimizers(self.optim_wrapper), strict=True):
                _check_optimizer(groups, optimizer)
        except UserError:
            raise
        except Exception as e:  # whatever MMEngine meets in a foreign or damaged file
            said = str(e).strip().splitlines() or ['']
            raise CheckpointError(
                f"'{filename}' cannot be resumed by this config ({type(e).__name__}: {said[0]}): "
                f'it is of another run, or damaged. {_FIX}'
            ) from e

    return type(runner.__name__, (runner,), dict(resume=resume, __doc__=runner.__doc__))


def _schedulers(runner: Any) -> list[Any]:
    found = getattr(runner, 'param_schedulers', None) or []
    lists = found.values() if isinstance(found, dict) else [found]
    return [s for some in lists for s in some if hasattr(s, 'state_dict')]


def _optimizers(wrapper: Any) -> list[Optimizer]:
    if isinstance(wrapper, OptimWrapperDict):
        return [o for part in wrapper.values() for o in _optimizers(part)]
    return [wrapper.optimizer] if isinstance(wrapper, OptimWrapper) else []


def _options(optimizer: Optimizer) -> list[dict[str, Any]]:
    return [{k: v for k, v in g.items() if k != 'params'} for g in optimizer.param_groups]


def _check_schedule(place: str, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Compare a schedule as it was built with what was loaded into it.

    Raises:
        CheckpointError: A value is of another kind.
    """
    _check_kinds(place, old, new)
    for key in (*_PER_GROUP, 'param_name'):
        same = new[key] == old[key] if isinstance(old[key], str) else len(new[key]) == len(old[key])
        if not same:
            raise _misfit(f"{place}['{key}']")
    changed = [k for k in _ENDS if k in old and old[k] != new[k]]
    for key in changed[:1]:
        print_log(
            f"{place}: the config's schedule has {key}={old[key]}, the checkpoint's {key}="
            f'{new[key]}, with which training goes on. For another schedule begin a new run with '
            'these weights: load_from=CHECKPOINT, without --resume.',
            logger='current',
            level=logging.WARNING,
        )


def _check_optimizer(options: list[dict[str, Any]], optimizer: Optimizer) -> None:
    """Compare an optimizer as it was built with what was loaded into it.

    Raises:
        CheckpointError: The next step would stumble over a value.
    """
    for i, (old, group) in enumerate(zip(options, optimizer.param_groups, strict=True)):
        place = f"optimizer['param_groups'][{i}]"
        _check_kinds(place, old, {k: v for k, v in group.items() if k in old})
        for key, value in old.items():
            if isinstance(value, tuple) and len(group[key]) != len(value):
                raise _misfit(f"{place}['{key}']")
        for parameter in group['params']:
            state = optimizer.state.get(parameter, {})
            fits = not state or bool(group.get('amsgrad')) == ('max_exp_avg_sq' in state)
            fits &= parameter.is_cuda or not group.get('capturable')
            for name, value in state.items():
                if name in _LIKE_PARAMETER and (value is not None or name != 'momentum_buffer'):
                    fits &= isinstance(value, Tensor) and value.shape == parameter.shape
                elif name == 'step':
                    fits &= _is_number(value) and float(value) >= 0
            if not fits:
                raise _misfit(f"{place} or its parameters' values in optimizer['state']")
    if len({frozenset(s) for s in optimizer.state.values() if s}) > 1:
        raise _misfit("optimizer['state']")


def _check_kinds(place: str, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Compare the kinds of values; what was None may have become a single value."""
    for key in {**old, **new}:
        if key not in old or key not in new:
            raise _misfit(f"{place}['{key}']")
        mine, value = old[key], new[key]
        both_dicts = isinstance(mine, dict) and isinstance(value, dict)  # a Counter is saved plain
        if callable(mine) or both_dicts:
            continue
        if _kind(value) != _kind(mine) and (
            mine is not None or _kind(value) not in ('number', bool, str)
        ):
            raise _misfit(f"{place}['{key}']")


def _misfit(place: str) -> CheckpointError:
    return CheckpointError(
        f'The checkpoint cannot be resumed: {place} is not what training with this config has '
        f'there. {_FIX}'
    )


def _kind(value: object) -> object:
    if isinstance(value, bool):
        return bool
    if _is_number(value):
        return 'number'
    return list if isinstance(value, tuple) else type(value)
