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


@pytest.mark.parametrize('motion', ['order', 'shift', 'turn'])
@torch.no_grad()
def test_proposals_ignore_order_and_move_with_the_scene(motion):
    """The first point aside, at which sampling begins, and where no ball is cut.

    They rotate where directions are not read: offsets are learned in the room's axes.
    """
    encoder, points = (
        MODELS.build(VOTENET | dict(samples=(POINTS,) * 4, proposal_samples=12)),
        room(),
    )
    encoder.eval()
    turn, shift, places = torch.eye(3), torch.zeros(3), ['seeds', 'votes', 'clusters', 'centers']
    if motion == 'shift':
        shift = torch.tensor([2.0, -1.0, 0.5])
    if motion == 'turn':
        turn, places = torch.linalg.qr(torch.randn(3, 3))[0], ['seeds', 'votes', 'clusters']
        for layer in (*encoder.backbone.abstraction, encoder.aggregation):
            layer.layers[0].linear.weight[:, :3] = 0.0
        encoder.voting.out.weight[:3], encoder.voting.out.bias[:3] = 0.0, 0.0
    before = encoder(points[None])
    moved = torch.cat((points[:, :3] @ turn.T + shift, points[:, 3:]), dim=-1)
    if motion == 'order':
        moved, places = torch.cat((moved[:1], moved[1:].flip(0))), ['clusters', 'centers']
    after = encoder(moved[None])
    torch.testing.assert_close(after.tokens, before.tokens, rtol=1e-4, atol=1e-4)
    for name in places:
        a, b = (getattr(x.detections, name) for x in (after, before))
        torch.testing.assert_close(a, b @ turn.T + shift, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_block_reads_objects_or_all_tokens():
    model = build(neck=True, stored=True).eval()
    inputs = model.data_preprocessor(batch((5, 3), stored=True))['inputs']
    seen = []
    model.neck.register_forward_pre_hook(
        lambda m, x, kw: seen.append((x[0].shape[1], kw['padding_mask'].sum(1).tolist())),
        with_kwargs=True,
    )
    objects = model(inputs)
    model.tokens = 'joint'
    joint = model(inputs)
    words = [inputs[f'{k}_padding'] for k in ('situation', 'question')]
    assert seen[0] == (5, [0, 2])
    assert seen[1][0] == 5 + sum(x.shape[1] for x in words)
    assert seen[1][1][0] == sum(int(x[0].sum()) for x in words)
    assert not torch.allclose(objects, joint)


@torch.no_grad()
def test_a_scene_without_objects_is_answered():
    model = build(neck=True).eval()
    model.object_encoder.head.out.bias[0] += 1000
    for tokens in ('visual', 'joint'):
        model.tokens = tokens
        assert torch.isfinite(run(model, batch())).all()


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
    assert model.head.vocabulary == ['chair', 'left', 'table', 'two']
    for s in run(model, batch(), 'predict'):
        assert s.pred_answer == model.head.vocabulary[int(s.pred_scores.argmax())]
        assert s.pred_pose.shape == (7,) and s.pred_boxes.shape == (6, 7)
        assert s.pred_box_scores.shape == s.pred_box_labels.shape == (6,)
    found = model.encode_objects(dict(points=room()[None], points_padding=None)).detections
    found.size_scores[0, 0] = torch.tensor([0.0, 1.0, 0.0])
    found.size_residuals[0, 0, 1] = torch.tensor([0.5, 0.0, -0.5])
    boxes, _, _ = model.object_encoder.head.boxes(found)
    expected = torch.tensor(SIZES[1]) * torch.tensor([1.5, 1.0, 0.5])
    torch.testing.assert_close(boxes[0, 0, :6], torch.cat((found.centers[0, 0], expected)))
    stored = build(stored=True, pose_head=None).eval()
    found = run(stored, batch((3, 2), stored=True), 'predict')
    assert 'pred_boxes' not in found[0] and 'pred_pose' not in found[0]


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
    encoder = dict(
        type='lm4ve.TransformersTextEncoder', config=TEXT | dict(max_position_embeddings=120)
    )
    preprocessor = dict(type='lm4ve.SQA3DPreprocessor', tokenizer=tokenizer)
    changes = dict(stored=True, text_encoder=encoder)
    model = build(**changes, data_preprocessor=preprocessor).eval()
    data = batch((3, 5), stored=True, text=['the cat sits', 'what color is the dog'])
    together = run(model, copy.deepcopy(data))
    torch.testing.assert_close(run(model, one_of(data, 0))[0], together[0], rtol=1e-5, atol=1e-5)
    model.data_preprocessor.use_situation = False
    inputs = model.data_preprocessor(data)['inputs']
    assert inputs['situation'].tolist() == [[0, 3, 3, 3, 2]] * 2
    with pytest.raises(REFUSED):
        run(build(**changes), data)


HEAD = dict(type='lm4ve.SceneAnswerHead', in_channels=36, hidden_channels=16)


@pytest.mark.parametrize(
    ('changes', 'data'),
    [
        (dict(tokens='text'), batch()),
        (dict(object_encoder=VOTENET | dict(num_proposals=13)), batch()),
        (dict(object_encoder=VOTENET | dict(radii=(1.0,))), batch()),
        (dict(object_encoder=VOTENET | dict(mean_sizes=[])), batch()),
        (dict(object_encoder=VOTENET | dict(in_channels=2)), batch()),
        (dict(object_encoder=STORED | dict(in_channels=5)), batch((3, 3), stored=True)),
        (dict(stored=True), batch()),
        (dict(fusion=dict(type='lm4ve.GuidedFusion', embed_dims=16, num_heads=3)), batch()),
        (dict(fusion=dict(type='lm4ve.GuidedFusion', norm='x')), batch()),
        (dict(loss_weights=dict(votes=1)), batch()),
        (dict(head=HEAD | dict(answers=CORPUS, in_channels=24)), batch()),
        (dict(head=HEAD | dict(answers=[1])), batch()),
        (dict(text_encoder=dict(type='lm4ve.LSTMTextEncoder')), batch()),
        (dict(data_preprocessor=dict(type='lm4ve.SQA3DPreprocessor')), batch()),
    ],
    ids=range(14),
)
def test_parts_that_do_not_fit_are_refused(changes, data):
    with pytest.raises(REFUSED):
        run(build(**changes), data, 'predict')


def test_a_checkpoint_of_other_answers_is_refused():
    other = build(stored=True, head=HEAD | dict(answers=['a', 'b', 'c', 'd']))
    with pytest.raises(REFUSED):
        other.load_state_dict(build(stored=True).state_dict())
