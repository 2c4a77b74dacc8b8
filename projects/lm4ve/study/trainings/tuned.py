"""Which value each variant of a grid takes, and what the scores of results are."""

import math
from typing import Any

from lm4ve.errors import check, listing, require
from lm4ve.runner.scored_data import SampleCounts
from lm4ve.study.store import Result, Store
from lm4ve.study.trainings.grid import Grid


def select_tuned(grid: Grid, store: Store, processes: int = 1) -> dict[str, Any]:
    """Return the best value of each variant whose tuning is complete.

    The best value has the best mean of the metric over the tuning seeds. A score that
    is not finite counts as the worst; of equal ones the first in the grid wins.

    Args:
        grid (Grid): The grid.
        store (Store): Holds the results.
        processes (int): How many processes train.

    Raises:
        UserError: A result lacks the grid's metric, or values of a variant were scored on
            different numbers of samples.
    """
    if grid.tune is None:
        return {}
    finished: dict[tuple[str, Any], list[Result]] = {}
    for job in grid.tuning(processes):
        results = finished.setdefault((job.variant, job.value), [])
        result = store.result(job)
        if result is not None:
            results.append(result)
    selected = {}
    for variant in grid.variants:
        score_of = {}
        counts: set[SampleCounts] = set()
        for value in grid.tune.values:
            results = finished[variant.name, value]
            counts.update(counts_of(result) for result in results)
            if len(results) == len(grid.tune.seeds):
                score_of[value] = _score(grid, results)
        is_complete = len(score_of) == len(grid.tune.values)
        numbers = listing(sorted(str(count) for count in counts))
        require(
            len(counts) <= 1,
            f"tune: trainings of '{variant.name}' are over {numbers}, and are not compared. "
            f"Fix: mend the data, remove '{store.folder}', and run it again.",
        )
        if is_complete:
            selected[variant.name] = max(score_of, key=score_of.__getitem__)
    return selected


def _score(grid: Grid, results: list[Result]) -> float:
    """Return the mean of the metric with a sign by which higher is better.

    A mean that is not finite gives -inf, so that it never wins.
    """
    sign = 1 if grid.greater_is_better else -1
    mean = sign * sum(metric_of(grid, result) for result in results) / len(results)
    if not math.isfinite(mean):
        return -math.inf
    return mean


def counts_of(result: Result) -> SampleCounts:
    """Return how many samples the metrics of a result are over, and of how many."""
    return SampleCounts(result.scored, result.total)


def metric_of(grid: Grid, result: Result) -> float:
    """Return the grid's metric of a result.

    Raises:
        UserError: The test did not report it.
    """
    check('metric', grid.metric, choices=sorted(result.metrics))
    return result.metrics[grid.metric]
