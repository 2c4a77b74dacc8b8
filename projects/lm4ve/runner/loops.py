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
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import wrapt
from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_rank, get_world_size
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from mmengine.runner.base_loop import BaseLoop

from lm4ve.errors import UserError, check
from lm4ve.registry import LOOPS
from lm4ve.runner.seeding import DATA, PAUSE, STEP, seed_everything
from lm4ve.runner.stopping import current_signals


def schedules_of(runner: Any) -> list[Any]:
    """Return a runner's schedulers, of one optimizer or of several."""
    schedules = runner.param_schedulers or []
    if isinstance(schedules, dict):
        return list(itertools.chain(*schedules.values()))
    return schedules


class NumberedBatches(wrapt.ObjectProxy):  # type: ignore[type-arg]
    """A batch sampler that puts the key of its seeds before the indices of each batch.

    It gives no batches until :meth:`begin_at` was called, so that no worker reads ahead
    before the first batch is known.
    """

    #: What each key begins with, the number of the first batch, and how many to pass
    #: over. The name's beginning keeps the value here, not in the sampler.
    _self_begin: tuple[tuple[int, ...], int, int] | None = None

    def begin_at(self, key: tuple[int, ...], number: int, skip: int) -> None:
        """Set which batches the next iteration gives.

        Args:
            key (tuple[int, ...]): What the key of each batch begins with; its number
                comes after that.
            number (int): Of the first batch that is given.
            skip (int): How many batches are passed over before it.
        """
        self._self_begin = (key, number, skip)

    def __iter__(self) -> Iterator[list[Any]]:
        # A generator: nothing happens before the first batch is wanted, for dataloaders
        # make two iterators and use the second.
        if self._self_begin is None:
            return
        key, number, skip = self._self_begin
        for batch in itertools.islice(self.__wrapped__, skip, None):
            yield [(*key, number), *batch]
            number += 1


def _number_batches(loader: Any) -> None:
    """Let a dataloader seed the reading of each batch, in its workers, too."""
    if isinstance(loader.batch_sampler, NumberedBatches):
        return
    dataset = loader.dataset
    read = getattr(dataset, '__getitems__', None)
    # Dataloaders call it once a batch.
    dataset.__getitems__ = functools.partial(_read_seeded, dataset, read)
    # A dataloader forbids this assignment, for fear of a batch size that is not its
    # batch sampler's; the batches are the same.
    object.__setattr__(loader, 'batch_sampler', NumberedBatches(loader.batch_sampler))


def _read_seeded(
    dataset: Any,
    read: Callable[[list[Any]], Sequence[Any]] | None,
    indices: Sequence[Any],
) -> list[Any]:
    """Read a batch, seeded by the key that is before its indices.

    Args:
        dataset (Dataset): The data.
        read (Callable, optional): The dataset's own reading of many samples.
        indices (Sequence): Of samples, perhaps with a key before them.
    """
    if indices and isinstance(indices[0], tuple):
        key, *indices = indices
        seed_everything(*key)
    if read is not None:
        return list(read(list(indices)))
    return [dataset[index] for index in indices]


def _refuse_no_batches(loader: Any) -> None:
    """Refuse a dataloader that would end before it gives the first batch.

    Raises:
        UserError: There are no samples, or fewer than a batch that may not be
            incomplete.
    """
    batches = loader.batch_sampler
    if batches is None:
        raise UserError(
            'train_dataloader.batch_size=None makes no batches; set a batch size.'
        )
    is_endless = isinstance(getattr(batches, 'sampler', None), InfiniteSampler)
    if is_endless or not hasattr(loader.dataset, '__len__') or len(batches) > 0:
        return
    count = len(loader.dataset)
    processes = get_world_size()
    if count == 0:
        raise UserError('train_dataloader.dataset has no samples: nothing would train.')
    each = ''
    if processes > 1:
        each = f' for each of {processes} processes'
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
        _refuse_no_batches(self.dataloader)
        _number_batches(self.dataloader)
        super().__init__(runner, self.dataloader, *args, **kwargs)
        self._first_seed = runner.seed

    def run(self) -> Any:
        """Train from the iteration that the runner has resumed, or from the first.

        Raises:
            UserError: A schedule cannot go on until the end.
        """
        self._check_schedules()
        # Shuffle as the resumed run did, if the config leaves the seed to chance.
        sampler: Any = getattr(self.dataloader.batch_sampler, 'sampler', None)
        if getattr(sampler, 'seed', None) == self._first_seed:
            sampler.seed = self.runner.seed
        if self._iter >= self._max_iters or self._epoch >= self._max_epochs:
            self._warn_that_nothing_is_left()
        # From here on SIGTERM ends the run after an iteration; see StopHook.
        current_signals().waits = True
        return super().run()

    def _check_schedules(self) -> None:
        """Check that schedules of a fixed number of steps last until the end.

        Raises:
            UserError: One does not.
        """
        schedules: Any = self.runner.param_schedulers
        if not isinstance(schedules, list):  # of several optimizers
            return
        for schedule in schedules:
            length = self._max_epochs if schedule.by_epoch else self._max_iters
            check(
                'param_scheduler.total_steps',
                getattr(schedule, 'total_steps', None),
                least=min(length, schedule.end) - schedule.begin,
            )

    def _warn_that_nothing_is_left(self) -> None:
        by_epoch = isinstance(self, EpochBasedTrainLoop)
        field = 'max_epochs' if by_epoch else 'max_iters'
        self.runner.logger.warning(
            f'Nothing is left to train: the checkpoint has done {self._iter} iterations of '
            f'{self._max_iters}. To continue, resume with a larger train_cfg.{field}.'
        )

    def run_iter(self, *args: Any) -> None:
        """Train one step, with fresh seeds.

        Args:
            *args: MMEngine's; they depend on the loop.
        """
        seed_everything(self.runner.seed, STEP, self._iter)
        super().run_iter(*args)

    def begin_pass(self, epoch: int, skip: int) -> None:
        """Prepare the dataloader for a pass over the data.

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
        batches.begin_at((self.runner.seed, DATA, get_rank()), self._iter, skip)


@LOOPS.register_module()
class EpochLoop(_ExactLoop, EpochBasedTrainLoop):  # type: ignore[misc]
    """``EpochBasedTrainLoop`` that resumes where the checkpoint was written.

    Takes MMEngine's arguments. Batches of the epoch that were trained on are passed
    over without reading them. Hooks see the true ``batch_idx``.
    """

    #: How many iterations the finished epochs had beyond what they would have now.
    _surplus = 0

    def run_epoch(self) -> None:
        """Train one epoch, or what is left of it."""
        skip = self._batches_done()
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        self.begin_pass(self._epoch, skip)
        for index, data in enumerate(self.dataloader, skip):
            self.run_iter(index, data)
        # Validation draws the same numbers, however many steps this process has
        # trained.
        seed_everything(self.runner.seed, PAUSE, self._iter)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def _batches_done(self) -> int:
        """Return how many batches of this epoch the resumed checkpoint has trained on.

        0 with a warning: the lengths of epochs have changed since, so that no batch of
        this one corresponds to the checkpoint's iteration.
        """
        length = len(self.dataloader)
        done: int = self._iter - self._epoch * length - self._surplus
        if 0 <= done <= length:
            return done
        self.runner.logger.warning(
            f'The checkpoint ended at iteration {self._iter}, outside epoch {self._epoch + 1}, '
            f'which has {length} iterations now (other batch size, data or number of '
            'processes?). This epoch begins with its first batch.'
        )
        self._surplus = done
        return 0


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
        """Yield the batches of one pass after the other, from the present iteration on."""
        is_one_pass = isinstance(self.dataloader.batch_sampler.sampler, InfiniteSampler)
        while True:
            if is_one_pass:
                epoch = 0
                skip = self._iter
            else:
                epoch, skip = divmod(self._iter, len(self.dataloader))
            self.begin_pass(epoch, skip)
            yield from self.dataloader
