"""A hook that MMEngine calls after a checkpoint was read cannot ask what it was read for.

True of MMEngine 0.10.7 (no upstream issue): ``Runner.train_loop`` builds the loop when it
is asked, and ``resume`` and ``load_from`` are kept in private attributes. May go once the
Runner says in public whether it trains and whether it resumes.
"""

from types import ModuleType

from mmengine.runner import BaseLoop, Runner


def is_needed(runner: ModuleType) -> bool:
    """Return whether a Runner still keeps what a checkpoint is for to itself.

    Args:
        runner (ModuleType): ``mmengine.runner.runner``.
    """
    return not hasattr(runner.Runner, 'resume_from') and not hasattr(runner.Runner, 'is_training')


def starts_training(runner: Runner) -> bool:
    """Return whether a training is about to begin anew, perhaps from ``load_from``."""
    return isinstance(runner._train_loop, BaseLoop) and not runner._resume


def source_of(runner: Runner) -> str:
    """Return the path that a checkpoint is loaded from, or 'given'."""
    return runner._load_from or 'given'
