"""SQA3D on tiny rooms: what must change nothing, what must move, and what is refused."""

import copy

import pytest
import torch
from mmengine.registry import MODELS

from lm4ve.blocks.frozen import frozen_tensors
from lm4ve.tasks.rooms.models.fusion import MCANNorm
from lm4ve.tasks.rooms.models.model import LOSS_WEIGHTS
from tests.tasks.rooms import tiny
from tests.tasks.rooms.tiny import CORPUS, POINTS, SIZES, STORED, VOTENET, batch, build, room, run
from tests.tasks.vqa.tiny import TEXT, write_tokenizer

#: The error of whoever notices.
REFUSED = (ValueError, LookupError, TypeError, RuntimeError, OSError)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def sharp(**changes):
    """A VoteNet in evaluation, whose balls hold every point that is near."""
    return MODELS.build(VOTENET | dict(samples=(POINTS,) * 4, proposal_samples=12) | changes).eval()


def one_of(data, i):
    """A batch of one of the samples."""
    (kind,) = data['inputs']
    inputs = {kind: data['inputs'][kind][i : i + 1]}
    return dict(inputs=inputs, data_samples=data['data_samples'][i : i + 1])


@pytest.mark.parametrize('tokens', ['visual', 'joint'])
@pytest.mark.parametrize('stored', [False, True])
@torch.no_grad()
def test_padding_changes_nothing(tokens, stored):
    """Of points, of objects, of words."""
    model = build(neck=True, stored=stored, tokens=tokens).eval()
    data = batch((POINTS, POINTS - 15), stored)
    together = run(model, copy.deepcopy(data))
    for i in range(2):
        torch.testing.assert_close(
            run(model, one_of(data, i))[0], together[i], rtol=1e-5, atol=1e-5
        )


def compare(after, before, names, turn=None, shift=0.0):
    """Tokens are equal, and places are moved."""
    torch.testing.assert_close(after.tokens, before.tokens, rtol=1e-4, atol=1e-4)
    for name in names:
        a, b = (getattr(x.detections, name) for x in (after, before))
        b = b + shift if turn is None else b @ turn.T
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_proposals_ignore_order_and_move_with_the_scene():
    """The first point aside, at which sampling begins, and where no ball is cut."""
    encoder, points = sharp(), room()[None]
    before, shift = encoder(points), torch.tensor([2.0, -1.0, 0.5])
    order = torch.cat((torch.zeros(1, dtype=torch.int64), torch.randperm(POINTS - 1) + 1))
    compare(encoder(points[:, order]), before, ['centers'])
    moved = points.clone()
    moved[..., :3] += shift
    compare(encoder(moved), before, ['seeds', 'votes', 'clusters', 'centers'], shift=shift)


@torch.no_grad()
def test_proposals_rotate_where_directions_are_not_read():
    """Sampling and grouping rotate along; offsets are learned in the room's axes."""
    encoder, points = sharp(), room()[None]
    for layer in (*encoder.backbone.abstraction, encoder.aggregation):
        layer.layers[0].linear.weight[:, :3] = 0.0
    encoder.voting.out.weight[:3], encoder.voting.out.bias[:3] = 0.0, 0.0
    before, angle = encoder(points), torch.tensor(0.7)
    turn = torch.tensor([[angle.cos(), -angle.sin(), 0], [angle.sin(), angle.cos(), 0], [0, 0, 1]])
    after = encoder(torch.cat((points[..., :3] @ turn.T, points[..., 3:]), dim=-1))
    assert torch.equal(after.detections.seed_index, before.detections.seed_index)
    compare(after, before, ['seeds', 'votes', 'clusters'], turn)


@torch.no_grad()
def test_the_block_reads_objects_or_all_tokens():
    model = build(neck=True, stored=True).eval()
    data = model.data_preprocessor(batch((5, 3), stored=True))
    seen = []
    model.neck.register_forward_pre_hook(
        lambda m, x, kw: seen.append((x[0].shape[1], kw['padding_mask'].sum(1).tolist())),
        with_kwargs=True,
    )
    objects = model(data['inputs'])
    model.tokens = 'joint'
    joint = model(data['inputs'])
    words = sum(data['inputs'][k].shape[1] for k in ('situation', 'question'))
    missing = [int(data['inputs'][f'{k}_padding'][0].sum()) for k in ('situation', 'question')]
    assert seen[0] == (5, [0, 2])
    assert seen[1][0] == 5 + words and seen[1][1][0] == sum(missing)
    assert not torch.allclose(objects, joint)


@torch.no_grad()
def test_a_scene_without_objects_is_answered():
    model = build(neck=True).eval()
    model.object_encoder.head.out.bias[0] += 1000
    for tokens in ('visual', 'joint'):
        model.tokens = tokens
        assert torch.isfinite(run(model, batch())).all()
    kept = build(object_encoder=VOTENET | dict(mask_objects=False)).eval()
    kept.object_encoder.head.out.bias[0] += 1000
    objects = kept.encode_objects(kept.data_preprocessor(batch())['inputs'])
    assert not objects.padding.any()


@torch.no_grad()
def test_answers_depend_on_inputs_but_not_on_order():
    model = build(stored=True).eval()
    before = run(model, batch((4, 4), stored=True))
    for text in ([tiny.TEXTS[0][0], 'what is left?'], ['I am left.', tiny.TEXTS[0][1]]):
        assert not torch.allclose(run(model, batch((4, 4), stored=True, text=text)), before)
    other = batch((4, 4), stored=True)
    other['inputs']['objects'][0] = other['inputs']['objects'][0].flip(0)
    torch.testing.assert_close(run(model, other), before, rtol=1e-5, atol=1e-5)
    other['inputs']['objects'][0][0] += 1
    assert not torch.allclose(run(model, other)[0], before[0])


def test_a_step_trains_all_but_the_frozen_block():
    model = build(neck=True)
    frozen = [x.clone() for x in frozen_tensors(model).values()]
    losses = run(model, batch(), 'loss')
    assert set(losses) == {f'loss_{k}' for k in LOSS_WEIGHTS}
    sum(losses.values()).backward()
    torch.optim.SGD(model.parameters(), 0.01).step()
    assert all(p.grad is not None and torch.isfinite(p).all() for p in model.parameters())
    after = list(frozen_tensors(model).values())
    assert frozen and all(torch.equal(a, b) for a, b in zip(frozen, after, strict=True))


@torch.no_grad()
def test_predictions_have_answer_pose_and_boxes():
    model = build().eval()
    found = run(model, batch(), 'predict')
    assert model.head.vocabulary == ['chair', 'left', 'table', 'two']
    for s in found:
        assert s.pred_answer == model.head.vocabulary[int(s.pred_scores.argmax())]
        assert s.pred_pose.shape == (7,) and s.pred_boxes.shape == (6, 7)
        assert s.pred_box_scores.shape == s.pred_box_labels.shape == (6,)
    stored = build(stored=True, pose_head=None).eval()
    found = run(stored, batch((3, 2), stored=True), 'predict')
    assert 'pred_boxes' not in found[0] and 'pred_pose' not in found[0]


@torch.no_grad()
def test_boxes_are_decoded_from_the_best_classes():
    head = build().object_encoder.head
    found = build().eval().encode_objects(dict(points=room()[None], points_padding=None)).detections
    found.size_scores[0, 0] = torch.tensor([0.0, 1.0, 0.0])
    found.size_residuals[0, 0, 1] = torch.tensor([0.5, 0.0, -0.5])
    boxes, _, _ = head.boxes(found)
    expected = torch.tensor(SIZES[1]) * torch.tensor([1.5, 1.0, 0.5])
    torch.testing.assert_close(boxes[0, 0, 3:6], expected)
    torch.testing.assert_close(boxes[0, 0, :3], found.centers[0, 0])


def test_mcan_norm_equals_its_definition():
    norm, x = MCANNorm(6), torch.randn(4, 6)
    torch.nn.init.normal_(norm.a_2)
    torch.nn.init.normal_(norm.b_2)
    expected = norm.a_2 * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6)
    torch.testing.assert_close(norm(x), expected + norm.b_2)
    zero = torch.zeros(1, 6, requires_grad=True)
    norm(zero).sum().backward()
    assert torch.isfinite(zero.grad).all()


@torch.no_grad()
def test_a_transformers_text_encoder_replaces_the_lstm(tmp_path):
    tokenizer = write_tokenizer(tmp_path)
    config = TEXT | dict(max_position_embeddings=120)
    encoder = dict(type='lm4ve.TransformersTextEncoder', config=config)
    preprocessor = dict(type='lm4ve.SQA3DPreprocessor', tokenizer=tokenizer)
    changes = dict(stored=True, data_preprocessor=preprocessor, text_encoder=encoder)
    model = build(**changes).eval()
    data = batch((3, 5), stored=True, text=['the cat sits', 'what color is the dog'])
    together = run(model, copy.deepcopy(data))
    torch.testing.assert_close(run(model, one_of(data, 0))[0], together[0], rtol=1e-5, atol=1e-5)
    hidden = build(**changes).data_preprocessor
    hidden.use_situation = False
    inputs = hidden(data)['inputs']
    assert inputs['situation'].tolist() == [[0, 3, 3, 3, 2]] * 2
    changes['data_preprocessor'] = dict(type='lm4ve.SQA3DPreprocessor', word_vectors=tiny.VECTORS)
    with pytest.raises(REFUSED):
        build(**changes)


@pytest.mark.parametrize(
    'changes',
    [
        dict(tokens='text'),
        dict(object_encoder=VOTENET | dict(num_proposals=13)),
        dict(object_encoder=VOTENET | dict(radii=(1.0,))),
        dict(object_encoder=VOTENET | dict(mean_sizes=[])),
        dict(object_encoder=VOTENET | dict(mean_sizes='no.npz')),
        dict(fusion=dict(type='lm4ve.GuidedFusion', embed_dims=16, num_heads=3)),
        dict(fusion=dict(type='lm4ve.GuidedFusion', norm='x')),
        dict(loss_weights=dict(votes=1)),
        dict(head=dict(type='lm4ve.SceneAnswerHead', answers=CORPUS)),
        dict(head=dict(type='lm4ve.SceneAnswerHead', answers=[1])),
        dict(text_encoder=dict(type='lm4ve.LSTMTextEncoder')),
        dict(data_preprocessor=dict(type='lm4ve.SQA3DPreprocessor')),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes):
    with pytest.raises(REFUSED):
        build(**changes)


@pytest.mark.parametrize(
    ('changes', 'data'),
    [
        (dict(stored=True), batch()),
        (dict(object_encoder=STORED | dict(in_channels=5)), batch((3, 3), stored=True)),
        (dict(), batch((POINTS, 15))),
        (dict(object_encoder=VOTENET | dict(in_channels=2)), batch()),
    ],
)
def test_inputs_that_no_part_reads_are_refused(changes, data):
    model = build(**changes)
    with pytest.raises(REFUSED):
        run(model, data)


def test_a_checkpoint_of_other_answers_is_refused():
    state = build(stored=True).state_dict()
    other = build(stored=True, head=dict(type='lm4ve.SceneAnswerHead', answers=['a', 'b', 'c', 'd'],
                                         in_channels=36, hidden_channels=16))  # fmt: skip
    with pytest.raises(REFUSED):
        other.load_state_dict(state)
