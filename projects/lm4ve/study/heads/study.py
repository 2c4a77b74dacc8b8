"""A study: it tunes every head, then trains the seeds that are compared.

tune      learning rate, C or k of each head, on val
train     every seed with the best value
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from lm4ve.errors import UserError
from lm4ve.study.heads.candidates import (
    FAMILIES,
    list_blocks,
    list_controls,
    list_probes,
)
from lm4ve.study.heads.head import HeadSpec, ProfiledHead
from lm4ve.study.heads.ladder import (
    FINALISTS,
    TUNING_SEEDS,
    best_of,
    finalists,
    ladder_of,
    untried_values,
)
from lm4ve.study.heads.profiling import TokenShape, profile_head
from lm4ve.study.heads.settings import StudySettings
from lm4ve.study.heads.training import head_job
from lm4ve.study.job import Job
from lm4ve.study.pool import Pool, require_success
from lm4ve.study.progress import Progress
from lm4ve.study.store import Result
from lm4ve.study.tokens.features import Features

#: Of the ladder of learning rates about so many are tried.
_TRIED_RATES = 4

#: Head -> value -> mean accuracy on 'val', per cent.
Tuning = dict[str, dict[float, float]]
#: A head's name and a learning rate, C or k.
HeadValue = tuple[str, float]


@dataclass(frozen=True)
class StudyResults:
    """What all trainings of a study gave, by the heads' names.

    Attributes:
        tuning (dict[str, dict[float, float]]): Value -> mean accuracy on 'val', per
            cent: of two seeds for the two best, of one for the others.
        tuned (dict[str, float]): The best values.
        predicted (dict[str, np.ndarray]): The labels given, int64 ``[seeds, test
            pictures]``; -1 where a training diverged. Heads may have other numbers of
            seeds.
        correct (dict[str, np.ndarray]): What was right, bool of the same shape.
        accuracies (dict[str, np.ndarray]): In per cent, float64 ``[seeds]``.
        recalls (dict[str, np.ndarray]): The mean of the classes' recalls, in per cent,
            float64 ``[seeds]``.
        seconds (dict[str, float]): Median of a training.
        pairs (list[tuple[str, str]]): The block and the other head of each comparison.
    """

    tuning: Tuning
    tuned: dict[str, float]
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
        return self.tuned[name] in (min(tried), max(tried))

    def tuned_accuracy(self, name: str) -> float:
        """Return a head's accuracy on 'val' with its best value, in per cent."""
        return self.tuning[name][self.tuned[name]]


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
        """Tune every head on 'val', then train every seed with the best values.

        Raises:
            UserError: A training failed; it names the log.
        """
        self.features.save()
        self._progress = self._expect()
        tuning, tuned = self._tune()
        pairs = self._pair(tuning, tuned)
        predicted, seconds = self._train_seeds(tuned)
        self._progress.close()
        test = self.features.data.splits['test']
        labels = self.features.data.labels[test]
        correct = {}
        accuracies = {}
        recalls = {}
        for name, own in predicted.items():
            correct[name] = own == labels
            accuracies[name] = 100 * correct[name].mean(1)
            recalls[name] = mean_recall(correct[name], labels)
        return StudyResults(
            tuning, tuned, predicted, correct, accuracies, recalls, seconds, pairs
        )

    def _expect(self) -> Progress:
        """Return the bar, with the number of trainings that a study mostly has."""
        trainings = {}
        costs = {}
        for name, head in self.heads.items():
            ladder = self._ladder(name)
            tried = len(ladder)
            if not self.settings.rates:
                tried = min(tried, _TRIED_RATES)
            trainings[name] = tried + min(FINALISTS, len(ladder)) + self.settings.seeds
            if self._is_fixed(head):
                trainings[name] = tried + 1
            costs[name] = 1e6 + head.operations
        return Progress(costs, trainings, self.pool.workers)

    # ------------------------------------------------------------------------- tuning
    def _tune(self) -> tuple[Tuning, dict[str, float]]:
        """Search with one seed; let the two best values of each head decide with two.

        Returns:
            tuple: The accuracies of all that was tried, and the best values.
        """
        searched = self._search()
        pairs = []
        for name, accuracies in searched.items():
            for value in finalists(accuracies, self._ladder(name)):
                pairs.append((name, value))
        finals: Tuning = {name: {} for name in self.heads}
        for (name, value), accuracy in self._validate(pairs, TUNING_SEEDS).items():
            finals[name][value] = accuracy
        tuning = {}
        tuned = {}
        for name, accuracies in searched.items():
            merged = accuracies | finals[name]
            tuning[name] = {value: merged[value] for value in sorted(merged)}
            tuned[name] = best_of(finals[name], self._ladder(name))
        return tuning, tuned

    def _search(self) -> Tuning:
        """Try values until the best of each head has neighbours or ends its ladder."""
        tuning: Tuning = {name: {} for name in self.heads}
        first_seed = TUNING_SEEDS[:1]
        while True:
            untried = self._untried(tuning)
            if not untried:
                return tuning
            for (name, value), accuracy in self._validate(untried, first_seed).items():
                tuning[name][value] = accuracy

    def _untried(self, tuning: Tuning) -> list[HeadValue]:
        """Return what is to be tried next of every head."""
        untried = []
        for name, accuracies in tuning.items():
            family = self.heads[name].family
            for value in untried_values(family, self.settings.rates, accuracies):
                untried.append((name, value))
        return untried

    def _ladder(self, name: str) -> Sequence[float]:
        """Return the values that a head may have."""
        return ladder_of(self.heads[name].family, self.settings.rates)

    def _validate(
        self, pairs: Sequence[HeadValue], seeds: Sequence[int]
    ) -> dict[HeadValue, float]:
        """Train heads and return their mean accuracies on 'val', in per cent.

        Args:
            pairs (Sequence[HeadValue]): Names of heads with a value each.
            seeds (Sequence[int]): Seeds of tuning; a fitted head needs no second one.
        """
        val = self.features.data.splits['val']
        labels = self.features.data.labels[val]
        accuracies = {}
        for pair, results in self._results(pairs, seeds, 'val').items():
            correct = [result.predicted == labels for result in results]
            accuracies[pair] = 100 * float(np.mean(correct))
        return accuracies

    # -------------------------------------------------------------------- comparisons
    def _pair(
        self, tuning: Tuning, tuned: Mapping[str, float]
    ) -> list[tuple[str, str]]:
        """Return the comparisons: the block with the other heads.

        Of several linear probes only the one that is best on val is compared.
        """
        probes = {}
        for name, head in self.heads.items():
            if head.family == 'linear':
                probes[name] = tuning[name][tuned[name]]
        pairs = []
        for name in self.heads:
            is_lesser_probe = name in probes and name != max(
                probes, key=probes.__getitem__
            )
            if name != self.block and not is_lesser_probe:
                pairs.append((self.block, name))
        return pairs

    def _train_seeds(
        self, tuned: Mapping[str, float]
    ) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """Train the seeds that are compared.

        Args:
            tuned (Mapping[str, float]): The best value of each head.

        Returns:
            tuple: The labels given by each head, int64 ``[seeds, test pictures]``, and
            the median seconds of its trainings.
        """
        seeds = range(self.settings.seeds)
        predicted = {}
        seconds = {}
        for (name, _), own in self._results(list(tuned.items()), seeds, 'test').items():
            predicted[name] = np.stack([result.predicted for result in own])
            seconds[name] = median(result.seconds for result in own)
        return predicted, seconds

    # ---------------------------------------------------------------------- trainings
    def _results(
        self, pairs: Sequence[HeadValue], seeds: Sequence[int], split: str
    ) -> dict[HeadValue, list[Result]]:
        """Return the results of heads with a value each; train those not stored yet.

        Args:
            pairs (Sequence[HeadValue]): Names of heads with a value each.
            seeds (Sequence[int]): The seeds that each pair is trained with. A head that
                depends on no seed has the first alone.
            split (str): The split that is scored, 'val' or 'test'.

        Returns:
            dict[HeadValue, list[Result]]: The results of each pair, a seed each.
        """
        jobs: dict[HeadValue, list[Job]] = {}
        for name, value in pairs:
            head = self.heads[name]
            own_seeds = seeds[:1] if self._is_fixed(head) else seeds
            jobs[name, value] = [
                self._job(head, value, seed, split) for seed in own_seeds
            ]
        failures = self.pool.run(itertools.chain(*jobs.values()), self._progress)
        require_success(failures)
        results: dict[HeadValue, list[Result]] = {}
        for pair, own in jobs.items():
            results[pair] = [self._read_finished(job) for job in own]
        return results

    def _is_fixed(self, head: HeadSpec) -> bool:
        """Return whether a head depends on no seed; few shots are drawn by the seed."""
        return head.is_fitted and self.settings.shots == 0

    def _job(self, head: ProfiledHead, value: float, seed: int, split: str) -> Job:
        """Return the training of a head with a value and a seed, scored on a split."""
        settings = self.settings
        return head_job(
            self.features,
            head,
            value,
            seed,
            split,
            settings.steps,
            settings.dtype,
            settings.shots,
        )

    def _read_finished(self, job: Job) -> Result:
        """Return the stored result of a job that was run, now or earlier.

        Raises:
            UserError: It was deleted meanwhile.
        """
        result = self.pool.store.result(job)
        if result is None:
            raise UserError(
                f"The result in '{self.pool.store.folder_of(job)}' is lost."
            )
        return result


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
