"""Models: equivariance, padding, queries, losses."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lm4ve.errors import UserError
from lm4ve.registry import MODELS
from lm4ve.tasks.motion import VectorizeScene, collate_scenes
from lm4ve.tasks.motion.models import losses as losses_of
from lm4ve.tasks.motion.models.regions import Regions, select_apart
from lm4ve.tasks.motion.region_clusters import equal_clusters
from lm4ve.tasks.motion.structures import rotation
from tests.helpers.closeness import assert_equal_but_for_rounding
from tests.helpers.models import neck
from tests.helpers.motion.moving import moved

NECK = neck(16)
VECTORNET = dict(encoder=dict(type='lm4ve.VectorNet', channels=(4, 8)))
VECTORNET['decoder'] = dict(
    type='lm4ve.TrajectoryDecoder', in_channels=16, future_steps=30
)
SIZES = dict(channels=16, feedforward=24)
MMTRANSFORMER = dict(
    encoder=dict(type='lm4ve.MMTransformer', **SIZES),
    decoder=dict(type='lm4ve.ProposalDecoder', future_steps=30, **SIZES),
)
PAPER = dict(
    encoder=dict(MMTRANSFORMER['encoder'], query_position=True, num_proposals=12),
    decoder=dict(
        MMTRANSFORMER['decoder'], social_decoder_layers=4, regions='fan', select=6
    ),
)


MODELS_OF = {
    'vectornet': (VECTORNET, None),
    'vectornet-llm': (VECTORNET, NECK),
    'mmtransformer': (MMTRANSFORMER, None),
    'mmtransformer-llm': (MMTRANSFORMER, NECK),
    'mmtransformer-paper': (PAPER, None),
}


@pytest.fixture(scope='module', params=MODELS_OF)
def model(request):
    parts, block = MODELS_OF[request.param]
    torch.manual_seed(0)
    model = MODELS.build(dict(type='lm4ve.MotionForecaster', neck=block, **parts))
    model.init_weights()
    return model.eval()


def batch(scenes, **options):
    vectorize = VectorizeScene(**options)
    return collate_scenes([vectorize(dict(scene=s)) for s in scenes])


@torch.no_grad()
def predict(model, scenes, **options):
    return model.test_step(batch(scenes, **options))


def test_predictions_turn_and_shift_with_the_world(model, scenes):
    angle, shift = 0.83, np.array([250.0, -930.0])
    new_world = [moved(scene, angle, shift) for scene in scenes]
    for old, new in zip(predict(model, scenes), predict(model, new_world), strict=True):
        expected = old['trajectories'] @ rotation(angle).T + shift
        assert np.abs(new['trajectories'] - expected).max() < 1e-4
        np.testing.assert_allclose(
            new['probabilities'], old['probabilities'], atol=1e-5
        )
        assert np.abs(old['trajectories'] - new['trajectories']).max() > 100


def test_padding_changes_nothing(model, scenes):
    inputs = batch(scenes)['inputs']
    for key, mask in (('agents', 'agent_padding'), ('lanes', 'lane_padding')):
        assert len(set((~inputs[mask]).sum(1).tolist())) > 1
        noise = torch.randn_like(inputs[key]) * 30
        inputs[key] = torch.where(inputs[mask][..., None, None], noise, inputs[key])
    with torch.no_grad():
        lines, scores = model(inputs)
        for i, scene in enumerate(scenes):
            alone, score = model(batch([scene])['inputs'])
            assert_equal_but_for_rounding(lines[i], alone[0], model)
            assert_equal_but_for_rounding(scores[i], score[0], model)


def test_lonely_agent_without_lanes_gets_forecast(model, scenes):
    scene = scenes[0]
    lonely = dataclasses.replace(
        scene,
        positions=scene.positions[[scene.focal]],
        valid=scene.valid[[scene.focal]],
        lanes=scene.lanes[:0],
        lane_attributes=scene.lane_attributes[:0],
        track_ids=['a'],
        focal=0,
    )
    (alone,) = predict(model, [lonely])
    together, *_ = predict(model, [lonely, *scenes[1:3]])
    assert np.isfinite(alone['trajectories']).all()
    np.testing.assert_allclose(
        alone['trajectories'], together['trajectories'], atol=1e-4
    )


def test_every_trained_parameter_gets_a_gradient(model, scenes):
    model.zero_grad()
    data = batch(scenes, decode='all')
    sum(model(**data, mode='loss').values()).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    with torch.no_grad():
        one, _ = model(batch(scenes)['inputs'])
        many, _ = model(data['inputs'])
    assert many.shape[1] > 1
    assert_equal_but_for_rounding(many[:, 0], one[:, 0], model)


def without_future(scene):
    """Return a scene of whose future nothing is known."""
    valid = scene.valid.copy()
    valid[:, scene.history_steps :] = False
    return dataclasses.replace(scene, valid=valid)


def test_known_queries_are_agents_with_a_known_future(scenes):
    inputs = batch([scenes[0], without_future(scenes[1]), *scenes[2:]], decode='all')[
        'inputs'
    ]
    places = []
    _, num_queries = inputs['queries'].shape
    for scene, agents in enumerate(inputs['future_valid'].any(dim=-1).tolist()):
        for agent, is_known in enumerate(agents):
            if is_known and not inputs['agent_padding'][scene, agent]:
                places.append(scene * num_queries + agent)
    assert inputs['query_padding'].any()
    assert not any(num_queries <= place < 2 * num_queries for place in places)
    assert inputs['known_queries'].tolist() == places


def test_batch_without_truth_has_zero_loss(model, scenes):
    data = batch([without_future(scene) for scene in scenes[:2]])
    loss = sum(model(**data, mode='loss').values())
    assert loss.item() == 0
    loss.backward()


# ----------------------------------------------------------------- functions
def test_unknown_steps_do_not_enter_losses():
    lines, future = torch.randn(2, 3, 5, 2), torch.randn(2, 5, 2)
    valid = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)
    spoiled = future.clone()
    spoiled[0, 3:] = torch.nan
    for loss, found in (
        (losses_of.masked_smooth_l1, lines[:, 0]),
        (losses_of.offset_huber, lines),
    ):
        assert torch.equal(loss(found, spoiled, valid), loss(found, future, valid))
    ends = losses_of.end_distances(lines, future, valid)
    for row, last in enumerate((2, 4)):
        assert torch.allclose(
            ends[row], (lines[row, :, last] - future[row, last]).norm(dim=-1)
        )


def test_huber_is_of_step_offsets():
    lines = torch.randn(1, 1, 4, 2)
    future = torch.randn(1, 4, 2)
    start = torch.zeros(1, 2)
    offsets = torch.cat([start, lines[0, 0]]).diff(dim=0)
    true_offsets = torch.cat([start, future[0]]).diff(dim=0)
    expected = F.huber_loss(offsets, true_offsets)
    valid = torch.ones(1, 4, dtype=torch.bool)
    found = losses_of.offset_huber(lines, future, valid)
    assert torch.allclose(found[0, 0], expected)


def test_only_proposals_of_region_are_trained():
    lines = torch.randn(1, 6, 4, 2, requires_grad=True)
    scores = torch.randn(1, 6, requires_grad=True)
    future, valid = torch.randn(1, 4, 2), torch.ones(1, 4, dtype=torch.bool)
    members = torch.tensor([[0, 0, 1, 1, 0, 0]], dtype=torch.bool)
    distances = losses_of.end_distances(lines, future, valid)
    losses = losses_of.proposal_losses(lines, scores, future, valid, members)
    p = scores.detach().softmax(-1)[0]
    assert losses['region'].item() == pytest.approx(
        -(p[2] + p[3]).log().item(), rel=1e-5
    )
    inside = scores.detach()[0, 2:4].softmax(-1)
    target = (-distances[0, 2:4]).softmax(-1)
    divergence = (target * (target / inside).log()).sum()
    assert losses['score'].item() == pytest.approx(divergence.item(), rel=1e-4)
    (losses['reg'] + losses['score']).backward()
    assert (lines.grad.abs().sum((0, 2, 3)) > 0).tolist() == members[0].tolist()
    assert (scores.grad[0] != 0).tolist() == members[0].tolist()


def test_clusters_are_equal_and_compact():
    centers = np.array([[0, 0], [50, 0], [0, 50]]).repeat(20, axis=0)
    labels = equal_clusters(centers + np.random.default_rng(0).normal(0, 1, (60, 2)), 3)
    assert np.bincount(labels).tolist() == [20, 20, 20]
    assert all(len(set(labels[i : i + 20])) == 1 for i in (0, 20, 40))


def test_selection_keeps_ends_apart():
    ends = torch.tensor([[0.0, 0.0], [1.0, 0.0], [9.0, 0.0], [9.5, 0.0]])
    p = torch.tensor([0.4, 0.3, 0.2, 0.1])
    assert select_apart(ends, p, 2, 2.0).tolist() == [0, 2]
    assert select_apart(ends, p, 3, 2.0).tolist() == [0, 2, 1]


def test_regions_need_a_center_each(tmp_path):
    hull = [[0, 0], [1, 0], [1, 1], [0, 1]]
    path = tmp_path / 'regions.json'
    path.write_text(json.dumps(dict(centres=[[1, 2]], hulls=[hull, hull])))
    with pytest.raises(UserError, match='one center'):
        Regions.load(str(path))
