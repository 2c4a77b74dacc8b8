"""A study of trainings: a grid's tuning, and the trainings that are compared.

tune      all seeds share a first tuning: each value of the grid, scored on val
draw      each seed trains the values that the first tuning cannot tell apart, on a cut
          into fit and val of its own where the data draw one, and takes the best on val
test      each seed trains with its value, and is scored on the test samples

A grid without ``tune`` has the last round only.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lm4ve.errors import listing, require
from lm4ve.runner.scored_data import SampleCounts
from lm4ve.study.job import Job
from lm4ve.study.pool import Failure, Pool
from lm4ve.study.progress import Progress
from lm4ve.study.store import Done, Result, Store
from lm4ve.study.trainings.grid import Grid
from lm4ve.study.trainings.scores import (
    common_labels,
    counts_of,
    is_of_labels,
    score_of,
)
from lm4ve.study.tune import value_of_seed, within_noise

#: Of the values of a grid about so many are kept.
_KEPT = 3


class GridStudy:
    """The trainings of a grid, as far as they are known.

    Args:
        grid (Grid): The grid.
        store (Store): Holds the results.
        processes (int): How many processes train.
    """

    def __init__(self, grid: Grid, store: Store, processes: int = 1) -> None:
        self.grid = grid
        self.store = store
        self.processes = processes

    def tuning(self) -> list[Job]:
        """Return the trainings of the shared tuning."""
        return self.grid.tuning(self.processes)

    def draws(self) -> list[Job]:
        """Return those by which seeds choose, of variants whose tuning is done."""
        return self.grid.draws(self.kept(), self.processes)

    def tests(self) -> list[Job]:
        """Return those that are compared, of seeds that have chosen."""
        return self.grid.tests(self.values(), self.processes)

    def run(self, pool: Pool) -> list[Failure]:
        """Run the jobs that have no result yet; return those that failed."""
        progress = self._expect(pool.workers)
        failures = []
        rounds: tuple[Callable[[], list[Job]], ...]
        rounds = (self.tuning, self.draws, self.tests)
        for jobs_of_round in rounds:
            failures += pool.run(jobs_of_round(), progress, self._describe)
        progress.close()
        return failures

    def kept(self) -> dict[str, list[Any]]:
        """Return the values that the shared tuning cannot tell from its best one.

        Only of variants whose shared tuning is done. Where the samples' labels are not
        known, the noise is not, and all values with a finite score are kept.

        Raises:
            UserError: A result lacks the metric, or one seed's values of a variant were
                scored on different numbers of samples.
        """
        grid = self.grid
        if grid.tune is None:
            return {}
        results: dict[str, dict[Any, list[Result]]] = {}
        done = self.store.done(self.tuning())
        self._require_same_samples(done)
        for job, result in done:
            of_variant = results.setdefault(job.variant, {})
            of_variant.setdefault(job.value, []).append(result)
        kept: dict[str, list[Any]] = {}
        for variant in grid.variants:
            own = results.get(variant.name, {})
            complete = [
                len(own.get(value, ())) == len(grid.tune.seeds)
                for value in grid.tune.values
            ]
            if all(complete):
                kept[variant.name] = self._keep(own)
        return kept

    def values(self) -> dict[tuple[str, int], Any]:
        """Return the value of each variant and seed that has chosen.

        Raises:
            UserError: See :meth:`kept`.
        """
        kept = self.kept()
        scores: dict[tuple[str, int], dict[Any, float]] = {}
        done = self.store.done(self.grid.draws(kept, self.processes))
        self._require_same_samples(done)
        for job, result in done:
            place = scores.setdefault((job.variant, job.seed), {})
            place[job.value] = self._score(result)
        chosen = {}
        for name, values in kept.items():
            for seed in self.grid.seeds:
                own = scores.get((name, seed), {})
                if len(values) == 1:
                    chosen[name, seed] = values[0]
                elif len(own) == len(values):
                    chosen[name, seed] = value_of_seed(values, own)
        return chosen

    def _keep(self, results: Mapping[Any, list[Result]]) -> list[Any]:
        """Return the values to keep of one variant; see :meth:`kept`.

        Args:
            results (Mapping): Value -> its results, one of each seed of the tuning.
        """
        # Of each seed, the results of all values.
        of_seeds = list(zip(*results.values(), strict=True))
        labels = [common_labels(own) for own in of_seeds]
        if is_of_labels(self.grid.metric) and all(own is not None for own in labels):
            right = {}
            for value, own in results.items():
                right[value] = np.concatenate([r.predicted == r.labels for r in own])
            # Seeds that share a cut score the same samples again.
            places = np.concatenate([np.arange(own[0].scored) for own in of_seeds])
            return within_noise(right, places)
        finite = []
        for value, own in results.items():
            if all(math.isfinite(self._score(result)) for result in own):
                finite.append(value)
        return finite if finite else list(results)[:1]

    def _require_same_samples(self, done: Done) -> None:
        """Refuse trainings of tuning if one seed's are over different numbers of samples.

        Raises:
            UserError: It names the variant.
        """
        found: dict[tuple[str, int], set[SampleCounts]] = {}
        for job, result in done:
            counts = found.setdefault((job.variant, job.seed), set())
            counts.add(counts_of(result))
        for (name, _), counts in found.items():
            numbers = listing(sorted(str(count) for count in counts))
            require(
                len(counts) == 1,
                f"tune: trainings of '{name}' are over {numbers}, and are not compared. "
                f"Fix: mend the data, remove '{self.store.folder}', and run it again.",
            )

    def _score(self, result: Result) -> float:
        """Return a score with a sign by which higher is better; -inf if it is not finite."""
        score = score_of(self.grid.metric, result.metrics)
        if not math.isfinite(score):
            return -math.inf
        return score if self.grid.greater_is_better else -score

    def _describe(self, result: Result) -> str:
        """Return what a result is told by while the study runs."""
        score = score_of(self.grid.metric, result.metrics)
        return f'{self.grid.metric} {score:.4f} ({result.seconds:.0f} s)'

    def _expect(self, workers: int) -> Progress:
        """Return the bar of the grid's trainings, which are taken to cost the same."""
        grid = self.grid
        count = len(grid.seeds)
        if grid.tune is not None:
            kept = min(_KEPT, len(grid.tune.values))
            count += len(grid.tune.values) * len(grid.tune.seeds)
            count += kept * len(grid.seeds)
        names = [variant.name for variant in grid.variants]
        return Progress(dict.fromkeys(names, 1.0), dict.fromkeys(names, count), workers)
