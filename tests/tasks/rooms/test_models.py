"""SQA3D on tiny rooms: what must change nothing, what must move, losses by hand, and refusals."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS

from lm4ve.errors import CheckpointError
from lm4ve.tasks.rooms.models.fusion import MCANNorm
from lm4ve.tasks.rooms.models.heads import SceneAnswerHead
from lm4ve.tasks.rooms.models.objects import (
    Detections,
    Targets,
    detection_losses,
    gather_targets,
)
from lm4ve.tasks.rooms.models.votenet import point_layers
from lm4ve.text.structures import VisionLanguageDataSample
from tests.helpers.closeness import assert_equal_but_for_rounding
from tests.helpers.rooms.tiny import (
    CORPUS,
    POINTS,
    SIZES,
    VOTENET,
    batch,
    build,
    config,
    room,
)
from tests.helpers.vqa.tiny import TEXT, run, write_tokenizer


def one_of(data, i):
    """A batch of one of the samples."""
    (kind,) = data['inputs']
    inputs = {kind: data['inputs'][kind][i : i + 1]}
    return dict(inputs=inputs, data_samples=data['data_samples'][i : i + 1])


def assert_alone_equals_together(model, data):
    together = run(model, copy.deepcopy(data))
    for i in range(2):
        found = run(model, one_of(data, i))[0]
        assert_equal_but_for_rounding(found, together[i], model)


@pytest.mark.parametrize('tokens', ['visual', 'joint'])
@pytest.mark.parametrize('stored', [False, True])
@torch.no_grad()
def test_padding_changes_nothing(tokens, stored):
    """Of points, of objects, of words."""
    model = build(neck=True, stored=stored, tokens=tokens).eval()
    assert_alone_equals_together(model, batch((POINTS, POINTS - 15), stored))


@pytest.mark.parametrize('motion', ['order', 'shift', 'turn'])
@torch.no_grad()
def test_proposals_ignore_order_and_move_with_the_scene(motion):
    """The first point aside, at which sampling begins, and where no ball is cut.

    They rotate where directions are not read: offsets are learned in the room's axes.
    """
    encoder = MODELS.build(
        VOTENET | dict(samples=(POINTS,) * 4, proposal_samples=12)
    ).eval()
    points = room()
    turn, shift, places = (
        torch.eye(3),
        torch.zeros(3),
        ['seeds', 'votes', 'clusters', 'centers'],
    )
    if motion == 'shift':
        shift = torch.tensor([2.0, -1.0, 0.5])
    if motion == 'turn':
        turn, places = (
            torch.linalg.qr(torch.randn(3, 3))[0],
            ['seeds', 'votes', 'clusters'],
        )
        for layer in (*encoder.backbone.abstraction, encoder.aggregation):
            layer.layers[0].linear.weight[:, :3] = 0.0
        encoder.voting.out.weight[:3], encoder.voting.out.bias[:3] = 0.0, 0.0
    before = encoder(points[None])
    moved = torch.cat((points[:, :3] @ turn.T + shift, points[:, 3:]), dim=-1)
    if motion == 'order':
        moved, places = (
            torch.cat((moved[:1], moved[1:].flip(0))),
            ['clusters', 'centers'],
        )
    after = encoder(moved[None])
    torch.testing.assert_close(after.tokens, before.tokens, rtol=1e-4, atol=1e-4)
    for name in places:
        a, b = (getattr(x.detections, name) for x in (after, before))
        torch.testing.assert_close(a, b @ turn.T + shift, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_scene_without_objects_is_answered():
    model = build(neck=True).eval()
    model.object_encoder.head.out.bias[0] += 1000
    for tokens in ('visual', 'joint'):
        model.tokens = tokens
        assert torch.isfinite(run(model, batch())).all()


@torch.no_grad()
def test_predictions_have_answer_pose_and_boxes():
    model, data = build().eval(), batch()
    assert model.head.vocabulary == ['chair', 'left', 'table', 'two']
    found = model.encode_objects(model.data_preprocessor(data)['inputs']).detections
    for i, s in enumerate(run(model, data, 'predict')):
        assert s.pred_answer == model.head.vocabulary[int(s.pred_scores.argmax())]
        size = found.size_scores[i].argmax(-1)
        residual = found.size_residuals[i][range(6), size]
        expected = torch.tensor(SIZES)[size] * (1 + residual)
        torch.testing.assert_close(
            s.pred_boxes[:, :6], torch.hstack((found.centers[i], expected))
        )
        assert s.pred_pose.shape == s.pred_boxes[0].shape == (7,)
        assert s.pred_box_scores.shape == s.pred_box_labels.shape == (6,)
    stored = build(stored=True, pose_head=None).eval()
    (found, _) = run(stored, batch((3, 2), stored=True), 'predict')
    assert 'pred_boxes' not in found and 'pred_pose' not in found


@torch.no_grad()
def test_batch_statistics_of_many_points_are_exact():
    """Summed row by row, those of 262,144 are off by 4e-5."""
    layers, normed = point_layers(3, (4, 4)), []
    for layer in layers:
        layer.norm.register_forward_hook(
            lambda _, args, out: normed.append((args[0], out))
        )
    layers(torch.rand(1, 2**18, 3) * 3 + 3)
    for x, found in normed:
        expected = F.batch_norm(x.double(), None, None, training=True)
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=5e-6)


def test_mcan_norm_has_a_gradient_at_zero():
    zero = torch.zeros(1, 6, requires_grad=True)
    MCANNorm(6)(zero).sum().backward()
    assert torch.isfinite(zero.grad).all()


@torch.no_grad()
def test_a_transformers_text_encoder_replaces_the_lstm(tmp_path):
    tokenizer = write_tokenizer(tmp_path)
    text = TEXT | dict(max_position_embeddings=120)
    encoder = dict(type='lm4ve.TransformersTextEncoder', config=text)
    preprocessor = dict(type='lm4ve.SQA3DPreprocessor', tokenizer=tokenizer)
    changes = dict(stored=True, text_encoder=encoder)
    model = build(**changes, data_preprocessor=preprocessor).eval()
    data = batch((3, 5), stored=True, text=['the cat sits', 'what color is the dog'])
    assert_alone_equals_together(model, data)
    model.data_preprocessor.use_situation = False
    inputs = model.data_preprocessor(data)['inputs']
    assert inputs['situation'].tolist() == [[0, 3, 3, 3, 2]] * 2
    with pytest.raises((ValueError, TypeError, RuntimeError)):  # whoever notices
        run(build(**changes), data)


def test_a_checkpoint_of_other_answers_is_refused():
    other = build(
        stored=True, head=config()['head'] | dict(answers=['a', 'b', 'c', 'd'])
    )
    with pytest.raises(CheckpointError, match='another vocabulary'):
        other.load_state_dict(build(stored=True).state_dict())


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


def test_detection_losses_equal_a_case_by_hand():
    losses = detection_losses(*case(), torch.tensor(SIZES))
    # From the only object to its box, and from each box to the nearest proposal.
    center = 0.1**2 + (0.1**2 + 3.4**2) / 2
    heading = 0.5 * 0.2**2
    size_class = math.log(2 + math.e) - 1
    size = (0.5 * 0.3**2 + 0.0 + (2.0 - 0.5)) / 3
    expected = dict(
        # Seed 0 votes half a meter short in x and half a meter aside; seed 1 is on no
        # object.
        vote=0.5 + 0.5,
        # Proposal 0 is an object, 1 (half a meter off) is not counted, and 2, beside
        # the padding, is none.
        objectness=(0.8 + 0.2) * math.log1p(math.exp(-1)) / 2,
        semantic=math.log(2 + math.exp(2)) - 2,
        box=center + heading + 0.1 * size_class + size,
    )
    assert {k: float(v) for k, v in losses.items()} == pytest.approx(expected, abs=1e-5)


def test_annotations_are_picked_at_the_seeds():
    samples = batch()['data_samples']
    targets = gather_targets(samples, torch.tensor([[3, 0], [1, 39]]))
    assert torch.equal(targets.votes[1, 0], samples[1].gt_votes[1])
    assert targets.votes_mask.tolist() == [[True, True], [True, False]]


def test_scenes_without_boxes_have_a_loss():
    data = batch()
    for each in data['data_samples']:
        each.gt_boxes = each.gt_boxes[:0]
        each.gt_labels = each.gt_labels[:0]
    losses = run(build(), data, 'loss')
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert losses['loss_semantic'] == 0


@pytest.mark.parametrize('targets', ['soft', 'hard'])
def test_soft_targets_follow_the_count_in_the_corpus(targets):
    head = SceneAnswerHead(
        CORPUS, in_channels=6, hidden_channels=4, targets=targets
    ).eval()
    features = torch.randn(2, 6)
    answers = [['two'], ['table', 'nobody']]  # two times and three times; unknown
    samples = [VisionLanguageDataSample(metainfo=dict(gt_answers=a)) for a in answers]
    wanted = torch.zeros(2, 4)
    wanted[0, 3], wanted[1, 2] = (0.6, 0.9) if targets == 'soft' else (1.0, 1.0)
    logits = head(features)
    expected = (
        -(wanted * F.logsigmoid(logits) + (1 - wanted) * F.logsigmoid(-logits)).sum()
        / 2
    )
    torch.testing.assert_close(head.loss(features, samples)['answer'], expected)


def test_the_poses_loss_is_two_mean_squared_errors():
    model, data = build().eval(), batch()
    found = run(model, data, 'loss')
    poses = torch.stack([s.pred_pose for s in run(model, data, 'predict')])
    errors = (poses - data['data_samples'][0].gt_pose).square()
    torch.testing.assert_close(
        found['loss_pose'], errors[:, :3].mean() + errors[:, 3:].mean()
    )
    # The release's weights, ten times.
    weights = dict(vote=10, objectness=5, box=10, semantic=1, pose=1, answer=1)
    assert model.loss_weights == weights and found.keys() == {
        f'loss_{k}' for k in weights
    }
