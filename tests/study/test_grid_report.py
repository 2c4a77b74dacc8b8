"""What the report of a grid says, from scores that are given."""

import gc
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from lm4ve.study.cells import Metric
from lm4ve.study.report import describe_table
from lm4ve.study.table import result_rows
from lm4ve.study.trainings.contents import report_of
from lm4ve.study.trainings.scores import unit_of
from lm4ve.study.trainings.stored import StoredGrid


@pytest.fixture(autouse=True)
def quick_correction(monkeypatch):
    """statsmodels collects garbage in every correction, for a quarter of a second."""
    monkeypatch.setattr(gc, 'collect', lambda *args: 0)


def make_study(metric='accuracy/top1', greater_is_better=True, **scores) -> StoredGrid:
    """A grid whose trainings gave these scores, of seeds 0, 1, ...; 'a' is the subject."""
    rows = []
    for name, own in scores.items():
        for seed, score in enumerate(own):
            rows.append({'variant': name, 'seed': seed, metric: score})
    results = pd.DataFrame(rows).assign(
        value='', scored=540, total=540, trainable=7, frozen=0
    )
    unit = unit_of(metric)
    return StoredGrid(
        title='Digits',
        metric=Metric(metric, unit.name, greater_is_better),
        unit=unit,
        margin=1.0,
        reference='a',
        variants=list(scores),
        pairs=[('a', name) for name in scores if name != 'a'],
        seeds=[0, 1, 2],
        ladder=[],
        published=None,
        looks=[],
        rule='',
        command='',
        results=results,
        timings=results.assign(stage='test', step_seconds=0.1),
    )


def test_scores_over_other_numbers_of_samples_are_not_compared():
    study = make_study(a=[91.0, 92.0, 93.0], b=[90.0, 90.0, 10.0])
    study.results.loc[5, 'scored'] = 12
    report = report_of(study)
    (found,) = report.comparisons
    assert (found.seeds, found.difference) == (2, 1.5)
    assert len(report.scores['b'].of_seeds) == 3
    assert any(note.startswith('Not paired: 1 score(s)') for note in report.notes)


def test_gains_that_agree_in_each_digit_have_the_spread_of_rounding():
    # Each seed has two of 540 samples more, up to the rounding of float32.
    b = np.array([520, 522, 521])
    a = np.float32(100 * (b + 2) / 540)
    (found,) = report_of(make_study(a=a, b=100 * b / 540)).comparisons
    assert found.over_seeds == pytest.approx(100 / 540 / 6)  # of a uniform step, by 3
    assert 0.05 > found.p > 1e-3


@pytest.mark.parametrize('metric, factor', [('motion/minFDE@6', 1), ('acc/top1', 100)])
def test_a_gain_is_positive_where_the_subject_is_better(metric, factor):
    better, lesser = [1.0, 1.1, 1.2], [1.3, 1.5, 1.4]
    is_error = metric.startswith('motion')
    if not is_error:
        better, lesser = lesser, better
    study = make_study(metric, not is_error, a=better, b=lesser)
    report = report_of(replace(study, margin=0.01))
    (found,) = report.comparisons
    assert found.difference == pytest.approx(0.3 * factor)
    assert report.scores['a'].mean == pytest.approx(factor * np.mean(better))


def test_a_score_that_is_not_finite_is_not_compared_but_named():
    report = report_of(make_study(a=[91.0, 92.0, 93.0], b=[90.0, np.nan, np.inf]))
    (found,) = report.comparisons
    assert found.seeds == 1
    assert 'Not finite, and not compared: 2 score(s).' in report.notes


def test_sentence_and_table_have_the_order_of_the_grid():
    a = np.array([90.0, 91.0, 92.0])
    report = report_of(make_study(none=a - 9, a=a, b=a - 5))
    assert report.names == ['none', 'a', 'b']
    assert report.sentence.startswith("Digits: 'a' is better than 'none' by 9 points")


def test_variants_beside_a_reference_are_told_as_their_own_gains():
    a = np.array([90.0, 91.0, 92.0])
    study = make_study(a=a, b=a + [4.9, 5.0, 5.1], c=a + [-8.0, 0.0, 9.0])
    study = replace(study, pairs=[('b', 'a'), ('c', 'a')])
    report = report_of(study)
    assert report.sentence.startswith(
        "Yes, Digits: 'b' is better than 'a' by 5 points ("
    )
    assert report.sentence.endswith("; 'c' cannot be told from 'a'.")
    assert "gains of the variant over 'a'" in describe_table(report)
    words = dict(metric=report.metric, margin=report.margin, cells={})
    scores = report.scores
    rows = result_rows(report.names, 'a', scores, report.comparisons, **words)
    told = {row['variant']: (row['difference'], row["beside 'a'"]) for row in rows}
    assert told['a'] == ('', '(this one)')
    assert told['b'] == ('+5.0', 'better')
    assert told['c'][0] == '+0.3'


def test_no_variant_is_better_than_a_reference():
    a = np.array([90.0, 91.0, 92.0])
    study = replace(make_study(a=a, b=a - [4.9, 5.0, 5.1]), pairs=[('b', 'a')])
    assert report_of(study).sentence.startswith(
        "No, Digits: 'b' is worse than 'a' by 5 p"
    )
