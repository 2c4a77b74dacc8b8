"""MMEngine's training loops, resumed to the bit, in the middle of an epoch too.

MMEngine 0.10.7 begins an epoch anew when it resumes a checkpoint from the middle of one
(89 steps instead of 80), or reads all the data again that was trained on; and the
random numbers after a resume are others than without. States of generators cannot be
saved for that: each worker of a dataloader has three of its own, runs ahead of
training, and is gone with the process. So nothing is saved. Every batch of data and
every step is given fresh seeds for Python, numpy and torch (CUDA too), drawn from the
run's seed and the number of the iteration. They are the same after any resume, on every
rank, and with any number of workers.
"""

import functools
import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import wrapt
from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_rank, get_world_size
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from mmengine.runner.base_loop import BaseLoop

from lm4ve.errors import UserError, check
from lm4ve.registry import LOOPS
from lm4ve.runner.hooks import StopHook

#: What a seed is for, so that data and steps draw different numbers.
DATA, STEP, PAUSE = range(3)


def seed_everything(*key: int) -> None:
    """Seed Python, numpy and torch (the current process's devices too) from some numbers.

    Args:
        *key (int): Any numbers; keys that differ in one of them give unrelated seeds.
    """
    mixed = np.random.SeedSequence([k % 2**64 for k in key]).generate_state(
        3, np.uint64
    )
    random.seed(int(mixed[0]))
    np.random.seed(mixed[1:2].view(np.uint32))
    torch.manual_seed(int(mixed[2]))


def schedules_of(runner: Any) -> list[Any]:
    """Return a runner's schedulers, of one optimizer or of several."""
    found = runner.param_schedulers or []
    return [*itertools.chain(*found.values())] if isinstance(found, dict) else found


def _read_seeded(dataset: Any, read: Any, indices: Sequence[Any]) -> list[Any]:
    """Read a batch, seeded by the key that is before its indices."""
    if indices and isinstance(indices[0], tuple):
        key, *indices = indices
        seed_everything(*key)
    return list(read(indices)) if read is not None else [dataset[i] for i in indices]


class NumberedBatches(wrapt.ObjectProxy):  # type: ignore[type-arg]
    """A batch sampler that puts the key of its seeds before the indices of each batch."""

    #: What each key begins with, the number of the first batch, and how many to pass
    #: over. None: no batches, so that no worker reads ahead before the first one is
    #: known.
    _self_begin: tuple[tuple[int, ...], int, int] | None = None

    def __iter__(self) -> Iterator[list[Any]]:
        # A generator: nothing happens before the first batch is wanted, for dataloaders
        # make two iterators and use the second.
        if self._self_begin is not None:
            key, first, skip = self._self_begin
            for number, batch in enumerate(
                itertools.islice(self.__wrapped__, skip, None), first
            ):
                yield [(*key, number), *batch]


def _refuse_no_batches(loader: Any) -> None:
    """Refuse a dataloader that would end before it gives the first batch.

    Raises:
        UserError: There are no samples, or fewer than a batch that may not be
            incomplete.
    """
    batches = loader.batch_sampler
    is_endless = isinstance(getattr(batches, 'sampler', None), InfiniteSampler)
    if is_endless or not hasattr(loader.dataset, '__len__') or len(batches) > 0:
        return
    count = len(loader.dataset)
    processes = get_world_size()
    if count == 0:
        raise UserError('train_dataloader.dataset has no samples: nothing would train.')
    each = f' for each of {processes} processes' if processes > 1 else ''
    raise UserError(
        f'train_dataloader: nothing would train, since {count} samples are fewer than a batch of '
        f'{batches.batch_size}{each}, and drop_last=True leaves out incomplete batches. '
        f'Fix: train_dataloader.batch_size={max(1, count // processes)}, or '
        'train_dataloader.drop_last=False.'
    )


class _ExactLoop(BaseLoop):  # type: ignore[misc]
    """Base of both loops: numbered batches and seeded steps."""

    def __init__(self, runner: Any, dataloader: Any, *args: Any, **kwargs: Any) -> None:
        BaseLoop.__init__(self, runner, dataloader)  # builds the dataloader
        loader: Any = self.dataloader
        if loader.batch_sampler is None:
            raise UserError(
                'train_dataloader.batch_size=None makes no batches; set a batch size.'
            )
        _refuse_no_batches(loader)
        if not isinstance(loader.batch_sampler, NumberedBatches):
            data = loader.dataset
            read = getattr(data, '__getitems__', None)
            data.__getitems__ = functools.partial(
                _read_seeded, data, read
            )  # called once a batch
            # A dataloader forbids this assignment, for fear of a batch size that is not
            # its batch sampler's; the batches are the same.
            object.__setattr__(
                loader, 'batch_sampler', NumberedBatches(loader.batch_sampler)
            )
        super().__init__(runner, loader, *args, **kwargs)
        self._first_seed = runner.seed

    def run(self) -> Any:
        """Train from the iteration that the runner has resumed, or from the first.

        Raises:
            UserError: A schedule cannot go on until the end.
        """
        schedules: Any = self.runner.param_schedulers
        for s in schedules if isinstance(schedules, list) else ():  # of one optimizer
            needed = (
                min(self._max_epochs if s.by_epoch else self._max_iters, s.end)
                - s.begin
            )
            check(
                'param_scheduler.total_steps',
                getattr(s, 'total_steps', None),
                least=needed,
            )
        # Shuffle as the resumed run did, if the config leaves the seed to chance.
        sampler: Any = getattr(self.dataloader.batch_sampler, 'sampler', None)
        if getattr(sampler, 'seed', None) == self._first_seed:
            sampler.seed = self.runner.seed
        if self._iter >= self._max_iters or self._epoch >= self._max_epochs:
            field = (
                'max_epochs' if isinstance(self, EpochBasedTrainLoop) else 'max_iters'
            )
            self.runner.logger.warning(
                f'Nothing is left to train: the checkpoint has done {self._iter} iterations of '
                f'{self._max_iters}. To continue, resume with a larger train_cfg.{field}.'
            )
        StopHook.is_running = True
        return super().run()

    def batches(self, epoch: int, skip: int) -> Iterator[Any]:
        """Yield the batches of an epoch, with a fresh seed for the step of each.

        Args:
            epoch (int): The number by which samplers shuffle.
            skip (int): How many batches were trained on. They are not read.
        """
        batches: Any = self.dataloader.batch_sampler
        samplers: list[Any] = [batches, getattr(batches, 'sampler', None)]
        for sampler in samplers:
            if hasattr(sampler, 'set_epoch'):
                sampler.set_epoch(epoch)
        # MMEngine's seed differs by rank if `randomness.diff_rank_seed` is set.
        batches._self_begin = ((self.runner.seed, DATA, get_rank()), self._iter, skip)
        for data in self.dataloader:
            seed_everything(self.runner.seed, STEP, self._iter)
            yield data


@LOOPS.register_module()
class EpochLoop(_ExactLoop, EpochBasedTrainLoop):  # type: ignore[misc]
    """``EpochBasedTrainLoop`` that resumes where the checkpoint was written.

    Takes MMEngine's arguments. Batches of the epoch that were trained on are passed
    over without reading them. Hooks see the true ``batch_idx``.
    """

    #: Iterations more than the epochs before have now.
    _surplus = 0

    def run_epoch(self) -> None:
        """Train one epoch, or what is left of it."""
        length = len(self.dataloader)
        skip = self._iter - self._epoch * length - self._surplus
        if not 0 <= skip <= length:
            self.runner.logger.warning(
                f'The checkpoint ended at iteration {self._iter}, outside epoch {self._epoch + 1}, '
                f'which has {length} iterations now (other batch size, data or number of '
                'processes?). This epoch begins with its first batch.'
            )
            self._surplus, skip = skip, 0
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        for index, data in enumerate(self.batches(self._epoch, skip), skip):
            self.run_iter(index, data)
        # Validation draws the same numbers, however many steps this process has
        # trained.
        seed_everything(self.runner.seed, PAUSE, self._iter)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1


class _ResumedBatches:
    """Batches as MMEngine's loop over iterations reads them, which first passes over the past.

    MMEngine 0.10.7 reads the batches of the past one by one, and gets nothing for each.
    Its forks call ``skip_iter``.
    """

    def __init__(self, past: int, batches: Iterator[Any]) -> None:
        self._past = past
        self._batches = batches

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._past > 0:
            self._past -= 1
            return None
        return next(self._batches)

    def skip_iter(self, number: int) -> None:
        """Pass over so many batches of the past."""
        self._past -= number


@LOOPS.register_module()
class IterLoop(_ExactLoop, IterBasedTrainLoop):  # type: ignore[misc]
    """``IterBasedTrainLoop`` that resumes without reading data that was trained on.

    Takes MMEngine's arguments.
    """

    def run(self) -> Any:
        """Train from the iteration that the runner has resumed, or from the first."""
        self.dataloader_iterator = _ResumedBatches(self._iter, self._endless())
        # A fork's switch that leaves the past in the data. Here it costs nothing to
        # pass over.
        self.fast_forward_on_resume = False
        return super().run()

    def _endless(self) -> Iterator[Any]:
        endless = isinstance(self.dataloader.batch_sampler.sampler, InfiniteSampler)
        while True:
            passes = (
                (0, self._iter) if endless else divmod(self._iter, len(self.dataloader))
            )
            yield from self.batches(*passes)
