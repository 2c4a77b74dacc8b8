"""What PanguMotion's released code and ours are both given: scenarios, inputs, weights.

``tools/dev/released/realmotion.py`` gives them to the released code and stores what comes
out; the tests give them to ours.
"""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd

#: Sizes of the small language model, whose last layer is the block.
LLM = dict(
    model_type='PanguEmbedded',
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=8,
    rms_norm_eps=1e-5,
    bias=True,
)
FUTURE = 12
HISTORY = 30
#: Agents and lanes of both scenes of a batch, for each of the three sub-scenes.
COUNTS = (((3, 4), (5, 2)), ((4, 4), (2, 5)), ((4, 3), (3, 5)))
_TYPES = ('vehicle', 'pedestrian', 'cyclist', 'bus', 'static', 'motorcyclist')


def block_inputs() -> tuple[np.ndarray, np.ndarray]:
    """Return tokens ``[2, 7, 32]`` of the block, and where they are padding."""
    generator = np.random.default_rng(3)
    padding = np.zeros((2, 7), dtype=bool)
    padding[1, 4:] = True
    return generator.standard_normal((2, 7, LLM['hidden_size'])), padding


def sub_scenes() -> list[dict[str, np.ndarray]]:
    """Return a batch of two scenes as three sub-scenes, in float64.

    The names and forms are those of
    ``lm4ve.tasks.motion.transforms.sub_scenes.collate_sub_scenes``, but for what follows from
    them. Padding is zero.
    """
    generator = np.random.default_rng(4)
    return [_sub_scene(generator, i, counts) for i, counts in enumerate(COUNTS)]


def _sub_scene(generator, number: int, counts) -> dict[str, np.ndarray]:
    agents, lanes = np.max(counts, axis=0)
    has_agent = np.arange(agents) < np.array(counts)[:, :1]
    has_lane = np.arange(lanes) < np.array(counts)[:, 1:]
    size = (2, agents)
    valid = generator.random((*size, HISTORY)) < 0.9
    valid[..., -1] = True
    valid &= has_agent[..., None]
    steps = generator.normal(0, 0.7, (*size, HISTORY + FUTURE, 2))
    places = steps.cumsum(axis=2) + generator.normal(0, 20, (*size, 1, 2))
    places -= places[:, :1, HISTORY - 1 : HISTORY]  # the focal agent ends at the origin
    future_valid = generator.random((*size, FUTURE)) < 0.8
    future_valid &= has_agent[..., None]
    future_valid[:, 0] = True
    starts = generator.normal(0, 30, (2, lanes, 1, 2))
    points = starts + generator.normal(0, 2, (2, lanes, 20, 2)).cumsum(axis=2)
    lanes_valid = generator.random((2, lanes, 20)) < 0.9
    lanes_valid[..., 0] = True
    return dict(
        agents=places[:, :, :HISTORY] * has_agent[..., None, None],
        agents_valid=valid,
        agent_speeds=generator.uniform(0, 9, (*size, HISTORY)) * valid,
        agent_headings=generator.uniform(-3, 3, size) * has_agent,
        agent_kinds=generator.integers(0, 4, size) * has_agent,
        agent_padding=~has_agent,
        future=places[:, :, HISTORY:] * future_valid[..., None],
        future_valid=future_valid,
        lanes=points * has_lane[..., None, None],
        lanes_valid=lanes_valid & has_lane[..., None],
        lane_padding=~has_lane,
        pose=np.stack([[3.0 + number, 0.4 * number, 2.0 * number, -number]] * 2),
    )


def write_scenarios(root: Path) -> list[Path]:
    """Write two scenarios of Argoverse 2, which no simulator has drawn.

    They have agents of six types, of which some are seen late, lost early, or stand far
    from all lanes, and lanes that leave the range.

    Returns:
        list[Path]: Their Parquet files.
    """
    return [_write_scenario(root, seed) for seed in range(2)]


def _write_scenario(root: Path, seed: int) -> Path:
    generator = np.random.default_rng(seed)
    name = f'{seed:08d}-0000-4000-8000-000000000000'
    folder = root / name
    folder.mkdir(parents=True)
    center = generator.uniform(-800, 800, 2)
    segments = {}
    middles = [center]
    for number in range(24):
        segment = _lane(generator, center, number)
        middle = segment['left_lane_boundary'][1]
        middles.append(np.array([middle['x'], middle['y']]))
        segments[str(number)] = segment
    tracks = []
    for number in range(10 + 4 * seed):
        tracks.append(_track(generator, middles[number], number, name))
    path = folder / f'scenario_{name}.parquet'
    pd.concat(tracks).to_parquet(path, index=False)
    content = dict(lane_segments=segments, pedestrian_crossings={}, drivable_areas={})
    (folder / f'log_map_archive_{name}.json').write_text(json.dumps(content))
    return path


def _track(generator, middle: np.ndarray, number: int, name: str) -> pd.DataFrame:
    """Return the rows of an agent that is near a place at the last observed step.

    Number 0 is the focal one, which is always seen.
    """
    heading = generator.uniform(-3, 3) + 0.01 * np.arange(110)
    speed = generator.uniform(0, 12)
    velocity = speed * np.stack([np.cos(heading), np.sin(heading)], axis=1)
    way = 0.1 * velocity.cumsum(axis=0)
    place = middle + generator.normal(0, 2, 2) + way - way[49]
    seen = generator.random(110) < 0.95
    if number % 4 == 1:
        seen[:35] = False
    if number % 4 == 2:
        seen[45:] = False
    if number == 0:
        seen[:] = True
    steps = np.flatnonzero(seen)
    return pd.DataFrame(
        dict(
            observed=steps < 50,
            track_id=str(100 + number),
            object_type=_TYPES[number % len(_TYPES)],
            object_category=3 if number == 0 else 1,
            timestep=steps,
            position_x=place[steps, 0],
            position_y=place[steps, 1],
            heading=heading[steps],
            velocity_x=velocity[steps, 0],
            velocity_y=velocity[steps, 1],
            scenario_id=name,
            start_timestamp=0,
            end_timestamp=1,
            num_timestamps=110,
            focal_track_id='100',
            city='austin',
        )
    )


def _lane(generator, center: np.ndarray, number: int) -> dict:
    """Return a bent lane of some 60 m; both boundaries have points of their own."""
    start = center + generator.normal(0, 90, 2)
    heading = generator.uniform(-3, 3)
    sides = []
    for count, offset in ((4, -1.8), (7, 1.8)):
        along = np.linspace(0, 60, count)
        angle = heading + along / 150
        line = start + along[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        line += offset * np.stack([-np.sin(angle), np.cos(angle)], axis=1)
        sides.append([dict(x=x, y=y, z=0.0) for x, y in line])
    return dict(
        id=number,
        is_intersection=bool(number % 3 == 0),
        lane_type='VEHICLE',
        left_lane_boundary=sides[0],
        left_lane_mark_type='NONE',
        right_lane_boundary=sides[1],
        right_lane_mark_type='NONE',
        left_neighbor_id=None,
        right_neighbor_id=None,
        predecessors=[],
        successors=[],
    )


# ------------------------------------------------------------------------------- weights
_LAYER = {
    'norm1': 'norm1',
    'norm2': 'norm2',
    'mlp.fc1': 'mlp.0',
    'mlp.fc2': 'mlp.3',
    'attn.qkv': 'attention.qkv',
    'attn.proj': 'attention.out',
    'attn.out_proj': 'attention.out_proj',
}
#: Beginnings of the released names -> ours. The first that fits counts.
_NAMES = {
    'actor_type_embed': 'encoder.kinds',
    'lane_type_embed': 'encoder.lane_kind',
    r'hist_embed.embed.proj': 'encoder.agents.tokenizer',
    r'hist_embed.levels.(\d).downsample': r'encoder.agents.reductions.\1',
    r'hist_embed.norm(\d)': r'encoder.agents.norms.\1',
    r'hist_embed.lateral_convs': 'encoder.agents.laterals',
    r'hist_embed.fpn_conv': 'encoder.agents.fuse',
    r'lane_embed.first_conv': 'encoder.lanes.points',
    r'lane_embed.second_conv': 'encoder.lanes.lanes',
    r'pos_embed': 'encoder.pose',
    r'norm': 'encoder.norm',
    r'scene_interact.mln.reduce.0': 'encoder.interaction.pose_norm.reduce',
    r'scene_interact.mln.gamma': 'encoder.interaction.pose_norm.gain',
    r'scene_interact.mln.beta': 'encoder.interaction.pose_norm.bias',
    r'pangu_dim_mapper1': 'neck.mapper_in',
    r'pangu_dim_mapper2': 'neck.mapper_out',
    r'post_norm': 'neck.norm',
    r'decoder.multimodal_proj': 'decoder.modes',
    r'decoder.loc': 'decoder.regression',
    r'decoder.pi': 'decoder.score',
    r'dense_predictor': 'decoder.other_agents',
}
_STACKS = {
    r'hist_embed.levels.(\d).blocks.(\d)': r'encoder.agents.levels.\1.\2',
    r'scene_interact.inter_blocks.(\d)': r'encoder.interaction.layers.\1',
    r'blocks.(\d)': r'encoder.layers.\1',
}
for _stack, _own_stack in _STACKS.items():
    for _part, _own_part in _LAYER.items():
        _NAMES[f'{_stack}.{_part}'] = f'{_own_stack}.{_own_part}'
    _NAMES[f'{_stack}.attn.in_proj_'] = f'{_own_stack}.attention.in_proj_'


def own_name(released: str) -> str:
    """Return our name of a released tensor, but for those of single projections."""
    for pattern, own in _NAMES.items():
        match = re.match(
            pattern.replace('.', r'\.') + r'(?=$|\.|weight|bias)', released
        )
        if match:
            return match.expand(own) + released[match.end() :]
    raise KeyError(released)


def own_state(released: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return weights by our names; those of the language model are left out.

    One matrix holds the projections of queries, keys and values of an attention.
    """
    state = {}
    for name, weight in released.items():
        if name.startswith('pangu.') or re.search(r'\.[kv]_proj\.', name):
            continue
        if '.q_proj.' in name:
            names = [name.replace('.q_proj.', f'.{x}_proj.') for x in 'qkv']
            weight = np.concatenate([released[n] for n in names])
            name = name.replace('.q_proj.', '.in_proj_')
        state[own_name(name)] = weight.reshape(own_shape(name, weight))
    return state


def own_shape(name: str, weight: np.ndarray) -> tuple[int, ...]:
    """Return the shape of a tensor here; the embedding of lanes has no dimensions of 1."""
    if name == 'lane_type_embed':
        return weight.shape[-1:]
    return weight.shape
