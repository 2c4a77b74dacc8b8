"""Private attributes of MMEngine's Runner: what it resumes from, its seed, its loaders."""

from mmengine.dist import get_rank
from mmengine.runner import BaseLoop, Runner
from torch.utils.data import DataLoader


def starts_training(runner: Runner) -> bool:
    """Return whether a runner trains and does not resume: from nothing or from ``load_from``.

    MMEngine 0.10.7 has no public way to ask this (no upstream issue): ``train_loop``
    would build the loop, and whether a run resumes is a private attribute. May go once
    the Runner has public attributes for whether it trains and whether it resumes.
    """
    # The attribute is a dict until `train` builds the loop.
    return isinstance(runner._train_loop, BaseLoop) and not runner._resume


def source_of(runner: Runner) -> str:
    """Return the path of the runner's checkpoint, for messages.

    Returns:
        str: ``load_from``; the word 'given' for a checkpoint without a path, which a
        caller has loaded.
    """
    return runner._load_from or 'given'


def use_of_checkpoint(runner: Runner) -> str:
    """Return what a runner loads its checkpoint for: 'resume', 'val' or 'test'.

    As for :func:`starts_training`, there is no public way to ask it.
    """
    if isinstance(runner._train_loop, BaseLoop):
        return 'resume'
    # A runner that tests and validates has loaded its checkpoint for the first of them.
    validates = isinstance(runner._val_loop, BaseLoop)
    if validates and not isinstance(runner._test_loop, BaseLoop):
        return 'val'
    return 'test'


def resumed_from(runner: Runner) -> str | None:
    """Return the path of the checkpoint that a training continues from, or None."""
    if not runner._resume:
        return None
    path: str | None = runner._load_from
    return path


def seed_of_all_ranks(runner: Runner) -> int:
    """Return the seed of a run, to which ``randomness.diff_rank_seed`` adds the rank."""
    seed: int = runner.seed
    if runner._randomness_cfg.get('diff_rank_seed', False):
        seed -= get_rank()
    return seed


def give_loader(runner: Runner, mode: str, loader: DataLoader) -> None:
    """Let a runner that has built no loop yet use a dataloader that is built already.

    The Runner's constructor takes dataloaders, but copies them with the config, and
    there is no other public way.

    Args:
        runner (Runner): Changed in place.
        mode (str): 'train', 'val' or 'test'.
        loader (DataLoader): The dataloader.
    """
    setattr(runner, f'_{mode}_dataloader', loader)
