"""What MMEngine's Runner keeps to itself."""

from mmengine.runner import BaseLoop, Runner


def starts_training(runner: Runner) -> bool:
    """Return whether a training is about to begin anew, perhaps from ``load_from``.

    True of MMEngine 0.10.7 (no upstream issue): ``Runner.train_loop`` builds the loop
    when it is read, and ``resume`` and ``load_from`` are private attributes. May go
    once the Runner has public attributes for whether it trains and whether it resumes.
    """
    return isinstance(runner._train_loop, BaseLoop) and not runner._resume


def source_of(runner: Runner) -> str:
    """Return the path that a checkpoint is loaded from, or 'given'."""
    return runner._load_from or 'given'
