"""MMEngine's training loops, resumed to the bit, in the middle of an epoch too.

MMEngine 0.10.7 begins an epoch anew when it resumes a checkpoint from the middle of one
(89 steps instead of 80), or reads all the data again that was trained on; and the random
numbers after a resume are others than without.
"""

import itertools
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_rank
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from mmengine.runner.base_loop import BaseLoop

from lm4ve.registry import LOOPS
from lm4ve.runner.seeding import DATA, PAUSE, STEP, number_batches, seed_everything

_OURS = {'EpochBasedTrainLoop': 'lm4ve.EpochLoop', 'IterBasedTrainLoop': 'lm4ve.IterLoop'}


def use_exact_loop(cfg: Config) -> None:
    """Replace MMEngine's training loop in a config by the one here that extends it.

    Args:
        cfg (Config): Changed in place. A loop of another kind stays.
    """
    rest = dict(cfg.get('train_cfg') or {})
    by_epoch, kind = rest.pop('by_epoch', None), rest.pop('type', None)
    if kind is None and by_epoch is not None:
        kind = 'EpochBasedTrainLoop' if by_epoch else 'IterBasedTrainLoop'
    if name := _OURS.get(str(kind).removeprefix('mmengine.')):
        cfg.train_cfg = ConfigDict(type=name, **rest)


class _ExactLoop(BaseLoop):  # type: ignore[misc]
    """Base of both loops: numbered batches and seeded steps."""

    def __init__(self, runner: Any, dataloader: Any, *args: Any, **kwargs: Any) -> None:
        BaseLoop.__init__(self, runner, dataloader)  # builds the dataloader
        self.batches = number_batches(self.dataloader)
        self.batches.open = False  # no worker reads ahead before the first batch is known
        super().__init__(runner, self.dataloader, *args, **kwargs)
        self.batches.open = True
        self._first_seed = runner.seed

    def _start(self, field: str, done: int, end: int) -> None:
        # Shuffle as the resumed run did, if the config leaves the seed to chance.
        sampler = self.batches.sampler
        if getattr(sampler, 'seed', None) == self._first_seed:
            sampler.seed = self.runner.seed
        if done >= end:
            self.runner.logger.warning(
                f'Nothing is left to train: the checkpoint has done {done} of train_cfg.{field}='
                f'{end}. To continue, resume with a larger train_cfg.{field}.'
            )

    def _begin(self, epoch: int, skip: int) -> None:
        for sampler in (self.batches.batches, self.batches.sampler):
            if hasattr(sampler, 'set_epoch'):
                sampler.set_epoch(epoch)
        self.batches.begin((self.runner.seed, DATA, get_rank()), self._iter, skip)

    def run_iter(self, *args: Any) -> None:
        """Seed a step by its number, then train it."""
        # MMEngine's seed differs by rank if `randomness.diff_rank_seed` says so.
        seed_everything(self.runner.seed, STEP, self._iter)
        super().run_iter(*args)


@LOOPS.register_module()
class EpochLoop(_ExactLoop, EpochBasedTrainLoop):  # type: ignore[misc]
    """``EpochBasedTrainLoop`` that resumes where the checkpoint was written.

    Takes MMEngine's arguments. Batches of the epoch that were trained on are passed
    over without reading them. Hooks see the true ``batch_idx``.
    """

    _skip = 0

    def run(self) -> Any:
        """Train from the iteration that the runner has resumed, or from the first."""
        length = len(self.dataloader)
        self._skip = self._iter - self._epoch * length
        if not 0 <= self._skip <= length:
            self.runner.logger.warning(
                f'The checkpoint ended at iteration {self._iter}, outside epoch {self._epoch + 1}, '
                f'which has {length} iterations now (other batch size, data or number of '
                'processes?). This epoch begins with its first batch.'
            )
            self._skip = 0
        # A checkpoint of the last step of an epoch was written before the epoch's end.
        done = self._epoch + (self._skip == length)
        self._start('max_epochs', done, self._max_epochs)
        return super().run()

    def run_epoch(self) -> None:
        """Train one epoch, or what is left of it."""
        skip, self._skip = self._skip, 0
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        self._begin(self._epoch, skip)
        for index, data in enumerate(self.dataloader, skip):
            self.run_iter(index, data)
        # Validation draws the same numbers, however many steps this process has trained.
        seed_everything(self.runner.seed, PAUSE, self._iter)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1


@LOOPS.register_module()
class IterLoop(_ExactLoop, IterBasedTrainLoop):  # type: ignore[misc]
    """``IterBasedTrainLoop`` that resumes without reading data that was trained on.

    Takes MMEngine's arguments.
    """

    def run(self) -> Any:
        """Train from the iteration that the runner has resumed, or from the first."""
        self._start('max_iters', self._iter, self._max_iters)
        # MMEngine draws all batches of the past, one by one: give it nothing for each.
        self.dataloader_iterator = itertools.chain(
            itertools.repeat(None, self._iter), self._endless()
        )
        return super().run()

    def _endless(self) -> Iterator[Any]:
        endless = isinstance(self.batches.sampler, InfiniteSampler)
        while True:
            passes, skip = (0, self._iter) if endless else divmod(self._iter, len(self.dataloader))
            self._begin(passes, skip)
            yield from self.dataloader
