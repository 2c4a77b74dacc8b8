"""Let MMEngine save between two updates, never within one, where gradients are added up.

With ``accumulative_counts=3`` an update adds up the gradients of three iterations. A
checkpoint from within lacks them, and those of several processes are not one set of
tensors that a file could hold.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import wrapt

if TYPE_CHECKING:
    from mmengine.optim import OptimWrapper


def save_after_updates(hook_class: Any) -> None:
    """Let a ``CheckpointHook`` by iterations save at the end of an update.

    Broken in MMEngine 0.10.7 (no upstream issue): an interval that ends within an update
    saves there, without the gradients that have been added up. A resumed training is
    another than one that was left alone. May go once the hook asks the optimizer's
    wrapper.
    """
    wrapt.wrap_function_wrapper(hook_class, 'after_train_iter', _save_after_update)


def _save_after_update(
    save: Callable[..., None], hook: Any, args: Any, kwargs: Any
) -> None:
    """Save if an interval, or the training, ends with an iteration of this update.

    MMEngine's ``save`` is not called: it asks for the last iteration alone.
    """
    runner = kwargs.get('runner', args[0] if args else None)
    if hook.by_epoch:
        return
    done = runner.iter + 1
    is_last = hook.save_last and hook.is_last_train_iter(runner)
    if is_last or reaches(runner, done, hook.interval, hook.save_begin):
        runner.logger.info(f'Saving checkpoint at {done} iterations')
        hook._save_checkpoint(runner)


def count_from_an_update(wrapper_class: Any) -> None:
    """Let an ``OptimWrapper`` begin a training, also a resumed one, with a whole update.

    Broken in MMEngine 0.10.7 (no upstream issue): it counts a resumed training's
    iterations from the first one of all, as if all updates had had the present length.
    It warns of lost gradients where an epoch has ended with a shorter update, which has
    lost none; and where updates have another length now, the first one is too short and
    has too small a gradient. May go once the wrapper counts from the resumed iteration.
    """
    wrapt.wrap_function_wrapper(
        wrapper_class, 'initialize_count_status', _count_from_an_update
    )


def _count_from_an_update(
    initialize: Callable[..., None], wrapper: Any, args: Any, kwargs: Any
) -> None:
    """Count by MMEngine's ``initialize``, from the resumed iteration to the last one."""
    _initialize(initialize, *args, **kwargs)


def _initialize(
    initialize: Callable[..., None], model: Any, init_counts: int, max_counts: int
) -> None:
    """Take MMEngine's arguments by position or name."""
    initialize(model, 0, max_counts - init_counts)


def begin_update(wrapper: 'OptimWrapper', left: int, added: int = 0) -> None:
    """Let an update begin, or go on, with the next iteration.

    Args:
        wrapper (OptimWrapper): It has one optimizer.
        left (int): In how many iterations from now the last update ends, though it may
            have fewer iterations than the others.
        added (int): How many iterations' gradients are added up already.
    """
    counts = wrapper._accumulative_counts
    wrapper._inner_count = added
    wrapper._max_counts = added + left
    wrapper._remainder_counts = wrapper._max_counts % counts


def counts_of(runner: Any) -> int:
    """Return how many iterations an update adds up.

    It is 1 with several optimizers, which act as their model says, and with those of
    other frameworks.
    """
    # Not above: the first import of mmengine.optim applies the repairs of this file, which
    # has to be complete then.
    from mmengine.optim import OptimWrapper, OptimWrapperDict

    wrapper = runner.optim_wrapper
    if not isinstance(wrapper, OptimWrapper) or isinstance(wrapper, OptimWrapperDict):
        return 1
    return int(wrapper._accumulative_counts)


def ended_update(runner: Any) -> int:
    """Return how many iterations the update has that has just ended.

    0: the last iteration was within one, and the weights are as they were before it.
    """
    counts = counts_of(runner)
    if counts == 1:
        return 1
    wrapper = runner.optim_wrapper
    if not wrapper.should_update():
        return 0
    return int(wrapper.inner_count % counts or counts)


def reaches(runner: Any, done: int, interval: int, begin: int = 0) -> bool:
    """Return whether an interval ends within the update that has just ended.

    Args:
        runner (Runner): After an iteration of its training.
        done (int): How many iterations are done.
        interval (int): Ends every so many iterations; never if it is not positive.
        begin (int): After how many iterations of the training the first one begins.
    """
    if interval <= 0:
        return False
    for before in range(ended_update(runner)):
        moment = done - before - begin
        if moment >= 0 and moment % interval == 0:
            return True
    return False
