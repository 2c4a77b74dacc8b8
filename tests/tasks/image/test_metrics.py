"""Metrics of the ImageNet variants against values worked out by hand."""

import pytest

pytest.importorskip('mmpretrain')


import torch
from mmengine.evaluator import Evaluator
from mmpretrain.structures import DataSample

from lm4ve.errors import UserError
from lm4ve.tasks.image import CorruptionAccuracy, SubsetAccuracy
from lm4ve.tasks.image.datasets.imagenet_variants import CORRUPTIONS, SEVERITIES
from lm4ve.tasks.image.metrics import ALEXNET_ERRORS


def scored(label: int, scores, **meta) -> DataSample:
    sample = DataSample(metainfo=meta).set_gt_label(label)
    return sample.set_pred_score(torch.tensor(scores))


def answered(corruption: str, severity: int, right: bool) -> DataSample:
    return scored(1, [0.1, 0.9] if right else [0.9, 0.1], corruption=corruption, severity=severity)


def evaluate(metric, samples, meta=None, batch: int = 2) -> dict:
    evaluator = Evaluator([metric])
    evaluator.dataset_meta = meta or {}
    for i in range(0, len(samples), batch):
        evaluator.process(samples[i : i + batch])
    return evaluator.evaluate(len(samples))


# --------------------------------------------------------------------- subset
# Classes 1, 3 and 4 of six.
SUBSET = [
    scored(1, [0.50, 0.20, 0.20, 0.05, 0.04, 0.01]),  # 0 is best, 1 of the subset
    scored(3, [0.00, 0.30, 0.10, 0.25, 0.05, 0.30]),  # second of the subset
    scored(4, [0.40, 0.20, 0.30, 0.06, 0.04, 0.00]),  # last of the subset
    scored(3, [0.00, 1e-9, 0.50, 3e-9, 2e-9, 0.50]),  # best of tiny scores
]


def test_subset_excludes_other_classes():
    metrics = evaluate(SubsetAccuracy(topk=(1, 2)), SUBSET, dict(subset=[1, 3, 4]))
    assert metrics['accuracy/top1'] == pytest.approx(50.0)
    assert metrics['accuracy/top2'] == pytest.approx(75.0)


@pytest.mark.parametrize(
    'indices, error', [(None, UserError), ([1, 3, 4, 9], IndexError), ([0, 2], UserError)]
)
def test_unsuitable_subset_raises(indices, error):
    with pytest.raises(error):
        evaluate(SubsetAccuracy(indices=indices), SUBSET)


# ----------------------------------------------------------------- corruption
def test_groups_have_equal_weight():
    samples = (
        # fog: 100 % of one image and 25 % of four; snow: 50 % of two, 0 of one.
        [answered('fog', 1, True)]
        + [answered('fog', 2, i == 0) for i in range(4)]
        + [answered('snow', 1, i == 0) for i in range(2)]
        + [answered('snow', 2, False)]
    )
    meta = dict(corruptions=('fog', 'snow'), severities=(1, 2))
    metrics = evaluate(CorruptionAccuracy(), samples, meta)
    with pytest.raises(UserError, match='snow/2'):
        evaluate(CorruptionAccuracy(), samples[:-1], meta)
    assert metrics == {
        'accuracy/fog': pytest.approx((100 + 25) / 2),
        'accuracy/snow': pytest.approx((50 + 0) / 2),
        'accuracy/top1': pytest.approx((100 + 25 + 50 + 0) / 4),
    }


def test_mce_needs_the_whole_benchmark():
    # Severities 1 to 4 are right, 5 is wrong: an error of 20 % everywhere.
    samples = [answered(c, s, s < 5) for c in CORRUPTIONS for s in SEVERITIES]
    metrics = evaluate(CorruptionAccuracy(), samples)
    assert metrics['accuracy/top1'] == pytest.approx(80.0)
    expected = sum(20 / e for e in ALEXNET_ERRORS.values()) / 15 * 100
    assert metrics['accuracy/mCE'] == pytest.approx(expected)
    assert 'accuracy/mCE' not in evaluate(CorruptionAccuracy(), samples[1:])
