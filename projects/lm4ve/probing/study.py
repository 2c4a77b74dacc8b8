"""A study: it tunes every head, then trains the seeds that are compared.

profile   build each head once, time a step, make or read the plan
tune      learning rate, C or k of each head, on val
train     half of the seeds; then the rest, where it can still decide something
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from tqdm import tqdm

from lm4ve.errors import UserError
from lm4ve.probing.candidates import (
    FAMILIES,
    list_blocks,
    list_controls,
    list_probes,
    sizes_of,
)
from lm4ve.probing.features import Features
from lm4ve.probing.heads import HeadSpec, ProfiledHead
from lm4ve.probing.plan import (
    MEASURED_STEPS,
    TUNING_SEEDS,
    Plan,
    Spent,
    StudySettings,
    find_plan,
    is_busy,
    make_plan,
    write_plan,
)
from lm4ve.probing.profiling import TokenShape, profile_head
from lm4ve.probing.results import Job, Result, read_result, time_of_disk
from lm4ve.probing.training import Trainer
from lm4ve.probing.tuning import best_of, finalists, ladder_of, untried_values
from lm4ve.probing.verdict import chance_to_decide, gain_of
from lm4ve.probing.workers import Run

#: Below this chance to decide anything, no more seeds are trained.
_FUTILE = 0.1
#: Fewest seeds before a comparison is given up.
_LEAST_SEEDS = 4
#: After so many seconds a preliminary answer is printed.
_PRELIMINARY_SECONDS = 120.0

#: Families whose heads may answer for the blocks of several language models.
_SHARED_FAMILIES = ('random', 'random-scaled', 'attention', 'mlp')

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


@dataclass(frozen=True)
class Prepared:
    """What is known of a study before the encoder has seen the data.

    Attributes:
        heads (dict[str, ProfiledHead]): By name, in the order of tables.
        plan (Plan): Steps and seeds.
        since (float): Results that were stored before this time do not count, in
            seconds since the epoch.
    """

    heads: dict[str, ProfiledHead]
    plan: Plan
    since: float


def prepare_study(
    settings: StudySettings, shape: TokenShape, folder: Path, spent: Spent, run: Run
) -> Prepared:
    """Build every head once, and read or make the plan.

    Args:
        settings (StudySettings): What the user asks for; ``dtype`` is no 'auto'.
        shape (TokenShape): What heads are built for.
        folder (Path): Where the tokens lie, and the plan beside them.
        spent (Spent): What takes time beside the trainings.
        run (Run): Builds and times the heads.

    Raises:
        UserError: Two heads are the same, or no plan fits the minutes.
    """
    since = 0.0 if settings.resume else time_of_disk(folder)
    plan = find_plan(folder, settings) if settings.resume else None
    is_measured = plan is None and settings.steps is None
    steps = MEASURED_STEPS if is_measured else 0
    heads = _profile_heads(settings, shape, steps, run)
    if plan is None:
        plan = make_plan(settings, list(heads.values()), shape.pictures, spent)
        if is_busy(list(heads.values())):
            print(
                'Other processes use the cores: the study will take longer than planned, and '
                'this plan is not stored.',
                flush=True,
            )
        else:
            write_plan(plan, folder, settings)
    if settings.seeds is not None:
        plan = replace(plan, seeds=settings.seeds)
    kept = {}
    for name, head in heads.items():
        if head.family not in plan.dropped:
            kept[name] = head
    return Prepared(kept, plan, since)


class Study:
    """Trains what a study needs and is not stored yet.

    Args:
        features (Features): The tokens; results are stored beside them.
        settings (StudySettings): What the user asks for.
        prepared (Prepared): Heads and plan, of :func:`prepare_study`.
        run (Run): Trains.
        started (float): ``time.monotonic()`` when the minutes began.
    """

    def __init__(
        self,
        features: Features,
        settings: StudySettings,
        prepared: Prepared,
        run: Run,
        started: float,
    ) -> None:
        self.features = features
        self.settings = settings
        self.heads = prepared.heads
        self.plan = prepared.plan
        self.since = prepared.since
        self.run = run
        self.started = started
        self._trainer = Trainer(features)
        self._has_answered = False
        self._best_so_far: dict[str, float] = {}

    @property
    def blocks(self) -> list[str]:
        """The names of the frozen blocks."""
        return [name for name, head in self.heads.items() if head.family == 'frozen']

    def train(self) -> StudyResults:
        """Tune every head on 'val', then train every seed with the best values."""
        tuning, tuned = self._tune()
        pairs = self._pair(tuning, tuned)
        predicted, seconds = self._train_seeds(tuned, pairs)
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

    def _answer_early(self, job: Job) -> None:
        """Note a job that has finished; once, after two minutes, print what val shows.

        Args:
            job (Job): One of tuning, or else it is of no concern here.
        """
        if job.split != 'val' or self._has_answered:
            return
        result = self._read_finished(job)
        val = self.features.data.splits['val']
        labels = self.features.data.labels[val]
        accuracy = 100 * float((result.predicted == labels).mean())
        name = job.head.name
        self._best_so_far[name] = max(self._best_so_far.get(name, 0.0), accuracy)
        passed = time.monotonic() - self.started
        if passed < _PRELIMINARY_SECONDS or len(self._best_so_far) < len(self.heads):
            return
        self._has_answered = True
        best = [f'{name} {self._best_so_far[name]:.1f}' for name in self.heads]
        print(
            '\nPreliminary: the best so far on the val pictures, in % of top-1, which '
            f'decides nothing: {", ".join(best)}.',
            flush=True,
        )

    # -------------------------------------------------------------------- comparisons
    def _pair(
        self, tuning: Tuning, tuned: Mapping[str, float]
    ) -> list[tuple[str, str]]:
        """Return the comparisons: each block with the other heads that answer for it.

        Of several linear probes only the one that is best on val is compared.
        """
        pairs = []
        for block in self.blocks:
            probes = {}
            others = []
            for name in self._rivals(block):
                others.append(name)
                if self.heads[name].family == 'linear':
                    probes[name] = tuning[name][tuned[name]]
            if probes:
                best = max(probes, key=probes.__getitem__)
                others = [name for name in others if name not in probes or name == best]
            for other in others:
                pairs.append((block, other))
        return pairs

    def _rivals(self, block: str) -> list[str]:
        """Return the heads that a block is compared with.

        They have as many shots and layers, and belong to its language model or to all.
        Blocks of two language models are compared once; several layers of one are not.

        Args:
            block (str): The name of a frozen block.
        """
        own = self.heads[block]
        rivals = []
        for name, head in self.heads.items():
            has_its_depth = head.depth in (0, own.depth)
            if head.shots != own.shots or not has_its_depth:
                continue
            if head.family == 'frozen':
                # The names' order decides which of two blocks is compared with the other.
                is_rival = head.models != own.models and block < name
            else:
                is_rival = not head.models or set(own.models) <= set(head.models)
            if is_rival:
                rivals.append(name)
        return rivals

    def _train_seeds(
        self, tuned: Mapping[str, float], pairs: Sequence[tuple[str, str]]
    ) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """Train the seeds that are compared: half of them, then what can still decide.

        Args:
            tuned (Mapping[str, float]): The best value of each head.
            pairs (Sequence): The comparisons.

        Returns:
            tuple: The labels given by each head, int64 ``[seeds, test pictures]``, and
            the median seconds of its trainings.
        """
        first = max(_LEAST_SEEDS, self.plan.seeds // 2)
        first = min(first, self.plan.seeds)
        results = self._results(list(tuned.items()), range(first), 'test')
        if first < self.plan.seeds:
            undecided = self._undecided(results, tuned, pairs)
            more = [(name, tuned[name]) for name in undecided]
            results |= self._results(more, range(self.plan.seeds), 'test')
        predicted = {}
        seconds = {}
        for (name, _), own in results.items():
            predicted[name] = np.stack([result.predicted for result in own])
            seconds[name] = median(result.seconds for result in own)
        return predicted, seconds

    def _undecided(
        self,
        results: Mapping[HeadValue, Sequence[Result]],
        tuned: Mapping[str, float],
        pairs: Sequence[tuple[str, str]],
    ) -> list[str]:
        """Return the heads whose comparisons more seeds can decide, in the order of tables.

        Heads without a comparison, such as a linear probe that is not the best on val,
        get no more seeds either.
        """
        test = self.features.data.splits['test']
        labels = self.features.data.labels[test]
        correct = {}
        for name, value in tuned.items():
            own = results[name, value]
            correct[name] = np.stack([result.predicted == labels for result in own])
        kept: set[str] = set()
        for block, other in pairs:
            gain = gain_of(correct[block], correct[other])
            chance = chance_to_decide(gain, self.plan.seeds, self.settings.margin)
            if chance >= _FUTILE:
                kept.update((block, other))
        return [name for name in self.heads if name in kept]

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
        missing: list[Job] = []
        for name, value in pairs:
            head = self.heads[name]
            # Few shots are drawn by the seed.
            is_fixed = head.is_fitted and head.shots == 0
            own_seeds = seeds[:1] if is_fixed else seeds
            own = []
            for seed in own_seeds:
                steps = 0 if head.is_fitted else self.plan.steps
                job = Job(head, value, seed, steps, split, self.settings.dtype)
                own.append(job)
                if read_result(self.features, job, self.since) is None:
                    missing.append(job)
            jobs[name, value] = own
        self._run_jobs(missing, 'tuning' if split == 'val' else 'training')

        results: dict[HeadValue, list[Result]] = {}
        for pair, own in jobs.items():
            results[pair] = [self._read_finished(job) for job in own]
        return results

    def _run_jobs(self, jobs: Sequence[Job], title: str) -> None:
        """Run jobs with a bar of progress, and wait for all of them.

        Costly ones come first, so that at the end no process works alone for long.

        Args:
            jobs (Sequence[Job]): The jobs.
            title (str): The bar's title.
        """
        costly_first = sorted(
            jobs, key=lambda job: job.steps * job.head.operations, reverse=True
        )
        finished = self.run(self._trainer.run, costly_first)
        for job in tqdm(finished, title, len(jobs), disable=not jobs):
            self._answer_early(job)

    def _read_finished(self, job: Job) -> Result:
        """Return the stored result of a job that was run, now or earlier.

        Raises:
            UserError: There is none, or it is damaged; the message names the file.
        """
        result = read_result(self.features, job, self.since)
        if result is None:
            path = job.path(self.features)
            problem = 'is damaged' if path.exists() else 'is missing'
            raise UserError(f"The result in '{path}' {problem}.")
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


def _profile_heads(
    settings: StudySettings, shape: TokenShape, steps: int, run: Run
) -> dict[str, ProfiledHead]:
    """Build and profile the heads of a study's families; see :func:`profile_head`.

    The size of the controls follows from that of blocks, so these are profiled first.

    Args:
        settings, shape, run: See :func:`prepare_study`.
        steps (int): How many steps of each head are timed.

    Returns:
        dict[str, ProfiledHead]: By name, in the order of tables.

    Raises:
        UserError: Two heads compute the same.
    """

    build = partial(profile_head, shape=shape, steps=steps, dtype=settings.dtype)

    def profile(heads: Sequence[HeadSpec]) -> list[ProfiledHead]:
        chosen = [head for head in heads if head.family in settings.families]
        return list(run(build, chosen))

    blocks = profile(blocks_of(settings))
    heads = [*blocks, *profile(list_probes(shape.has_class_token))]
    sizes = sizes_of(blocks, shape.channels)
    heads += profile(list_controls(shape.channels, shape.tokens, sizes))
    heads.sort(key=lambda head: FAMILIES.index(head.family))
    return _with_shots(_without_twins(heads), settings.shots)


def blocks_of(settings: StudySettings) -> list[HeadSpec]:
    """Return the heads of a study that have layers of a language model."""
    return list_blocks(
        settings.blocks,
        settings.layers,
        settings.kept_heads,
        settings.formal,
        settings.dtype,
    )


def _without_twins(heads: Sequence[ProfiledHead]) -> list[ProfiledHead]:
    """Return heads that compute different things.

    Random blocks of two language models of one shape are the same, and so are trained
    layers that fit blocks of almost one size; the first stays, for both.

    Raises:
        UserError: Two others are the same.
    """
    first_of: dict[str, ProfiledHead] = {}
    for head in heads:
        first = first_of.setdefault(head.identity, head)
        if first is head:
            continue
        if head.family not in _SHARED_FAMILIES:
            raise UserError(
                f"'{first.name}' and '{head.name}' are the same. Fix: name one."
            )
        depth = first.depth if first.depth == head.depth else 0
        shared = replace(first, models=first.models + head.models, depth=depth)
        first_of[head.identity] = shared
    return list(first_of.values())


def _with_shots(
    heads: Sequence[ProfiledHead], shots: Sequence[int]
) -> dict[str, ProfiledHead]:
    """Return the heads by name, once for each number of pictures that they train on.

    Args:
        heads (Sequence[ProfiledHead]): The heads.
        shots (Sequence[int]): Pictures of each class; 0: all, which names do not say.
    """
    named = {}
    for count in shots:
        for head in heads:
            name = head.name
            if count > 0:
                noun = 'shot' if count == 1 else 'shots'
                name = f'{name} ({count} {noun})'
            named[name] = replace(head, name=name, shots=count)
    return named
