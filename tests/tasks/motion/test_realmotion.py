"""RealMotion and PanguMotion equal their released code (tools/dev/released/realmotion.py)."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from safetensors.torch import save_file

from lm4ve.blocks import LLMBlock
from lm4ve.errors import UserError
from lm4ve.registry import MODELS
from lm4ve.runner.config import read_config
from lm4ve.tasks.base.tested import pipeline_of
from lm4ve.tasks.motion import (
    TASK,
    Argoverse2Reader,
    EstimateMotion,
    SceneCache,
    VectorizeSubScenes,
    collate_sub_scenes,
    preprocess_split,
)
from lm4ve.tasks.motion.models.agent_embedding import neighborhood
from tests.helpers.motion import realmotion as given
from tests.helpers.stored_results import read_part, text_of
from tests.helpers.tasks import ROOT
from tools.dev.released.seeding import gradient_marks, seeded_weights

LOSSES = dict(loss_reg='reg_loss', loss_cls='cls_loss', loss_others='others_reg_loss')


def released_weights(part: str) -> dict[str, np.ndarray]:
    return seeded_weights(text_of(read_part('realmotion', part)['shapes']))


#: Sums of thousands of products in float64; with a block, whose norms compute in float32
#: also then, some hundred roundings of that.
EXACT = dict(rtol=1e-9, atol=1e-9)
WITH_BLOCK = dict(rtol=1e-5, atol=1e-5)


def close(found, expected, bound: dict, name: str = '') -> None:
    """Compare numbers of order 1."""
    if torch.is_tensor(found):
        found = found.detach().numpy()
    np.testing.assert_allclose(found, expected, err_msg=name, **bound)


def write_openpangu(folder: Path, weights: dict[str, np.ndarray], prefix: str) -> str:
    """Write a small openPangu as it is released, with the last layer of given weights."""
    config = dict(
        given.LLM,
        architectures=['PanguEmbeddedForCausalLM'],
        auto_map={'AutoConfig': 'configuration_openpangu_dense.PanguEmbeddedConfig'},
        rope_theta=4000000.0,
    )
    (folder / 'config.json').write_text(json.dumps(config))
    state = {}
    for name, weight in weights.items():
        if name.startswith(prefix):
            place = name.removeprefix(prefix)
            state[f'model.layers.1.{place}'] = torch.from_numpy(weight).float()
    save_file(state, folder / 'model.safetensors', metadata=dict(format='pt'))
    return str(folder)


def tensors(inputs: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Return the batch of a sub-scene as the model gets it."""
    batch = {name: torch.from_numpy(np.array(array)) for name, array in inputs.items()}
    batch['queries'] = torch.zeros(2, 1, dtype=torch.int64)
    batch['known_queries'] = torch.arange(2)
    return batch


def build(part: str, folder: Path, **encoder) -> torch.nn.Module:
    """Build a forecaster with the released weights, without dropout, in float64."""
    weights = released_weights(part)
    neck = None
    if part == 'pangu':
        llm = write_openpangu(folder, weights, 'pangu.layers.0.')
        block = dict(type='LLMBlock', checkpoint=llm)
        norm = dict(type='LN', eps=1e-5)
        neck = dict(type='LLMBlockNeck', in_channels=128, block=block, norm_cfg=norm)
    model = MODELS.build(
        dict(
            type='lm4ve.StreamForecaster',
            encoder=dict(
                type='lm4ve.RealMotion', dropout=0.0, drop_path=0.0, **encoder
            ),
            neck=neck,
            decoder=dict(
                type='lm4ve.RealMotionDecoder',
                in_channels=128,
                future_steps=given.FUTURE,
            ),
        )
    ).double()
    own = {n: torch.from_numpy(w) for n, w in given.own_state(weights).items()}
    assert {n for n, _ in model.named_parameters()} <= set(own)
    model.load_state_dict(model.state_dict() | own)
    return model.train()


CASES = {
    'pangu': (dict(), given.sub_scenes(), WITH_BLOCK),
    'independent': (
        dict(stream=False, windows=(3, 3, 5), attention_bias=True),
        given.sub_scenes()[-1:],
        EXACT,
    ),
}


@pytest.mark.parametrize('part', CASES)
def test_outputs_losses_and_gradients_are_the_released_ones(part, tmp_path):
    encoder, sub_scenes, bound = CASES[part]
    model = build(part, tmp_path, **encoder)
    *earlier, last = [tensors(sub_scene) for sub_scene in sub_scenes]
    outputs = []
    model.decoder.register_forward_hook(lambda *call: outputs.append(call[-1]))
    losses = model(dict(last, earlier=earlier), mode='loss')
    expected = read_part('realmotion', part)
    for step, (trajectories, scores) in enumerate(outputs):
        close(trajectories[:, 0], expected[f'{step}/y_hat'], bound)
        close(scores[:, 0], expected[f'{step}/pi'], bound)
        for name, released in LOSSES.items():
            loss = losses[f'step{step}.{name}']
            close(loss, expected[f'{step}/{released}'], bound)
    assert len(outputs) == len(sub_scenes)
    sum(losses.values()).backward()
    found = released_gradients(model, expected['gradient_names'])
    marks = gradient_marks(found)
    for name, pair in zip(sorted(marks), expected['gradients'], strict=True):
        close(marks[name], pair, bound, name)


def released_gradients(model, names) -> dict[str, np.ndarray]:
    """Return gradients by the released names."""
    parameters = dict(model.named_parameters())
    found = {}
    for name in names:
        joined = name
        for letter in 'qkv':
            joined = joined.replace(f'.{letter}_proj.', '.in_proj_')
        gradient = parameters[given.own_name(joined)].grad
        if joined != name:
            gradient = gradient.chunk(3)['qkv'.index(name.split('_proj')[0][-1])]
        if name == 'lane_type_embed':
            gradient = gradient[None, None]
        found[name] = gradient.numpy()
    return found


def test_block_is_the_released_last_layer_and_norm_of_openpangu(tmp_path):
    weights = released_weights('block')
    block = LLMBlock(write_openpangu(tmp_path, weights, 'layers.0.')).double()
    x, padding = given.block_inputs()
    tokens = torch.from_numpy(x).requires_grad_()
    padding = torch.from_numpy(padding)
    out = block(tokens, padding)
    expected = read_part('realmotion', 'block')['out'][~padding.numpy()]
    close(out[~padding], expected, WITH_BLOCK)
    out[~padding].square().sum().backward()
    close(tokens.grad, read_part('realmotion', 'block')['gradient'], WITH_BLOCK)


# --------------------------------------------------------------------------------- data
@pytest.fixture(scope='module')
def scenarios(tmp_path_factory):
    """The folder with the scenarios that the released code has read."""
    root = tmp_path_factory.mktemp('argoverse2')
    given.write_scenarios(root)
    return root


@pytest.fixture(scope='module')
def detailed(scenarios, tmp_path_factory):
    """Both scenes, as a detailed cache gives them."""
    cache_file = tmp_path_factory.mktemp('cache') / 'train.cache'
    reader = Argoverse2Reader(scenarios, map_range=213.0, detailed=True)
    preprocess_split(reader, cache_file)
    return list(SceneCache(cache_file))


def test_sub_scenes_are_those_of_the_released_data_set(detailed):
    samples = [VectorizeSubScenes()(dict(scene=scene)) for scene in detailed]
    batch = collate_sub_scenes(samples)['inputs']
    expected = read_part('realmotion', 'data')
    # The release holds city coordinates, and with them all others, in float32.
    largest = max(np.abs(expected[f'{step}/origin']).max() for step in range(3))
    slack = dict(rtol=0, atol=float(16 * largest * np.finfo(np.float32).eps))
    for step, inputs in enumerate([*batch['earlier'], batch]):
        found = {n: t.numpy() for n, t in inputs.items() if torch.is_tensor(t)}
        released = {
            n.removeprefix(f'{step}/'): array
            for n, array in expected.items()
            if n.startswith(f'{step}/')
        }
        valid = released['x_valid_mask']
        np.testing.assert_array_equal(found['agents_valid'], valid)
        np.testing.assert_array_equal(
            found['agent_padding'], ~released['x_key_valid_mask']
        )
        np.testing.assert_array_equal(
            found['lane_padding'], ~released['lane_key_valid_mask']
        )
        np.testing.assert_array_equal(found['lanes_valid'], released['lane_valid_mask'])
        np.testing.assert_array_equal(found['agent_kinds'], released['x_attr'][..., 2])
        np.testing.assert_array_equal(found['future_valid'], released['target_mask'])
        pairs = [
            (found['agents'][valid], released['x_positions'][valid]),
            (found['agent_speeds'], released['x_velocity']),
            (found['agents'][:, :, -1], released['x_centers']),
            (found['pose'][:, 0], released['timestamp']),
            (found['pose'][:, 1], released['theta']),
        ]
        points = found['lanes_valid'][..., None]
        pairs.append((np.where(points, found['lanes'], 0), released['lane_positions']))
        middles = found['lanes'][:, :, 9:11].mean(axis=2)
        pairs.append((middles, released['lane_centers']))
        future = found['future'] - found['agents'][:, :, -1:]
        known = found['future_valid']
        pairs.append((future[known], released['target'][known]))
        turned = found['agent_headings'] - released['x_angles'][:, :, -1]
        pairs.append((np.sin(turned / 2), 0))
        for ours, theirs in pairs:
            np.testing.assert_allclose(ours, theirs, **slack)
    assert expected['2/target_mask'].shape[1] > 3
    assert not expected['0/x_key_valid_mask'].all()


def test_scenes_without_motion_are_refused_by_a_message_that_says_what_to_do(scenarios):
    reader = Argoverse2Reader(scenarios, map_range=213.0)
    scene = reader.read(reader.files()[0])
    with pytest.raises(UserError, match='preprocess.py --detailed'):
        VectorizeSubScenes()(dict(scene=scene))
    detailed = EstimateMotion()(dict(scene=scene))['scene']
    assert len(VectorizeSubScenes()(dict(scene=detailed))['sub_scenes']) == 3


def test_a_file_is_read_in_the_detail_that_the_config_needs(scenarios, detailed):
    cfg = read_config(ROOT / 'configs/motion/realmotion_argoverse2.py')
    file = Argoverse2Reader(scenarios).files()[0]
    found = TASK.protocol.read(file, cfg, pipeline_of(cfg))
    cached = VectorizeSubScenes()(dict(scene=detailed[0]))
    np.testing.assert_allclose(
        found['sub_scenes'][-1]['lanes'], cached['sub_scenes'][-1]['lanes'], atol=1e-3
    )


def test_sub_scenes_reach_no_further_than_the_map(detailed):
    with pytest.raises(UserError, match='map_range'):
        VectorizeSubScenes(radius=151.0)(dict(scene=detailed[0]))
    with pytest.raises(UserError, match='length of the history'):
        VectorizeSubScenes(ends=(30, 40))(dict(scene=detailed[0]))


def test_forecasts_of_the_last_sub_scene_return_to_the_city(detailed):
    for scene in detailed:
        results = VectorizeSubScenes()(dict(scene=scene))
        last = results['sub_scenes'][-1]
        future, valid = scene.future
        back = results['scene'].to_world(last['future'][0])
        np.testing.assert_allclose(back[valid], future[valid], atol=1e-3)


def test_estimated_motion_is_that_of_the_files_and_knows_no_future(detailed):
    scene = detailed[0]
    estimated = EstimateMotion()(dict(scene=scene))['scene'].motion
    last = scene.history_steps - 1
    fast = scene.valid[:, last - 5 : last + 1].all(axis=1)
    fast &= scene.motion.speeds[:, last] > 2
    assert fast.sum() > 2
    speeds = estimated.speeds[fast, last]
    np.testing.assert_allclose(speeds, scene.motion.speeds[fast, last], rtol=0.05)
    turned = estimated.headings[fast, last] - scene.motion.headings[fast, last]
    assert np.abs(np.sin(turned)).max() < 0.1

    other = replace(scene, positions=scene.positions.copy())
    other.positions[:, scene.history_steps :] += 50.0
    moved = EstimateMotion()(dict(scene=other))['scene'].motion
    history = slice(scene.history_steps)
    for name in ('headings', 'speeds'):
        before = getattr(estimated, name)[:, history]
        np.testing.assert_array_equal(getattr(moved, name)[:, history], before)


# ------------------------------------------------------------------------------- recipe
def test_groups_and_rates_are_the_released_ones():
    cfg = read_config(ROOT / 'configs/motion/realmotion_pangu_argoverse2.py')
    cfg.model.neck.block = dict(type='LLMBlock', arch=given.LLM)
    model = MODELS.build(cfg.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    names = {id(p): name for name, p in model.named_parameters()}
    undecayed = set()
    for group in wrapper.param_groups:
        assert group['weight_decay'] in (0, 1e-2)
        if group['weight_decay'] == 0:
            undecayed |= {names[id(p)] for p in group['params']}
    released = text_of(read_part('realmotion', 'pangu')['undecayed'])
    assert undecayed == {given.own_name(name) for name in released}

    rates = []
    schedules = [
        PARAM_SCHEDULERS.build(dict(s, optimizer=wrapper)) for s in cfg.param_scheduler
    ]
    for _ in range(cfg.train_cfg.max_epochs):
        rates.append(wrapper.param_groups[0]['lr'])
        for schedule in schedules:
            schedule.step()
    np.testing.assert_allclose(
        rates, read_part('realmotion', 'pangu')['rates'], rtol=1e-9
    )


def test_neighborhood_moves_inside_at_both_ends():
    seen = neighborhood(5, 3, torch.device('cpu')).int().tolist()
    assert seen == [
        [1, 1, 1, 0, 0],
        [1, 1, 1, 0, 0],
        [0, 1, 1, 1, 0],
        [0, 0, 1, 1, 1],
        [0, 0, 1, 1, 1],
    ]
    assert neighborhood(2, 5, torch.device('cpu')).all()


def test_initial_weights_are_drawn_as_released():
    torch.manual_seed(0)
    encoder = MODELS.build(dict(type='lm4ve.RealMotion'))
    encoder.init_weights()
    # Xavier-uniform of a square matrix: bound sqrt(6 / (2 C)).
    (weights, *_) = encoder.layers[0].attention.in_proj_weight.chunk(3)
    bound = (3 / 128) ** 0.5
    assert 0.99 * bound < weights.abs().max() <= bound
    assert encoder.kinds.std().item() == pytest.approx(0.02, rel=0.2)
    # Behind the release's initialization: torch's default, uniform within 1 / sqrt(C).
    linear = encoder.interaction.layers[0].mlp[0]
    assert 0.99 / 128**0.5 < linear.weight.abs().max() <= 1 / 128**0.5
    assert linear.bias.abs().max() > 0
    assert encoder.interaction.pose_norm.gain.bias.min() == 1
    assert not encoder.interaction.pose_norm.gain.weight.any()
