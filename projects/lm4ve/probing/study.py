"""A study: it tunes the learning rate of every head, then trains the seeds that are compared."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
from tqdm import tqdm

from lm4ve.errors import UserError
from lm4ve.files import write_json
from lm4ve.probing.candidates import FAMILIES, list_blocks, list_controls
from lm4ve.probing.features import Features
from lm4ve.probing.heads import HeadSpec, ProfiledHead
from lm4ve.probing.plan import (
    MEASURED_STEPS,
    TUNING_SEEDS,
    Plan,
    StudySettings,
    make_plan,
    plan_file,
    read_plan,
)
from lm4ve.probing.results import Job, Result, read_result
from lm4ve.probing.workers import Run

#: Learning rates. Tuning begins with the middle three and goes on where the best one
#: is at the end of what was tried.
LADDER = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
_FIRST_RATE = LADDER[3]

#: Head -> rate -> mean accuracy on 'val', per cent.
Tuning = dict[str, dict[float, float]]
#: A head's name and a learning rate.
HeadRate = tuple[str, float]


@dataclass(frozen=True)
class StudyResults:
    """What all trainings of a study gave, by the heads' names.

    Attributes:
        tuning (dict[str, dict[float, float]]): Rate -> mean accuracy on 'val', per
            cent.
        rates (dict[str, float]): The best ones.
        correct (dict[str, np.ndarray]): What was right, bool ``[seeds, test
            pictures]``.
        accuracies (dict[str, np.ndarray]): In per cent, float64 ``[seeds]``.
        seconds (dict[str, float]): Median of a training.
    """

    tuning: Tuning
    rates: dict[str, float]
    correct: dict[str, np.ndarray]
    accuracies: dict[str, np.ndarray]
    seconds: dict[str, float]

    def is_edge(self, name: str) -> bool:
        """Return whether a head's best rate is the smallest or largest that was tried."""
        tried = self.tuning[name]
        return self.rates[name] in (min(tried), max(tried))


class Study:
    """Trains what a study needs and is not stored yet; :meth:`prepare` makes one.

    Args:
        features (Features): The tokens; results are stored beside them.
        settings (StudySettings): What the user asks for.
        run (Run): Trains.
        heads (Mapping[str, ProfiledHead]): By name, in the order of tables.
        plan (Plan): Steps and seeds.
        since (float): Results that were stored before this time do not count, in
            seconds since the epoch.
    """

    def __init__(
        self,
        features: Features,
        settings: StudySettings,
        run: Run,
        heads: Mapping[str, ProfiledHead],
        plan: Plan,
        since: float,
    ) -> None:
        self.features = features
        self.settings = settings
        self.run = run
        self.heads = heads
        self.plan = plan
        self.since = since

    @classmethod
    def prepare(
        cls, features: Features, settings: StudySettings, run: Run, started: float
    ) -> 'Study':
        """Build every head once, and read or make the plan.

        Args:
            features, settings, run: See the class.
            started (float): ``time.monotonic()`` when the minutes began.

        Raises:
            UserError: Two heads are the same, or no plan fits the minutes.
        """
        since = 0.0 if settings.resume else time.time()
        file = plan_file(features, settings)
        plan = read_plan(file) if settings.resume else None
        is_measured = plan is None and settings.steps is None
        steps = MEASURED_STEPS if is_measured else 0
        heads = _profile_heads(features, settings, run, steps)
        if plan is None:
            spent = time.monotonic() - started
            pictures = len(features.data.splits['train'])
            plan = make_plan(settings, list(heads.values()), pictures, spent)
            write_json(plan.to_json(), file)
        if settings.seeds is not None:
            plan = replace(plan, seeds=settings.seeds)
        return cls(features, settings, run, heads, plan, since)

    @property
    def blocks(self) -> list[str]:
        """The names of the frozen blocks."""
        return [name for name, head in self.heads.items() if head.family == 'frozen']

    def train(self) -> StudyResults:
        """Tune the rates on 'val', then train every seed with the best ones."""
        tuning = self._tune()
        rates = {}
        for name, accuracies in tuning.items():
            rates[name] = max(accuracies, key=accuracies.__getitem__)
        seeds = range(self.plan.seeds)
        results_of = self._results(list(rates.items()), seeds, 'test')
        correct = {}
        seconds = {}
        for (name, _), results in results_of.items():
            correct[name] = np.stack([result.correct for result in results])
            seconds[name] = median(result.seconds for result in results)
        accuracies_of = {name: 100 * right.mean(1) for name, right in correct.items()}
        return StudyResults(tuning, rates, correct, accuracies_of, seconds)

    # ------------------------------------------------------------------------- tuning
    def _tune(self) -> Tuning:
        """Try rates until the best one of each head has neighbours or ends the ladder."""
        tuning: Tuning = {name: {} for name in self.heads}
        while True:
            untried = []
            for name, accuracies in tuning.items():
                for rate in self._untried_rates(accuracies):
                    untried.append((name, rate))
            if not untried:
                return tuning
            results_of = self._results(untried, TUNING_SEEDS, 'val')
            for (name, rate), results in results_of.items():
                correct = np.mean([result.correct for result in results])
                tuning[name][rate] = 100 * float(correct)
            tuning = {name: self._in_order(tried) for name, tried in tuning.items()}

    def _untried_rates(self, accuracies: Mapping[float, float]) -> list[float]:
        """Return the learning rates that a head should be trained with next.

        They are the rates that the user gave; without these, the best rate so far and its
        neighbours on the ladder, at first around :data:`_FIRST_RATE`. Rates that were
        tried are left out.

        Args:
            accuracies (Mapping[float, float]): Rate -> accuracy, of those tried.
        """
        rates: Sequence[float] = self.settings.rates
        if not rates:
            best = _FIRST_RATE
            if accuracies:
                best = max(accuracies, key=accuracies.__getitem__)
            place = LADDER.index(best)
            rates = LADDER[max(place - 1, 0) : place + 2]
        return [rate for rate in rates if rate not in accuracies]

    def _in_order(self, accuracies: Mapping[float, float]) -> dict[float, float]:
        """Return tried rates in the order of the user's list or the ladder.

        The order matters since the first of equal accuracies wins.
        """
        rates = self.settings.rates if self.settings.rates else LADDER
        return {rate: accuracies[rate] for rate in rates if rate in accuracies}

    # ---------------------------------------------------------------------- trainings
    def _results(
        self, pairs: Sequence[HeadRate], seeds: Sequence[int], split: str
    ) -> dict[HeadRate, list[Result]]:
        """Return the results of heads with learning rates; train those not stored yet.

        Args:
            pairs (Sequence[HeadRate]): Names of heads with a learning rate each.
            seeds (Sequence[int]): The seeds that each pair is trained with.
            split (str): The split that is scored, 'val' or 'test'.

        Returns:
            dict[HeadRate, list[Result]]: The results of each pair, a seed each.
        """
        jobs: dict[HeadRate, list[Job]] = {}
        missing: list[Job] = []
        for name, rate in pairs:
            own = []
            for seed in seeds:
                job = Job(self.heads[name], rate, seed, self.plan.steps, split)
                own.append(job)
                if read_result(self.features, job, self.since) is None:
                    missing.append(job)
            jobs[name, rate] = own
        self._run_jobs(missing, 'tuning' if split == 'val' else 'training')

        results: dict[HeadRate, list[Result]] = {}
        for pair, own in jobs.items():
            results[pair] = [self._read_finished(job) for job in own]
        return results

    def _run_jobs(self, jobs: list[Job], title: str) -> None:
        """Run jobs with a bar of progress, and wait for all of them.

        Costly ones come first, so that at the end no process works alone for long.

        Args:
            jobs (list[Job]): The jobs, which are sorted in place.
            title (str): The bar's title.
        """
        jobs.sort(key=lambda job: -job.head.operations)
        finished = self.run('run', jobs)
        for _ in tqdm(finished, title, len(jobs), disable=not jobs):
            pass

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


def _profile_heads(
    features: Features, settings: StudySettings, run: Run, steps: int
) -> dict[str, ProfiledHead]:
    """Build and profile the heads of a study's families; see :meth:`Trainer.profile`.

    The size of the controls follows from the first block, so blocks are profiled first.

    Args:
        features, settings, run: See :class:`Study`.
        steps (int): How many steps of each head are timed.

    Returns:
        dict[str, ProfiledHead]: By name, in the order of tables.

    Raises:
        UserError: Two heads compute the same.
    """

    def profile(heads: Sequence[HeadSpec]) -> list[ProfiledHead]:
        chosen = [head for head in heads if head.family in settings.families]
        return list(run('profile', chosen, [steps] * len(chosen)))

    blocks = profile(
        list_blocks(
            settings.block,
            settings.layers,
            settings.heads,
            settings.formal,
            settings.dtype,
        )
    )
    tokens, channels = features.shape[-2:]
    controls = list_controls(
        channels, tokens, width=blocks[0].embed_dims, operations=blocks[0].operations
    )
    heads = [*blocks, *profile(controls)]
    heads.sort(key=lambda head: FAMILIES.index(head.family))
    name_of_identity: dict[str, str] = {}
    for head in heads:
        first = name_of_identity.setdefault(head.identity, head.name)
        if first != head.name:
            raise UserError(f"'{first}' and '{head.name}' are the same. Fix: name one.")
    return {head.name: head for head in heads}
