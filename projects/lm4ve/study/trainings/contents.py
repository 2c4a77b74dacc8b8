"""What the report of a study of trainings says, from the study's files."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from lm4ve.errors import check
from lm4ve.study.cells import format_number
from lm4ve.study.compare import Comparison, Score, compare, estimate_score
from lm4ve.study.earlier import describe_looks
from lm4ve.study.report import Report, notes_on_plan
from lm4ve.study.sentence import conclude, judge_all
from lm4ve.study.table import Row, state_without_score
from lm4ve.study.trainings.grid import Published
from lm4ve.study.trainings.scores import is_of_labels
from lm4ve.study.trainings.stored import StoredGrid

_COSTS_WORDS = (
    'Parameters; the values that seeds took; samples of the test that are scored; seconds '
    'of a training step, the median.'
)
_RECIPE = (
    'Each training is its config with the overrides of the grid and the seed; the last '
    'epoch is tested. In a grid that tunes, all seeds share a first tuning, which has a '
    'seed of its own; each seed then trains the values that the first could not tell '
    'apart, on its own cut into fit and val where the data draw one, and takes the best '
    'on val.'
)


class _Named(NamedTuple):
    """A variant as sentences name it."""

    family: str
    words: str


def report_of(study: StoredGrid) -> Report:
    """Return what the report of a study says.

    Raises:
        UserError: A result lacks a metric of the published scores.
    """
    points = study.points()
    paired, unpaired = _pair_samples(study, points)
    comparisons = compare_trainings(study, paired)
    published: list[Row] = []
    words = ''
    if study.published is not None:
        published = published_rows(study.published, study.results, study.failed)
        words = f'Published: {study.published.source}. Here: mean over seeds.'
    return Report(
        title=study.title,
        metric=study.metric,
        margin=study.margin,
        reference=study.reference,
        names=study.variants,
        scores=_estimate_all(study, points),
        failed=study.failed,
        comparisons=comparisons,
        sentence=_say(study, comparisons),
        details='',
        notes=_notes_on(study, points, unpaired),
        costs=_cost_rows(study),
        costs_words=_COSTS_WORDS,
        recipe=_RECIPE,
        rule=study.rule,
        command=study.command,
        published=published,
        published_words=words,
        looks=describe_looks(study.looks),
    )


def compare_trainings(
    study: StoredGrid, points: Mapping[str, pd.DataFrame]
) -> list[Comparison]:
    """Return the planned comparisons, each with its verdict.

    Args:
        study (StoredGrid): The study.
        points (Mapping): As :meth:`StoredGrid.points` returns them; rows of NaN are not
            compared.
    """
    sign = 1 if study.metric.greater_is_better else -1
    seeds = sorted({seed for own in points.values() for seed in own.index})
    rows = {name: sign * own.reindex(seeds).to_numpy() for name, own in points.items()}
    chance = None
    if study.has_samples:
        most_frequent = np.bincount(study.labels).max() / len(study.labels)
        chance = 100 * float(most_frequent)
    return compare(rows, study.pairs, study.margin, chance=chance, step=_step(study))


def _step(study: StoredGrid) -> float:
    """Return the smallest difference between two scores of a seed; 0 if nobody knows."""
    if not study.unit.counts_samples:
        return 0.0
    return float(100 / study.results['scored'].min())


def _estimate_all(
    study: StoredGrid, points: Mapping[str, pd.DataFrame]
) -> dict[str, Score]:
    """Return the score of each variant with its interval, from its finite ones."""
    estimated = {}
    for name, own in points.items():
        finite = own.dropna().to_numpy()
        if len(finite):
            estimated[name] = estimate_score(
                finite, len(finite), study.margin, step=_step(study)
            )
    return estimated


def _pair_samples(
    study: StoredGrid, points: Mapping[str, pd.DataFrame]
) -> tuple[dict[str, pd.DataFrame], int]:
    """Return the points that are compared, and the number of seeds whose are not.

    Those over other samples than the reference's with the same seed are not.
    """
    table = study.results.set_index(['variant', 'seed'])[['scored', 'total']]
    counts = {place: tuple(row) for place, *row in table.itertuples()}
    paired = {}
    unpaired = 0
    for name, own in points.items():
        paired[name] = own.copy()
        for seed in own.index:
            of_reference = counts.get((study.reference, seed))
            if of_reference not in (None, counts[name, seed]):
                paired[name].loc[seed] = np.nan
                unpaired += 1
    return paired, unpaired


def _say(study: StoredGrid, comparisons: list[Comparison]) -> str:
    """Return all comparisons in words."""
    if not comparisons:
        return f"'{study.reference}' is compared with nothing."
    names = {name for pair in study.pairs for name in pair}
    named = {name: _Named('', f"'{name}'") for name in names}
    if comparisons[0].variant == study.reference:
        place = f'{study.title}:'
        return conclude(comparisons, named, study.metric, study.margin, place)
    return judge_all(comparisons, named, study.metric, study.margin, study.title)


def _notes_on(
    study: StoredGrid, points: Mapping[str, pd.DataFrame], unpaired: int
) -> list[str]:
    """Return what is missing, not compared or at the edge of tuning."""
    notes = notes_on_plan(study.pairs, points)
    if not study.has_samples:
        reason = 'no accuracy by labels'
        if is_of_labels(study.metric.name):
            reason = 'known without labels of the same samples for all trainings'
        notes.insert(
            0,
            f"'{study.metric.name}' is {reason}, so that intervals count seeds alone: "
            'other test samples may change the answer.',
        )
    for name, reasons in study.failed.items():
        notes.append(f"Failed: {len(reasons)} training(s) of '{name}': {reasons[0]}")
    missing = len(study.variants) * len(study.seeds) - len(study.results)
    if missing:
        notes.append(f'Unfinished: {missing} trainings are missing.')
    if unpaired:
        notes.append(
            f'Not paired: {unpaired} score(s), over another number of samples than the '
            "reference's."
        )
    infinite = sum(int(own.isna().any(axis=1).sum()) for own in points.values())
    if infinite:
        notes.append(f'Not finite, and not compared: {infinite} score(s).')
    return notes


def _cost_rows(study: StoredGrid) -> list[Row]:
    """Return a row for each variant: its size, its cost and how it was trained."""
    rows = []
    for name in study.variants:
        own = study.results[study.results['variant'] == name]
        row = dict.fromkeys(
            ('trainable', 'frozen', 'tuned', 'samples', 's / step'), '-'
        )
        if len(own):
            tests = study.timings[study.timings['stage'] == 'test']
            seconds = tests.loc[tests['variant'] == name, 'step_seconds'].median()
            counts = own[['scored', 'total']].drop_duplicates().itertuples(index=False)
            row = {
                'trainable': f'{own["trainable"].iloc[0]:,}',
                'frozen': f'{own["frozen"].iloc[0]:,}',
                'tuned': _describe_values(study, own['value']),
                'samples': ', '.join(f'{c.scored:,} of {c.total:,}' for c in counts),
                's / step': format_number(seconds),
            }
        rows.append({'variant': name, 'seeds': str(len(own)), **row})
    return rows


def _describe_values(study: StoredGrid, values: pd.Series) -> str:
    """Return the values that a variant's seeds took, from the first of the grid to the last.

    One that is the first or last of the grid's is an edge: a better one may lie outside.
    """
    if not study.ladder:
        return '-'
    taken = set(values)
    words = ', '.join(value for value in study.ladder if value in taken)
    if taken & {study.ladder[0], study.ladder[-1]}:
        return f'{words} (edge)'
    return words


def published_rows(
    published: Published, results: pd.DataFrame, failed: Collection[str] = ()
) -> list[Row]:
    """Return a row for each variant with a published score: for each metric, both scores.

    Args:
        published (Published): The published scores.
        results (pd.DataFrame): A row for each training that is compared.
        failed (Collection[str]): Variants that have failed, wholly or in part.

    Raises:
        UserError: A result lacks a metric of the published scores.
    """
    rows = []
    for variant, scores in published.scores.items():
        own = results[results['variant'] == variant].dropna(axis='columns', how='all')
        row = {'variant': variant, 'n': str(len(own))}
        for metric in published.metrics:
            row[f'{metric} published'] = '-'
            row[f'{metric} here'] = state_without_score(variant, failed)
            if metric in scores:
                row[f'{metric} published'] = f'{scores[metric]:g}'
            if len(own):
                check('published.scores', metric, choices=sorted(own.columns))
                row[f'{metric} here'] = format_number(own[metric].mean())
        rows.append(row)
    return rows
