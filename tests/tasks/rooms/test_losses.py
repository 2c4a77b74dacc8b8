"""Losses equal cases that are worked out by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from lm4ve.tasks.base.language.structures import VisionLanguageDataSample
from lm4ve.tasks.rooms.models.heads import SceneAnswerHead
from lm4ve.tasks.rooms.models.objects import Detections, Targets, detection_losses, gather_targets
from tests.tasks.rooms.tiny import CORPUS, SIZES, batch, build, run

MEANS = torch.tensor(SIZES)


def case():
    """Two boxes and padding at the origin; proposals at a box, between, and at the padding."""
    clusters = torch.tensor([[[1.0, 0, 0], [1.5, 0, 0], [0.05, 0, 0]]])
    found = Detections(
        clusters=clusters,
        objectness=torch.tensor([[[0.0, 1], [2, 0], [1, 0]]]),
        centers=clusters + torch.tensor([0.1, 0, 0]),
        headings=torch.tensor([[0.2, 9, 9]]),
        size_scores=torch.tensor([[[0.0, 1, 0], [0, 0, 0], [0, 0, 0]]]),
        size_residuals=torch.full((1, 3, 3, 3), 9.0),
        semantic_scores=torch.tensor([[[0.0, 2, 0], [0, 0, 0], [0, 0, 0]]]),
        seeds=torch.tensor([[[0.0, 0, 0], [1, 1, 1]]]),
        votes=torch.tensor([[[0.5, -0.5, 0], [7, 7, 7]]]),
        seed_index=torch.tensor([[0, 1]]),
    )
    found.size_residuals[0, 0, 1] = torch.tensor([0.3, 0.0, 2.0])
    size = [1.0, 1.1, 1.2]
    targets = Targets(
        votes=torch.tensor([[[1.0, 0, 0], [0, 0, 0]]]),
        votes_mask=torch.tensor([[True, False]]),
        boxes=torch.tensor([[[1.0, 0, 0, *size], [5.0, 0, 0, *size], [0.0] * 6]]),
        labels=torch.tensor([[1, 1, 0]]),
        there=torch.tensor([[True, True, False]]),
    )
    return found, targets


def softplus(x):
    return math.log1p(math.exp(x))


def test_detection_losses_equal_a_case_by_hand():
    losses = detection_losses(*case(), MEANS)
    # From the only object to its box, and from each box to the nearest proposal.
    center = 0.1**2 + (0.1**2 + 3.4**2) / 2
    heading = 0.5 * 0.2**2
    size_class = math.log(2 + math.e) - 1
    size = (0.5 * 0.3**2 + 0.0 + (2.0 - 0.5)) / 3
    expected = dict(
        # Seed 0 votes half a meter short in x and half a meter aside; seed 1 is on no object.
        vote=0.5 + 0.5,
        # Proposal 0 is an object, 1 (half a meter off) is not counted, and 2, beside the
        # padding, is none.
        objectness=(0.8 * softplus(-1.0) + 0.2 * softplus(-1.0)) / 2,
        semantic=math.log(2 + math.exp(2)) - 2,
        box=center + heading + 0.1 * size_class + size,
    )
    assert {k: float(v) for k, v in losses.items()} == pytest.approx(expected, abs=1e-5)


def test_annotations_are_picked_at_the_seeds():
    samples = batch()['data_samples']
    targets = gather_targets(samples, torch.tensor([[3, 0], [1, 39]]))
    assert torch.equal(targets.votes[1, 0], samples[1].gt_votes[1])
    assert targets.votes_mask.tolist() == [[True, True], [True, False]]


@pytest.mark.parametrize('targets', ['soft', 'hard'])
def test_soft_targets_follow_the_count_in_the_corpus(targets):
    head = SceneAnswerHead(CORPUS, in_channels=6, hidden_channels=4, targets=targets).eval()
    features = torch.randn(2, 6)
    answers = [['two'], ['table', 'nobody']]  # two times and three times; unknown
    samples = [VisionLanguageDataSample(metainfo=dict(gt_answers=a)) for a in answers]
    wanted = torch.zeros(2, 4)
    wanted[0, 3], wanted[1, 2] = (0.6, 0.9) if targets == 'soft' else (1.0, 1.0)
    logits = head(features)
    expected = -(wanted * F.logsigmoid(logits) + (1 - wanted) * F.logsigmoid(-logits)).sum() / 2
    torch.testing.assert_close(head.loss(features, samples)['answer'], expected)


def test_the_poses_loss_is_two_mean_squared_errors():
    model, data = build().eval(), batch()
    found = run(model, data, 'loss')
    sum(found.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    poses = torch.stack([s.pred_pose for s in run(model, data, 'predict')])
    errors = (poses - data['data_samples'][0].gt_pose).square()
    torch.testing.assert_close(found['loss_pose'], errors[:, :3].mean() + errors[:, 3:].mean())
    # The release's weights, ten times.
    weights = dict(vote=10, objectness=5, box=10, semantic=1, pose=1, answer=1)
    assert model.loss_weights == weights and found.keys() == {f'loss_{k}' for k in weights}
