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
from lm4ve.study.heads.ladder import ladder_of
from lm4ve.study.heads.profiling import TokenShape, profile_head
from lm4ve.study.heads.settings import StudySettings
from lm4ve.study.heads.training import head_job
from lm4ve.study.job import Job
from lm4ve.study.pictures.data import ProbeData
from lm4ve.study.pool import Pool, require_success
from lm4ve.study.progress import Progress
from lm4ve.study.store import Result
from lm4ve.study.tokens.features import Features
from lm4ve.study.tune import TUNING_SEED, next_values, value_of_seed, within_noise

#: Of a ladder about so many values are tried, and so many of them are kept.
_TRIED = 4
_KEPT = 3

#: Head -> value -> accuracy on the shared 'val', per cent.
Tuning = dict[str, dict[float, float]]


class Training(NamedTuple):
    """A training of a head, by what tells it from others of a study."""

    name: str
    value: float
    seed: int


class Drawn(NamedTuple):
    """A value's accuracy on the val pictures that a seed drew, in per cent."""

    name: str
    value: float
    seed: int
    accuracy: float


@dataclass(frozen=True)
class StudyResults:
    """What all trainings of a study gave, by the heads' names.

    Attributes:
        tuned (dict[str, dict[float, np.ndarray]]): Value -> the labels that the shared
            tuning gave the pictures of 'val', int64 ``[n]``.
        tuning (dict[str, dict[float, float]]): Value -> its accuracy there, per cent.
        drawn (list[Drawn]): How the kept values did on the pictures of each seed.
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

    tuned: dict[str, dict[float, np.ndarray]]
    tuning: Tuning
    drawn: list[Drawn]
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
        data = self.features.data
        tuned = self._tune()
        kept = keep_values(tuned, data)
        pairs = self._pair(tuned)
        drawn = self._draw(kept)
        values = choose_values(kept, drawn, self.settings.seeds)
        predicted, seconds = self._test(values)
        self._progress.close()
        return collect(
            data=data,
            tuned=tuned,
            kept=kept,
            drawn=drawn,
            values=values,
            predicted=predicted,
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
            dict: Head -> value -> the labels given to the pictures of 'val', ``[n]``.
        """
        data = self.features.data
        labels = data.labels[data.splits['val']]
        tuned: dict[str, dict[float, np.ndarray]] = {name: {} for name in self.heads}
        while True:
            trainings = []
            for name, given in tuned.items():
                accuracies = {
                    v: float((own == labels).mean()) for v, own in given.items()
                }
                for value in next_values(self._ladder(name), accuracies):
                    trainings.append(Training(name, value, TUNING_SEED))
            if not trainings:
                return {
                    name: dict(sorted(given.items())) for name, given in tuned.items()
                }
            for training, result in self._run(trainings, 'tune').items():
                tuned[training.name][training.value] = _predicted(result)

    def _draw(self, kept: Mapping[str, Sequence[float]]) -> list[Drawn]:
        """Try the kept values of each head on the pictures that each seed draws.

        A single kept value needs no trial.
        """
        trainings = []
        for name, values in kept.items():
            if len(values) == 1:
                continue
            for value in values:
                for seed in range(self.settings.seeds):
                    trainings.append(Training(name, value, seed))
        drawn = []
        for training, result in self._run(trainings, 'draw').items():
            drawn.append(Drawn(*training, result.metrics['accuracy']))
        return drawn

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

    def planned(self) -> list[tuple[str, str]]:
        """Return the comparisons that are known before the first training.

        Of several linear probes tuning chooses the one that is compared.
        """
        probes = self._linear_probes()
        return self._pairs_without(probes if len(probes) > 1 else [])

    def _pair(
        self, tuned: Mapping[str, Mapping[float, np.ndarray]]
    ) -> list[tuple[str, str]]:
        """Return the comparisons: of the linear probes, with the best on val alone."""
        data = self.features.data
        labels = data.labels[data.splits['val']]

        def accuracy(name: str) -> float:
            return max(float((own == labels).mean()) for own in tuned[name].values())

        # The first one among equals.
        best_first = sorted(self._linear_probes(), key=accuracy, reverse=True)
        return self._pairs_without(best_first[1:])

    def _linear_probes(self) -> list[str]:
        """Return the names of the linear probes; with a class token there are several."""
        return [name for name, head in self.heads.items() if head.family == 'linear']

    def _pairs_without(self, left_out: Sequence[str]) -> list[tuple[str, str]]:
        """Return the block with each other head that is not left out."""
        others = [name for name in self.heads if name not in (self.block, *left_out)]
        return [(self.block, name) for name in others]

    # ---------------------------------------------------------------------- trainings
    def _run(self, trainings: Iterable[Training], stage: str) -> dict[Training, Result]:
        """Return the results of trainings; run those that are not stored yet.

        Args:
            trainings (Iterable[Training]): The trainings.
            stage (str): 'tune', 'draw' or 'test'.
        """
        jobs = {training: self._job(training, stage) for training in trainings}
        require_success(self.pool.run(jobs.values(), self._progress))
        done = self.pool.store.done(jobs.values())
        results = {job.key: result for job, result in done}
        return {training: results[job.key] for training, job in jobs.items()}

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


def keep_values(
    tuned: Mapping[str, Mapping[float, np.ndarray]], data: ProbeData
) -> dict[str, list[float]]:
    """Return the values of each head that the shared tuning cannot tell from its best.

    Args:
        tuned (Mapping): Head -> value -> the labels given to the pictures of 'val'.
        data (ProbeData): Labels, groups and splits.
    """
    val = data.splits['val']
    groups = np.unique(data.groups[val], return_inverse=True)[1]
    kept = {}
    for name, given in tuned.items():
        right = {value: own == data.labels[val] for value, own in given.items()}
        kept[name] = within_noise(right, groups)
    return kept


def choose_values(
    kept: Mapping[str, Sequence[float]], drawn: Sequence[Drawn], seeds: int
) -> dict[str, list[float]]:
    """Return the value that each seed takes of each head.

    Args:
        kept (Mapping): Head -> the values to choose from.
        drawn (Sequence[Drawn]): How they did on the pictures of each seed.
        seeds (int): How many seeds there are.
    """
    accuracies: dict[tuple[str, int], dict[float, float]] = {}
    for one in drawn:
        accuracies.setdefault((one.name, one.seed), {})[one.value] = one.accuracy
    chosen: dict[str, list[float]] = {}
    for name, values in kept.items():
        if len(values) == 1:
            chosen[name] = [values[0]] * seeds
            continue
        chosen[name] = [
            value_of_seed(values, accuracies[name, seed]) for seed in range(seeds)
        ]
    return chosen


def collect(
    data: ProbeData,
    tuned: dict[str, dict[float, np.ndarray]],
    kept: dict[str, list[float]],
    drawn: list[Drawn],
    values: dict[str, list[float]],
    predicted: dict[str, np.ndarray],
    seconds: dict[str, float],
    pairs: list[tuple[str, str]],
) -> StudyResults:
    """Return the results of a study, with what follows from the labels that heads gave.

    Args: the fields of :class:`StudyResults`, and the labels of the data.
    """
    labels = data.labels[data.splits['test']]
    labels_of_val = data.labels[data.splits['val']]
    tuning: Tuning = {}
    for name, given in tuned.items():
        tuning[name] = {
            value: 100 * float((own == labels_of_val).mean())
            for value, own in given.items()
        }
    correct = {}
    accuracies = {}
    recalls = {}
    for name, own in predicted.items():
        correct[name] = own == labels
        accuracies[name] = 100 * correct[name].mean(1)
        recalls[name] = mean_recall(correct[name], labels)
    return StudyResults(
        tuned=tuned,
        tuning=tuning,
        drawn=drawn,
        kept=kept,
        values=values,
        predicted=predicted,
        correct=correct,
        accuracies=accuracies,
        recalls=recalls,
        seconds=seconds,
        pairs=pairs,
    )


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
