"""A study of trainings as files: all that its report is made from, and nothing else.

    study.json      what was compared and how
    pictures.csv    the val and test samples: number and label; none where they are unknown
    results.csv     a row for each training that is compared: its value, its metrics, and
                    the label that it gave each test sample
    tuning.csv      the same for tuning, and whether the value was kept; the labels of the
                    shared tuning alone, since draws may have other samples each
    timings.csv     what differs from run to run

Samples are known where the metric is an accuracy by labels, and all trainings have the
same ones. Else scores are of whole trainings.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lm4ve.files import write_csv
from lm4ve.study.cells import Metric
from lm4ve.study.earlier import read_earlier
from lm4ve.study.report_files import (
    PICTURES,
    RESULTS,
    TIMINGS,
    TUNING,
    pack,
    read_facts,
    unpack,
    write_facts,
)
from lm4ve.study.store import Done, Result
from lm4ve.study.trainings.grid import Grid, Published
from lm4ve.study.trainings.scores import (
    Unit,
    common_labels,
    is_of_labels,
    score_of,
    unit_of,
)
from lm4ve.study.trainings.study import GridStudy

#: Of study.json; another number for other fields.
_FORMAT = 2
#: Fields of a result that differ from run to run.
_TIMINGS = ('step_seconds', 'seconds', 'threads', 'device')


@dataclasses.dataclass(frozen=True)
class StoredGrid:
    """What a report is made from.

    Attributes:
        title (str): The grid's.
        metric (Metric): What scores are.
        unit (Unit): Its unit.
        margin (float): The smallest difference that matters.
        reference (str): The variant that is in each comparison.
        variants (list[str]): All of the grid.
        pairs (list[tuple[str, str]]): The planned comparisons.
        seeds (list[int]): Those of the grid.
        ladder (list[str]): The values of tuning, as text; empty without tuning.
        published (Published, optional): Scores that somebody has published.
        looks (list[tuple[int, str]]): See :class:`lm4ve.study.earlier.Earlier`.
        rule (str): How verdicts are reached.
        command (str): The command line.
        results (pd.DataFrame): A row for each training that is compared.
        timings (pd.DataFrame): A row for each training.
        labels (np.ndarray): The true labels of the test samples, int64 ``[samples]``;
            empty where samples are not known.
        classes (int): How many labels there are.
        failed (dict[str, list[str]]): Variant -> why each of its trainings failed that
            has no result.
    """

    title: str
    metric: Metric
    unit: Unit
    margin: float
    reference: str
    variants: list[str]
    pairs: list[tuple[str, str]]
    seeds: list[int]
    ladder: list[str]
    published: Published | None
    looks: list[tuple[int, str]]
    rule: str
    command: str
    results: pd.DataFrame
    timings: pd.DataFrame
    labels: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, int))
    classes: int = 0
    failed: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    @property
    def has_samples(self) -> bool:
        """Whether the samples of the test are known."""
        return len(self.labels) > 0

    def points(self) -> dict[str, pd.DataFrame]:
        """Return variant -> its points, a row for each seed, of those that have any.

        A column for each sample, 100 where it is right, else 0; where samples are not
        known, one column with the score, NaN if it is not finite.
        """
        found = {}
        for name in self.variants:
            own = self.results[self.results['variant'] == name].set_index('seed')
            if not len(own):
                continue
            if self.has_samples:
                labels = [unpack(text, self.classes) for text in own['predicted']]
                points = 100.0 * (np.stack(labels) == self.labels)
                found[name] = pd.DataFrame(points, index=own.index)
            else:
                scaled = self.unit.factor * own[[self.metric.name]].astype(float)
                found[name] = scaled.where(np.isfinite(scaled))
        return found


def question_of(grid: Grid) -> dict[str, str]:
    """Return what a grid asks, whatever variants and seeds it has."""
    return dict(
        grid=grid.name,
        metric=grid.metric,
        subject=grid.subject,
        reference=grid.reference,
    )


def write_grid_study(study: GridStudy, rule: str, command: str, folder: Path) -> bool:
    """Write the trainings of a grid that are done into a folder.

    Args:
        study (GridStudy): The grid and its results.
        rule (str): How verdicts are reached.
        command (str): The command line.
        folder (Path): The folder.

    Returns:
        bool: Whether there is anything to report; else the folder stays as it is.

    Raises:
        UserError: A result lacks the grid's metric.
    """
    grid = study.grid
    tuning = study.store.done(study.tuning())
    draws = study.store.done(study.draws())
    tests = study.store.done(study.tests())
    if not tests:
        return False
    for _, result in tests:
        score_of(grid.metric, result.metrics)  # refuses one without the metric
    seeds = len({job.seed for job, _ in tests})
    labels = {'val': _labels_of(grid, tuning), 'test': _labels_of(grid, tests)}
    classes = _count_classes([*tuning, *tests])
    question = question_of(grid)
    earlier = read_earlier(folder, question, seeds)
    facts = dict(
        format=_FORMAT,
        question=question,
        seeds=seeds,
        looks=earlier.looks,
        title=grid.title,
        greater_is_better=grid.greater_is_better,
        margin=grid.margin,
        variants=[variant.name for variant in grid.variants],
        pairs=earlier.join_pairs(grid.pairs),
        grid_seeds=list(grid.seeds),
        ladder=[str(value) for value in grid.tune.values] if grid.tune else [],
        published=dataclasses.asdict(grid.published) if grid.published else None,
        classes=classes,
        failed=_failures_of(study),
        rule=rule,
        command=command,
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_facts(facts, folder)
    _write_labels(labels, folder / PICTURES)
    predicted: dict[str, str] = {}
    if labels['val'] is not None:
        predicted |= _pack_all(tuning, classes)
    if labels['test'] is not None:
        predicted |= _pack_all(tests, classes)
    _write_tuning([*tuning, *draws], study.kept(), predicted, folder)
    _write_timings([*tuning, *draws, *tests], folder)
    _write_results(tests, predicted, folder)
    return True


def _failures_of(study: GridStudy) -> dict[str, list[str]]:
    """Return variant -> why each of its trainings failed, of those that have failed."""
    failed: dict[str, list[str]] = {}
    for job in [*study.tuning(), *study.draws(), *study.tests()]:
        reason = study.store.failure(job)
        if reason is not None:
            failed.setdefault(job.variant, []).append(reason)
    return failed


def _labels_of(grid: Grid, done: Done) -> np.ndarray | None:
    """Return the true labels of the samples of trainings; None if they are not known."""
    if not is_of_labels(grid.metric):
        return None
    return common_labels(result for _, result in done)


def _pack_all(done: Done, classes: int) -> dict[str, str]:
    """Return key -> the labels that a training gave, packed."""
    packed = {}
    for job, result in done:
        if result.predicted is not None:
            packed[job.key] = pack(result.predicted, classes)
    return packed


def _count_classes(done: Done) -> int:
    """Return how many labels there are, by the largest one; 0 where none is known."""
    largest = -1
    for _, result in done:
        if result.labels is not None and result.predicted is not None:
            own = max(result.labels.max(), result.predicted.max())
            largest = max(largest, int(own))
    return largest + 1


def _write_labels(labels: Mapping[str, np.ndarray | None], path: Path) -> None:
    """Write the samples, each of which is a group; split -> their labels, if known."""
    rows = []
    for split, own in labels.items():
        if own is not None:
            rows += [(split, label, place, place) for place, label in enumerate(own)]
    write_csv(('split', 'label', 'group', 'name'), rows, path)


def _write_results(done: Done, predicted: Mapping[str, str], folder: Path) -> None:
    """Write the trainings that are compared.

    Args:
        done (list): The trainings.
        predicted (Mapping): Key -> the labels that it gave, packed; of those known.
        folder (Path): The folder.
    """
    metrics = _metrics_of(done)
    rows = []
    for job, result in done:
        facts = result.facts
        row = [job.variant, job.seed, job.value, *_numbers(result, metrics)]
        row += [facts['trainable'], facts['frozen'], job.key]
        rows.append([*row, predicted.get(job.key, '')])
    columns = ['variant', 'seed', 'value', *metrics, 'scored', 'total']
    columns += ['trainable', 'frozen', 'key', 'predicted']
    write_csv(columns, rows, folder / RESULTS)


def _write_tuning(
    done: Done,
    kept: Mapping[str, Sequence[Any]],
    predicted: Mapping[str, str],
    folder: Path,
) -> None:
    """Write the trainings of tuning.

    Args:
        done (list): Both rounds of it.
        kept (Mapping): Variant -> the values that its seeds chose from.
        predicted (Mapping): See :func:`_write_results`.
        folder (Path): The folder.
    """
    metrics = _metrics_of(done)
    rows = []
    for job, result in done:
        is_kept = int(job.value in kept.get(job.variant, ()))
        row = [job.variant, job.stage, job.value, job.seed]
        row += [*_numbers(result, metrics), is_kept, job.key]
        rows.append([*row, predicted.get(job.key, '')])
    columns = ['variant', 'stage', 'value', 'seed', *metrics, 'scored', 'total']
    write_csv([*columns, 'kept', 'key', 'predicted'], rows, folder / TUNING)


def _write_timings(done: Done, folder: Path) -> None:
    """Write what differs from run to run."""
    rows = []
    for job, result in done:
        found = dict(result.facts, seconds=result.seconds)
        row = [job.stage, job.variant, job.seed]
        rows.append([*row, *(found.get(name) for name in _TIMINGS), job.key])
    columns = ['stage', 'variant', 'seed', *_TIMINGS, 'key']
    write_csv(columns, rows, folder / TIMINGS)


def _metrics_of(done: Done) -> list[str]:
    """Return the names of all metrics, sorted."""
    return sorted({name for _, result in done for name in result.metrics})


def _numbers(result: Result, metrics: Sequence[str]) -> list[Any]:
    """Return the metrics of a result, None where it lacks one, and its samples."""
    own = [result.metrics.get(name) for name in metrics]
    return [*own, result.scored, result.total]


def read_grid_study(folder: Path) -> StoredGrid:
    """Read what :func:`write_grid_study` wrote.

    Args:
        folder (Path): The folder.

    Raises:
        UserError: There is no study in the folder, or one of another version.
    """
    facts = read_facts(folder, _FORMAT)
    question = facts['question']
    unit = unit_of(question['metric'])
    published = facts['published']
    samples = pd.read_csv(folder / PICTURES)
    return StoredGrid(
        title=facts['title'],
        metric=Metric(question['metric'], unit.name, facts['greater_is_better']),
        unit=unit,
        margin=facts['margin'],
        reference=question['subject'] or question['reference'],
        variants=facts['variants'],
        pairs=[(variant, against) for variant, against in facts['pairs']],
        seeds=facts['grid_seeds'],
        ladder=facts['ladder'],
        published=None if published is None else Published(**published),
        looks=[(seeds, sentence) for seeds, sentence in facts['looks']],
        rule=facts['rule'],
        command=facts['command'],
        results=_read_table(folder / RESULTS),
        timings=_read_table(folder / TIMINGS),
        labels=samples.loc[samples['split'] == 'test', 'label'].to_numpy(np.int64),
        classes=facts['classes'],
        # Files of before have none.
        failed=facts.get('failed', {}),
    )


def _read_table(path: Path) -> pd.DataFrame:
    """Read a table; a name such as 'None' stays text, and an empty number is NaN."""
    columns = ('variant', 'value', 'stage', 'key', 'device', 'predicted')
    texts = dict.fromkeys(columns, str)
    table = pd.read_csv(path, dtype=texts, keep_default_na=False, na_values={})
    # write_csv puts an apostrophe before what a spreadsheet would take for a formula.
    table['variant'] = table['variant'].str.removeprefix("'")
    for column in table.columns.difference([*texts]):
        table[column] = pd.to_numeric(table[column])
    return table
