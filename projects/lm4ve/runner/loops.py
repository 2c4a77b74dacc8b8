"""MMEngine's training loops, resumed to the bit, in the middle of an epoch too.

MMEngine 0.10.7 begins an epoch anew when it resumes a checkpoint from the middle of one
(89 steps instead of 80), or reads all the data again that was trained on; and the
random numbers after a resume are others than without. States of generators cannot be
saved for that: each worker of a dataloader has three of its own, runs ahead of
training, and is gone with the process. So nothing is saved. Every batch of data and
every step is given fresh seeds for Python, numpy and torch (CUDA too), drawn from the
run's seed, the number of the iteration, and the rank: processes augment and drop out
independently of each other. They are the same after any resume on as many processes,
and with any number of workers.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import wrapt
from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_rank, get_world_size
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from mmengine.runner.base_loop import BaseLoop

from lm4ve.compat.mmengine_lost_gradients import ended_update, reaches
from lm4ve.compat.mmengine_runner_state import seed_of_all_ranks
from lm4ve.errors import UserError, check
from lm4ve.registry import LOOPS
from lm4ve.runner.accumulation import end_epochs_with_updates
from lm4ve.runner.ending.signals import keep_workers_at_signals
from lm4ve.runner.epoch_length import EpochLengthHook
from lm4ve.runner.resume import refuse_other_checkpoints
from lm4ve.runner.seeding import DATA, PAUSE, STEP, seed_everything


def schedules_of(runner: Any) -> list[Any]:
    """Return all parameter schedulers of a runner in one list.

    MMEngine has a list of them for one optimizer, and a dict of lists for several.
    """
    schedules = runner.param_schedulers or []
    if isinstance(schedules, dict):
        return list(itertools.chain(*schedules.values()))
    return schedules


class NumberedBatches(wrapt.ObjectProxy):  # type: ignore[type-arg]
    """A batch sampler that puts the key of its seeds before the indices of each batch.

    It yields no batches until :meth:`begin_at` was called, so that no worker reads ahead
    before the first batch is known.
    """

    #: Where the next iteration begins. wrapt keeps attributes in this proxy, instead of
    #: the wrapped sampler, only if their names begin with ``_self_``.
    _self_start: '_Start | None' = None

    def begin_at(self, key: tuple[int, ...], number: int, skip: int) -> None:
        """Set which batches the next iteration yields.

        Args:
            key (tuple[int, ...]): The beginning of the key of each batch, which its
                number completes.
            number (int): The number of the first batch that is yielded, which is the
                first after those that are skipped.
            skip (int): How many of the sampler's batches are skipped.
        """
        self._self_start = _Start(key, number, skip)

    def __iter__(self) -> Iterator[list[Any]]:
        """Yield the batches from the start on: the key of each, and then its indices.

        This is a generator, so that the sampler is not asked for anything before the
        first batch is requested. A dataloader creates two iterators and uses only the
        second.
        """
        start = self._self_start
        if start is None:
            return
        remaining = itertools.islice(self.__wrapped__, start.skip, None)
        for number, batch in enumerate(remaining, start.number):
            yield [(*start.key, number), *batch]


@dataclass(frozen=True)
class _Start:
    """Where an iteration over batches begins; see :meth:`NumberedBatches.begin_at`."""

    key: tuple[int, ...]
    number: int
    skip: int


def _number_batches(loader: Any) -> None:
    """Make a dataloader seed all generators before it reads a batch, in its workers too.

    Its batch sampler puts a key before the indices of each batch, and its dataset seeds
    by the key and then reads the indices.

    Args:
        loader (DataLoader): Changed in place, with its dataset.
    """
    if isinstance(loader.batch_sampler, NumberedBatches):
        return
    dataset = loader.dataset
    read_many = getattr(dataset, '__getitems__', None)
    # Dataloaders call this method once for each batch.
    dataset.__getitems__ = functools.partial(_read_seeded, dataset, read_many)
    # A dataloader forbids the plain assignment, because a new batch sampler could have
    # another batch size. Here the batches are the same.
    object.__setattr__(loader, 'batch_sampler', NumberedBatches(loader.batch_sampler))


def _read_seeded(
    dataset: Any,
    read_many: Callable[[list[Any]], Sequence[Any]] | None,
    indices: Sequence[Any],
) -> list[Any]:
    """Read the samples of a batch after seeding all generators by the batch's key.

    Args:
        dataset (Dataset): The data.
        read_many (Callable, optional): The dataset's own ``__getitems__``, if it has one.
        indices (Sequence): The key, a tuple of integers, and then the indices of the
            samples. Without a key nothing is seeded.
    """
    if indices and isinstance(indices[0], tuple):
        key, *indices = indices
        seed_everything(*key)
    if read_many is not None:
        return list(read_many(list(indices)))
    return [dataset[index] for index in indices]


def refuse_no_batches(loader: Any) -> None:
    """Refuse a dataloader without any batch: MMEngine would end the training in silence.

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


def _has_seed_of_run(dataloader: Any, sampler: Any, seed: int) -> bool:
    """Return whether a sampler has been given the seed of the run, or one that was drawn.

    Args:
        dataloader (dict | DataLoader): The config of the dataloader, which may give the
            sampler a seed of its own; or a dataloader that is built already.
        sampler (Sampler): Of the dataloader.
        seed (int): The seed of the run.
    """
    if not hasattr(sampler, 'seed'):
        return False
    if isinstance(dataloader, Mapping):
        return 'seed' not in dataloader['sampler']
    return bool(sampler.seed == seed)


class _ExactLoop(BaseLoop):  # type: ignore[misc]
    """Base of both loops: numbers the batches, and seeds the reading of data and each step."""

    def __init__(self, runner: Any, dataloader: Any, *args: Any, **kwargs: Any) -> None:
        """Build the dataloader and number its batches, then construct MMEngine's loop.

        Raises:
            UserError: See :func:`refuse_no_batches`.
        """
        BaseLoop.__init__(self, runner, dataloader)  # builds the dataloader
        refuse_no_batches(self.dataloader)
        _number_batches(self.dataloader)
        # Now, since MMEngine's loop over iterations starts workers when it is built.
        keep_workers_at_signals(self.dataloader)
        super().__init__(runner, self.dataloader, *args, **kwargs)
        #: The sampler that shuffles by the seed of the run, or None.
        self._sampler: Any = None
        sampler = getattr(self.dataloader.batch_sampler, 'sampler', None)
        if _has_seed_of_run(dataloader, sampler, runner.seed):
            self._sampler = sampler

    def begin(self) -> None:
        """Check what the runner has resumed.

        Raises:
            UserError: Processes have loaded different checkpoints, or a schedule cannot
                go on until the end.
        """
        refuse_other_checkpoints(self.runner)
        self._check_schedules()
        # MMEngine gives the sampler the seed that the runner had when the loop was built, or
        # with `randomness.diff_rank_seed` one that is drawn and lost. Resuming restores the
        # runner's.
        if self._sampler is not None:
            self._sampler.seed = seed_of_all_ranks(self.runner)
        if self._iter >= self._max_iters or self._epoch >= self._max_epochs:
            self._warn_that_nothing_is_left()

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
        """Warn that the resumed checkpoint has done all iterations of the config."""
        by_epoch = isinstance(self, EpochBasedTrainLoop)
        field = 'max_epochs' if by_epoch else 'max_iters'
        self.runner.logger.warning(
            f'Nothing is left to train: the checkpoint has done {self._iter} iterations of '
            f'{self._max_iters}. To continue, resume with a larger train_cfg.{field}.'
        )

    def run_iter(self, *args: Any) -> None:
        """Train one step, after seeding all generators by the iteration and the rank.

        So each process has dropout and mixup of its own. Nothing in a step may rely on
        numbers that all processes draw alike.

        Args:
            *args: Passed to the ``run_iter`` of MMEngine's loop.

        Raises:
            UserError: An earlier loss was not finite, and the step failed after it.
        """
        key = [self.runner.seed, STEP, self._iter]
        if get_rank() > 0:  # the first process draws what a single one does
            key.append(get_rank())
        seed_everything(*key)
        try:
            super().run_iter(*args)
        except Exception:
            self.runner.call_hook('after_failed_iter')
            raise

    def begin_pass(self, epoch: int, skip: int) -> None:
        """Prepare the dataloader for a pass over the data.

        Its samplers shuffle for this epoch, and its next iterator begins with the batch
        after those that are skipped. Each batch carries a key for its random numbers,
        which ends with the number of the iteration that trains on it, so that a resumed
        run transforms its samples as an uninterrupted one.

        Args:
            epoch (int): The number by which samplers shuffle.
            skip (int): How many batches of the pass have been trained on already. They
                are skipped without reading them.
        """
        batches: Any = self.dataloader.batch_sampler
        samplers: list[Any] = [batches, getattr(batches, 'sampler', None)]
        for sampler in samplers:
            if hasattr(sampler, 'set_epoch'):
                sampler.set_epoch(epoch)
        # With `randomness.diff_rank_seed` the seed itself differs by rank, too; without
        # it, the rank alone gives each process random numbers of its own.
        key = (self.runner.seed, DATA, get_rank())
        batches.begin_at(key, number=self._iter, skip=skip)


@LOOPS.register_module()
class EpochLoop(_ExactLoop, EpochBasedTrainLoop):  # type: ignore[misc]
    """``EpochBasedTrainLoop`` that resumes where the checkpoint was written.

    Takes MMEngine's arguments. Batches of the epoch that were trained on are skipped
    without reading them. Hooks get the true ``batch_idx``. If epochs have another length
    than in the checkpoint, iterations are counted anew (:mod:`.epoch_length`).
    """

    def __init__(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        """Construct the loop, and let checkpoints say how long its epochs are."""
        super().__init__(runner, *args, **kwargs)
        runner.register_hook(EpochLengthHook(len(self.dataloader)))

    def run(self) -> Any:
        """Train from the iteration that the runner has resumed, or from the first."""
        self.begin()
        return super().run()

    def run_epoch(self) -> None:
        """Train one epoch, or what is left of it."""
        skip = self._batches_done()
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        end_epochs_with_updates(self.runner, len(self.dataloader) - skip)
        self.begin_pass(self._epoch, skip)
        for index, data in enumerate(self.dataloader, skip):
            self.run_iter(index, data)
        # So that validation draws the same random numbers after a resume.
        seed_everything(self.runner.seed, PAUSE, self._iter)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def _batches_done(self) -> int:
        """Return how many batches of this epoch were trained on before the run was resumed.

        This is the number of all iterations less those of the finished epochs, all of
        which have the present length: see :mod:`.epoch_length`.
        """
        return int(self._iter - self._epoch * len(self.dataloader))


@LOOPS.register_module()
class IterLoop(_ExactLoop, IterBasedTrainLoop):  # type: ignore[misc]
    """``IterBasedTrainLoop`` that resumes without reading data that was trained on.

    Takes MMEngine's arguments. It validates, and stops early, at the end of an update
    only, as it saves.
    """

    def run(self) -> Any:
        """Train from the iteration that the runner has resumed, or from the first."""
        self.begin()
        runner = self.runner
        end_epochs_with_updates(runner, self._max_iters - self._iter)
        runner.call_hook('before_train')
        # To hooks the whole training is one epoch, as in MMEngine's loop.
        runner.call_hook('before_train_epoch')
        self.dataloader_iterator = self._endless()
        while self._iter < self._max_iters and not self.stop_training:
            self._train_update()
            self._decide_current_val_interval()
            if self._validates_now():
                runner.val_loop.run()
        runner.call_hook('after_train_epoch')
        runner.call_hook('after_train')
        return runner.model

    def _train_update(self) -> None:
        """Train the iterations of an update, but none after the last one of the training."""
        is_ended = False
        # A model that skips a gradient leaves its last update without an end.
        while not is_ended and self._iter < self._max_iters:
            self.runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            is_ended = ended_update(self.runner) > 0

    def _validates_now(self) -> bool:
        """Return whether a validation follows the update that has just ended."""
        if self.runner.val_loop is None or self._iter < self.val_begin:
            return False
        if self._iter == self._max_iters:
            return True
        return reaches(self.runner, self._iter, self.val_interval)

    def _endless(self) -> Iterator[Any]:
        """Yield batches from the present iteration on, in one pass over the data after another.

        An ``InfiniteSampler`` makes a single endless pass.
        """
        is_one_pass = isinstance(self.dataloader.batch_sampler.sampler, InfiniteSampler)
        while True:
            if is_one_pass:
                epoch = 0
                skip = self._iter
            else:
                epoch, skip = divmod(self._iter, len(self.dataloader))
            self.begin_pass(epoch, skip)
            yield from self.dataloader
