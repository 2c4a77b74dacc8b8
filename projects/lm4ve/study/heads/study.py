"""A study of heads: it tunes each of them, and then trains the seeds that are compared.

tune      all seeds share a first tuning: values of each head's ladder, scored on val
draw      each seed draws fit and val pictures of its own, on which it chooses among the
          values that the first tuning cannot tell apart
test      each seed trains with its value, and is scored on the test pictures
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

import numpy as np

from lm4ve.errors import UserError
from lm4ve.study.heads.candidates import (
    FAMILIES,
    list_blocks,
    list_controls,
    list_probes,
)
from lm4ve.study.heads.head import HeadSpec, ProfiledHead
from lm4ve.study.heads.ladder import TUNING_SEED, ladder_of
from lm4ve.study.heads.profiling import TokenShape, profile_head
from lm4ve.study.heads.settings import StudySettings
from lm4ve.study.heads.training import head_job
from lm4ve.study.job import Job
from lm4ve.study.pool import Pool, require_success
from lm4ve.study.progress import Progress
from lm4ve.study.store import Result
from lm4ve.study.tokens.features import Features
from lm4ve.study.tune import next_values, value_of_seed, within_noise

#: Of a ladder about so many values are tried, and so many of them are kept.
_TRIED = 4
_KEPT = 2

#: Head -> value -> accuracy on the shared 'val', per cent.
Tuning = dict[str, dict[float, float]]


class Training(NamedTuple):
    """A training of a head, by what tells it from others of a study."""

    name: str
    value: float
    seed: int


@dataclass(frozen=True)
class StudyResults:
    """What all trainings of a study gave, by the heads' names.

    Attributes:
        tuning (dict[str, dict[float, float]]): Value -> accuracy of the shared tuning on
            'val', per cent.
        kept (dict[str, list[float]]): The values that this tuning cannot tell apart.
        values (dict[str, list[float]]): The value that each seed took.
        predicted (dict[str, np.ndarray]): The labels given, int64 ``[seeds, test
            pictures]``; -1 where a training diverged. A head that depends on no seed has
            a single row.
        correct (dict[str, np.ndarray]): What was right, bool of the same shape.
        accuracies (dict[str, np.ndarray]): In per cent, float64 ``[seeds]``.
        recalls (dict[str, np.ndarray]): The mean of the classes' recalls, in per cent,
            float64 ``[seeds]``.
        seconds (dict[str, float]): Median of a training.
        pairs (list[tuple[str, str]]): The block and the other head of each comparison.
    """

    tuning: Tuning
    kept: dict[str, list[float]]
    values: dict[str, list[float]]
    predicted: dict[str, np.ndarray]
    correct: dict[str, np.ndarray]
    accuracies: dict[str, np.ndarray]
    recalls: dict[str, np.ndarray]
    seconds: dict[str, float]
    pairs: list[tuple[str, str]]

    def is_edge(self, name: str) -> bool:
        """Return whether a head's best value is the smallest or largest that was tried."""
        tried = self.tuning[name]
        if len(tried) == 1:
            return False
        best = max(tried, key=tried.__getitem__)
        return best in (min(tried), max(tried))

    def describe_values(self, name: str) -> str:
        """Return the values that a head's seeds took: '0.003', or '0.001 to 0.01'."""
        smallest = min(self.values[name])
        largest = max(self.values[name])
        if smallest == largest:
            return f'{smallest:g}'
        return f'{smallest:g} to {largest:g}'


class Study:
    """Trains what a study needs and is not stored yet.

    Args:
        features (Features): The tokens; results are stored beside them.
        settings (StudySettings): What the user asks for; ``dtype`` is no 'auto'.
        heads (dict[str, ProfiledHead]): By name, in the order of tables.
        pool (Pool): Trains.
    """

    def __init__(
        self,
        features: Features,
        settings: StudySettings,
        heads: dict[str, ProfiledHead],
        pool: Pool,
    ) -> None:
        self.features = features
        self.settings = settings
        self.heads = heads
        self.pool = pool

    @property
    def block(self) -> str:
        """The name of the frozen block."""
        return 'frozen'

    def train(self) -> StudyResults:
        """Tune every head, and train every seed with its value.

        Raises:
            UserError: A training failed; it names the log.
        """
        self.features.save()
        self._progress = self._expect()
        right_of = self._tune()
        tuning: Tuning = {}
        kept: dict[str, list[float]] = {}
        val = self.features.data.splits['val']
        groups = np.unique(self.features.data.groups[val], return_inverse=True)[1]
        for name, right in right_of.items():
            tuning[name] = {v: 100 * float(right[v].mean()) for v in sorted(right)}
            kept[name] = within_noise(right, groups)
        pairs = self._pair(tuning)
        values = self._draw(kept)
        predicted, seconds = self._test(values)
        self._progress.close()
        return self._collect(tuning, kept, values, predicted, seconds, pairs)

    def _collect(
        self,
        tuning: Tuning,
        kept: dict[str, list[float]],
        values: dict[str, list[float]],
        predicted: dict[str, np.ndarray],
        seconds: dict[str, float],
        pairs: list[tuple[str, str]],
    ) -> StudyResults:
        """Return the results, with what follows from the predictions."""
        labels = self.features.data.labels[self.features.data.splits['test']]
        correct = {}
        accuracies = {}
        recalls = {}
        for name, own in predicted.items():
            correct[name] = own == labels
            accuracies[name] = 100 * correct[name].mean(1)
            recalls[name] = mean_recall(correct[name], labels)
        return StudyResults(
            tuning=tuning,
            kept=kept,
            values=values,
            predicted=predicted,
            correct=correct,
            accuracies=accuracies,
            recalls=recalls,
            seconds=seconds,
            pairs=pairs,
        )

    def _expect(self) -> Progress:
        """Return the bar, with the number of trainings that a study mostly has."""
        trainings = {}
        costs = {}
        seeds = self.settings.seeds
        for name, head in self.heads.items():
            tried = min(len(self._ladder(name)), _TRIED)
            kept = _KEPT if tried > 1 else 0
            trainings[name] = tried + kept * seeds + seeds
            if self._is_fixed(head):
                trainings[name] = tried + kept * seeds + 1
            costs[name] = 1e6 + head.operations
        return Progress(costs, trainings, self.pool.workers)

    # ------------------------------------------------------------------------- rounds
    def _tune(self) -> dict[str, dict[float, np.ndarray]]:
        """Try values until the best of each head has neighbours or ends its ladder.

        Returns:
            dict: Head -> value -> which pictures of 'val' were right, bool ``[n]``.
        """
        data = self.features.data
        labels = data.labels[data.splits['val']]
        right_of: dict[str, dict[float, np.ndarray]] = {name: {} for name in self.heads}
        while True:
            trainings = []
            for name, right in right_of.items():
                accuracies = {value: own.mean() for value, own in right.items()}
                for value in next_values(self._ladder(name), accuracies):
                    trainings.append(Training(name, value, TUNING_SEED))
            if not trainings:
                return right_of
            for training, result in self._run(trainings, 'tune').items():
                right = _predicted(result) == labels
                right_of[training.name][training.value] = right

    def _draw(self, kept: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
        """Let each seed choose among the kept values, on pictures of its own.

        Returns:
            dict[str, list[float]]: Head -> the value of each seed.
        """
        seeds = range(self.settings.seeds)
        trainings = []
        for name, values in kept.items():
            if len(values) > 1:
                trainings += [Training(name, v, seed) for v in values for seed in seeds]
        results = self._run(trainings, 'draw')
        chosen: dict[str, list[float]] = {}
        for name, values in kept.items():
            if len(values) == 1:
                chosen[name] = [values[0]] * len(seeds)
                continue
            chosen[name] = []
            for seed in seeds:
                accuracies = {}
                for value in values:
                    result = results[Training(name, value, seed)]
                    accuracies[value] = result.metrics['accuracy']
                chosen[name].append(value_of_seed(values, accuracies))
        return chosen

    def _test(
        self, values: dict[str, list[float]]
    ) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """Train the seeds that are compared.

        Args:
            values (dict[str, list[float]]): Head -> the value of each seed. Of a head
                that depends on no seed, whose seeds took the same, one is kept.

        Returns:
            tuple: The labels given by each head, int64 ``[seeds, test pictures]``, and
            the median seconds of its trainings.
        """
        trainings: dict[str, list[Training]] = {}
        for name, own in values.items():
            if self._is_fixed(self.heads[name]):
                if len(set(own)) == 1:
                    del own[1:]
                trainings[name] = [Training(name, value, 0) for value in own]
            else:
                trainings[name] = [
                    Training(name, value, seed) for seed, value in enumerate(own)
                ]
        results = self._run([t for own in trainings.values() for t in own], 'test')
        predicted = {}
        seconds = {}
        for name, of_head in trainings.items():
            rows = [_predicted(results[training]) for training in of_head]
            predicted[name] = np.stack(rows)
            seconds[name] = median(results[training].seconds for training in of_head)
        return predicted, seconds

    def _pair(self, tuning: Tuning) -> list[tuple[str, str]]:
        """Return the comparisons: the block with the other heads.

        Of several linear probes only the one that is best on val is compared.
        """
        probes = {}
        for name, head in self.heads.items():
            if head.family == 'linear':
                probes[name] = max(tuning[name].values())
        pairs = []
        for name in self.heads:
            is_lesser_probe = name in probes and name != max(
                probes, key=probes.__getitem__
            )
            if name != self.block and not is_lesser_probe:
                pairs.append((self.block, name))
        return pairs

    # ---------------------------------------------------------------------- trainings
    def _run(self, trainings: Iterable[Training], stage: str) -> dict[Training, Result]:
        """Return the results of trainings; run those that are not stored yet.

        Args:
            trainings (Iterable[Training]): The trainings.
            stage (str): 'tune', 'draw' or 'test'.
        """
        jobs = {training: self._job(training, stage) for training in trainings}
        require_success(self.pool.run(jobs.values(), self._progress))
        results = {}
        for training, job in jobs.items():
            result = self.pool.store.result(job)
            if result is None:
                folder = self.pool.store.folder_of(job)
                raise UserError(f"The result in '{folder}' is lost.")
            results[training] = result
        return results

    def _job(self, training: Training, stage: str) -> Job:
        """Return the job of a training."""
        settings = self.settings
        return head_job(
            self.features,
            self.heads[training.name],
            training.value,
            training.seed,
            stage,
            settings.steps,
            settings.dtype,
            settings.shots,
        )

    def _is_fixed(self, head: HeadSpec) -> bool:
        """Return whether a head depends on no seed; few shots are drawn by the seed."""
        return head.is_fitted and self.settings.shots == 0

    def _ladder(self, name: str) -> Sequence[float]:
        """Return the values that a head may have."""
        return ladder_of(self.heads[name].family, self.settings.rates)


def _predicted(result: Result) -> np.ndarray:
    """Return the labels that a head gave.

    Raises:
        UserError: They are not in the file.
    """
    if result.predicted is None:
        raise UserError(
            'A stored result has no labels. Fix: delete the jobs of the cache.'
        )
    return result.predicted


def mean_recall(correct: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the mean of the classes' recalls with each seed, in per cent, ``[seeds]``.

    Args:
        correct (np.ndarray): Bool ``[seeds, n]``.
        labels (np.ndarray): int64 ``[n]``; classes without a picture do not count.
    """
    recalls = []
    for label in np.unique(labels):
        recalls.append(correct[:, labels == label].mean(1))
    mean: np.ndarray = 100 * np.mean(recalls, axis=0)
    return mean


def profile_heads(
    settings: StudySettings, shape: TokenShape
) -> dict[str, ProfiledHead]:
    """Build the heads of a study's families; see :func:`profile_head`.

    The size of the controls follows from that of the block, so that it comes first.

    Args:
        settings (StudySettings): What the user asks for; ``dtype`` is no 'auto'.
        shape (TokenShape): What heads are built for.

    Returns:
        dict[str, ProfiledHead]: By name, in the order of tables.
    """

    def profile(heads: Sequence[HeadSpec]) -> list[ProfiledHead]:
        chosen = [head for head in heads if head.family in settings.families]
        return [profile_head(head, shape) for head in chosen]

    blocks = profile(blocks_of(settings))
    heads = [*blocks, *profile(list_probes(shape.has_class_token))]
    heads += profile(list_controls(blocks[0], shape.channels, shape.tokens))
    heads.sort(key=lambda head: FAMILIES.index(head.family))
    return {head.name: head for head in heads}


def blocks_of(settings: StudySettings) -> list[HeadSpec]:
    """Return the heads of a study that have layers of a language model."""
    return list_blocks(
        settings.block,
        settings.layers,
        settings.kept_heads,
        settings.formal,
        settings.dtype,
    )
