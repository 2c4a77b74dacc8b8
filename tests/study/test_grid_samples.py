"""Grids whose samples are known: from the data samples of a test to the report."""

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from scipy import stats

from lm4ve.errors import UserError
from lm4ve.study.compare import compare
from lm4ve.study.store import Result, Store, write_result
from lm4ve.study.trainings.contents import report_of
from lm4ve.study.trainings.grid_files import load_grid
from lm4ve.study.trainings.samples import SampleLabels, kept_labels, require_equal
from lm4ve.study.trainings.stored import read_grid_study, write_grid_study
from lm4ve.study.trainings.study import GridStudy
from tests.helpers.grids.toy import GRID, TUNE, write_grid

METRIC = 'accuracy/top1'
SAMPLES = 60
LABELS = np.arange(SAMPLES) % 3
TEXT = GRID.replace('toy/error', METRIC).replace('margin = 0.05', 'margin = 1')
TEXT = TEXT.replace('greater_is_better = False', '') + TUNE


# ------------------------------------------------------------------------ one by one
SCORES = torch.tensor([[0.1, 0.7, 0.2], [0.8, 0.1, 0.1], [0.0, float('nan'), 1.0]])
TRUE = (1, 2, 1)


def image_samples():
    DataSample = pytest.importorskip('mmpretrain.structures').DataSample
    for scores, label in zip(SCORES, TRUE, strict=True):
        yield DataSample().set_gt_label(label).set_pred_score(scores)


def video_samples():
    ActionDataSample = pytest.importorskip('mmaction.structures').ActionDataSample
    for scores, label in zip(SCORES, TRUE, strict=True):
        sample = ActionDataSample().set_gt_label(label)
        yield sample.set_pred_score(scores).set_pred_label(scores.argmax())


def cloud_samples():
    from lm4ve.tasks.pointcloud.structures import PointCloudDataSample

    for scores, label in zip(SCORES, TRUE, strict=True):
        yield PointCloudDataSample(gt_label=torch.tensor([label])).set_prediction(
            scores
        )


@pytest.mark.parametrize('make', [image_samples, video_samples, cloud_samples])
def test_the_labels_of_every_host_are_kept(make):
    evaluator = Evaluator(SampleLabels())
    samples = list(make())
    evaluator.process(samples[:2])
    evaluator.process(samples[2:])
    assert evaluator.evaluate(3) == {}
    assert kept_labels(evaluator).tolist() == [[1, 1], [0, 2], [-1, 1]]


@pytest.mark.parametrize(
    'sample',
    [
        0.5,
        dict(gt_label=torch.tensor([1])),
        dict(gt_label=torch.tensor([1, 2]), pred_score=SCORES[0]),
        dict(gt_label=torch.tensor([1]), pred_score=dict(rgb=SCORES[0])),
    ],
)
def test_samples_without_one_label_keep_none(sample):
    evaluator = Evaluator(SampleLabels())
    evaluator.process([dict(gt_label=torch.tensor([1]), pred_score=SCORES[0])])
    evaluator.process([sample])
    evaluator.evaluate(2)
    assert kept_labels(evaluator) is None


def test_labels_that_contradict_the_metric_are_refused():
    labels = torch.tensor([[1, 1], [0, 2], [1, 1]])
    require_equal(labels, METRIC, float(np.float32(200 / 3)))
    with pytest.raises(UserError, match=r'top1 is 33.* give 66.6667 %'):
        require_equal(labels, METRIC, 100 / 3)


# --------------------------------------------------------------------------- studies
def give(wrong: int, labels: np.ndarray = LABELS, start: int = 0) -> Result:
    """The result of a test in which so many samples are wrong, from a first one on."""
    predicted = labels.copy()
    places = np.arange(start, start + wrong) % len(labels)
    predicted[places] = (predicted[places] + 1) % 3
    accuracy = 100 * float((predicted == labels).mean())
    facts = dict(trainable=1, frozen=0, step_seconds=0.1)
    n = len(labels)
    return Result({METRIC: accuracy}, n, n, 1.0, predicted, labels, facts)


@pytest.fixture
def study(tmp_path):
    return GridStudy(load_grid(write_grid(tmp_path, TEXT)), Store(tmp_path / 'jobs'))


def half_over_seeds(scores: np.ndarray) -> float:
    """Half of the 95 % interval that counts seeds alone."""
    return stats.t.ppf(0.975, len(scores) - 1) * stats.sem(scores)


def finish(study: GridStudy, jobs, result_of) -> None:
    """Write the results of jobs, as ``result_of(job)`` gives them."""
    for job in jobs:
        folder = study.store.folder_of(job)
        folder.mkdir(parents=True)
        write_result(result_of(job), folder)


def finish_all(study: GridStudy, test_of) -> None:
    """Write all results; those of tuning are alike."""
    finish(study, study.tuning(), lambda job: give(6))
    finish(study, study.draws(), lambda job: give(6 if job.value == 0.1 else 7))
    finish(study, study.tests(), test_of)


def test_values_that_paired_samples_tell_apart_are_dropped(study):
    # Five samples more are wrong: more than two errors where they are in pairs.
    wrong = {0.01: 25, 0.1: 20}
    finish(study, study.tuning(), lambda job: give(wrong[job.value]))
    assert study.kept() == {'one': [0.1], 'two': [0.1]}


def test_values_with_other_wrong_samples_are_kept(study):
    start = {0.01: 0, 0.1: 30}
    wrong = {0.01: 25, 0.1: 20}
    finish(
        study,
        study.tuning(),
        lambda job: give(wrong[job.value], start=start[job.value]),
    )
    assert study.kept() == {'one': [0.01, 0.1], 'two': [0.01, 0.1]}


def test_comparisons_count_seeds_and_samples(study, tmp_path):
    wrong = {('one', 0): 9, ('one', 1): 8, ('two', 0): 20, ('two', 1): 22}
    finish_all(study, lambda job: give(wrong[job.variant, job.seed]))
    assert write_grid_study(study, 'rule', 'command', tmp_path / 'out')
    stored = read_grid_study(tmp_path / 'out')
    report = report_of(stored)
    (found,) = report.comparisons
    right = {}
    for name in ('one', 'two'):
        rows = [give(wrong[name, seed]) for seed in (0, 1)]
        right[name] = 100.0 * np.stack([r.predicted == r.labels for r in rows])
    chance = 100 / 3
    (expected,) = compare(right, stored.pairs, 1.0, chance=chance)
    assert found == expected
    assert (found.pictures, found.groups, found.seeds) == (SAMPLES, SAMPLES, 2)
    assert found.over_groups > 0
    score = report.scores['two']
    assert score.of_seeds.tolist() == right['two'].mean(1).tolist()
    assert score.half > half_over_seeds(score.of_seeds)
    assert not any('seeds alone' in note for note in report.notes)
    pictures = (tmp_path / 'out/pictures.csv').read_text().splitlines()
    assert len(pictures) == 1 + 2 * SAMPLES


def test_other_samples_of_one_training_leave_seeds_alone(study, tmp_path):
    def of(job):
        return give(9, LABELS[::-1].copy() if job.seed else LABELS)

    finish_all(study, of)
    assert write_grid_study(study, 'rule', 'command', tmp_path / 'out')
    report = report_of(read_grid_study(tmp_path / 'out'))
    assert report.comparisons[0].pictures == 1
    assert any('seeds alone' in note for note in report.notes)
