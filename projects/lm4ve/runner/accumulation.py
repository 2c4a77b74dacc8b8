"""Add up the gradients of several iterations until an update has seen the recipe's batch.

A recipe's learning rate belongs to a batch size over all processes. Where the processes
are fewer, ``optim_wrapper.accumulative_counts='auto'`` gives each update as many
iterations as make up ``auto_scale_lr.base_batch_size``, so that rate and batch stay
those of the recipe. With ``auto_scale_lr.enable=True`` (``--auto-scale-lr``) the rate
follows the batch instead, and each iteration is an update.
"""

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from lm4ve.compat.mmengine_lost_gradients import begin_update, counts_of
from lm4ve.errors import UserError, check

#: What is said before a training whose updates add up gradients.
SAVES_AT_END = (
    'A checkpoint is written at its end, also at a signal; if the kill comes first, the '
    'last one stands.'
)
#: The value of ``accumulative_counts`` that stands for a number by the recipe's batch.
AUTO = 'auto'
_FIELD = 'optim_wrapper.accumulative_counts'


def is_auto(cfg: Config) -> bool:
    """Return whether a config leaves the number of iterations of an update to the processes."""
    wrapper = cfg.get('optim_wrapper')
    return isinstance(wrapper, Mapping) and wrapper.get('accumulative_counts') == AUTO


def iterations_of_update(cfg: Config, processes: int, batch: int | None = None) -> int:
    """Return how many iterations' gradients are added up for one update.

    Args:
        cfg (Config): The config.
        processes (int): How many train together.
        batch (int, optional): Samples of one process in an iteration; default: the
            config's.

    Raises:
        UserError: The config leaves it to the batch of its recipe and does not name it.
    """
    wrapper = cfg.get('optim_wrapper') or {}
    if not is_auto(cfg):
        return int(wrapper.get('accumulative_counts') or 1)
    if _scales_rate(cfg):
        return 1
    if batch is None:
        batch = _batch_of_process(cfg)
    return max(1, _recipe_batch(cfg) // (batch * processes))


def check_batch(cfg: Config, processes: int) -> None:
    """Check that whole iterations make up the batch of the recipe, where they should.

    Args:
        cfg (Config): The config.
        processes (int): How many train together.

    Raises:
        UserError: They do not. It names a batch size that fits, if there is one.
    """
    if not is_auto(cfg) or _scales_rate(cfg):
        return
    recipe = _recipe_batch(cfg)
    batch = _batch_of_process(cfg)
    check('train_dataloader.batch_size', batch, kind=int, least=1)
    if recipe % (batch * processes) == 0:
        return
    fitting = _largest_divisor(recipe, processes, batch)
    advice = 'another number of processes'
    if fitting is not None:
        advice = f'train_dataloader.batch_size={fitting}'
    raise UserError(
        f"{_FIELD}='auto': {processes} x {batch} samples (processes x batch_size) do not divide "
        f'the batch of {recipe} that the learning rate is for. Fix: {advice}; or '
        '--auto-scale-lr, which scales the rate to the batch.'
    )


def describe_update(cfg: Config, processes: int) -> str:
    """Return what an update adds up, as text; '' if each iteration is an update."""
    iterations = iterations_of_update(cfg, processes)
    if iterations == 1:
        return ''
    whole = iterations * _batch_of_process(cfg) * processes
    return f'an update adds up {iterations} iterations: {whole} samples'


def end_epochs_with_updates(runner: Any, left: int) -> None:
    """Let the last iterations of an epoch be an update, also if they are fewer.

    MMEngine adds up across epochs. Then the weights that are validated and saved at the
    end of an epoch lack the gradients of its last iterations.

    Args:
        runner (Runner): Before the epoch, or before what is left of it.
        left (int): How many iterations are left of the epoch.
    """
    if counts_of(runner) > 1:
        begin_update(runner.optim_wrapper, left)


def go_on_within_update(runner: Any, done: int) -> None:
    """Go on within an update, whose first iterations were done before a resume.

    Args:
        runner (Runner): Before its first iteration.
        done (int): Iterations of this epoch, or of a training without epochs, that were
            done before the resume.
    """
    wrapper = runner.optim_wrapper
    begin_update(wrapper, wrapper._max_counts, added=done % counts_of(runner))


def _scales_rate(cfg: Config) -> bool:
    """Return whether the learning rate follows the batch."""
    return bool((cfg.get('auto_scale_lr') or {}).get('enable'))


def _batch_of_process(cfg: Config) -> int:
    """Return the samples of one process in an iteration, 1 where a config does not say."""
    loader = cfg.get('train_dataloader') or {}
    batch: int = loader.get('batch_size', 1)
    return batch


def _recipe_batch(cfg: Config) -> int:
    """Return the batch size over all processes that the learning rate of a config is for.

    Raises:
        UserError: The config does not name it.
    """
    recipe = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    if recipe is None:
        raise UserError(
            f"{_FIELD}='auto' needs the batch size that the learning rate is for. Fix: "
            'auto_scale_lr=dict(base_batch_size=...), or a number.'
        )
    check('auto_scale_lr.base_batch_size', recipe, kind=int, least=1)
    return int(recipe)


def _largest_divisor(recipe: int, processes: int, limit: int) -> int | None:
    """Return the largest batch of a process, up to a limit, of which whole ones fit.

    None: no batch does, since the processes do not divide the recipe's batch.
    """
    for batch in range(limit, 0, -1):
        if recipe % (batch * processes) == 0:
            return batch
    return None
