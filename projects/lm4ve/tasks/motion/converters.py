"""The released mmTransformer (github.com/decisionforce/mmTransformer) as a model of this suite.

Its scenes have the focal agent's heading along y, ours along x: the turn goes into the
linear layers that read and write coordinates.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lm4ve.convert.key_rules import Rules, rename, template_rules
from lm4ve.errors import require

_STACKS = {
    'hist_tf.encoder': 'motion_encoder',
    'hist_tf.decoder': 'motion_decoder',
    'lane_enc': 'lane_encoder',
    'lane_dec': 'lane_decoder',
    'social_enc': 'social',
}
#: Names inside of a stack. Queries, keys and values are joined after the renaming.
_LAYERS = {
    'norm.{p}': 'norm.{p}',
    'layers.{i}.self_attn.linears.3.{p}': 'layers.{i}.self_attn.out_proj.{p}',
    'layers.{i}.self_attn.linears.{j}.{p}': 'layers.{i}.self_attn.in.{j}.{p}',
    'layers.{i}.src_attn.linears.3.{p}': 'layers.{i}.multihead_attn.out_proj.{p}',
    'layers.{i}.src_attn.linears.{j}.{p}': 'layers.{i}.multihead_attn.in.{j}.{p}',
    'layers.{i}.feed_forward.w_{j}.{p}': 'layers.{i}.linear{j}.{p}',
    'layers.{i}.sublayer.0.norm.{p}': 'layers.{i}.norm1.{p}',
    'layers.{i}.sublayer.1.norm.{p}': 'layers.{i}.norm2.{p}',
    'layers.{i}.sublayer.2.norm.{p}': 'layers.{i}.norm3.{p}',
}
#: Without the leading ``stacked_transformer.``.
_NAMES = {
    'hist_tf.src_embed.0.lut.{p}': 'encoder.motion_in.{p}',
    'lane_emb.lut.{p}': 'encoder.lane_in.{p}',
    'query_embed.weight': 'encoder.proposals',
    'pos_emb.{rest}': 'encoder.place.{rest}',
    'dist_emb.{rest}': 'encoder.summary.{rest}',
    'fusion1.{rest}': 'encoder.fuse_place.{rest}',
    'fusion2.{rest}': 'encoder.fuse_summary.{rest}',
    'subgraph.layer_seq.lmlp_{i}.mlp.{rest}': 'encoder.lane_graph.levels.{i}.{rest}',
    'prediction_header.reg_mlp.{rest}': 'decoder.regression.{rest}',
    'prediction_header.cls_FFN.w_1.{p}': 'decoder.score.0.{p}',
    'prediction_header.cls_FFN.w_2.{p}': 'decoder.score.2.{p}',
    'prediction_header.classification_layer.0.{p}': 'decoder.score.3.{p}',
    'prediction_header.classification_layer.1.{p}': 'decoder.score.4.{p}',
}
for _released, _stack in _STACKS.items():
    for _name, _own_name in _LAYERS.items():
        _NAMES[f'{_released}.{_name}'] = f'encoder.{_stack}.{_own_name}'
RULES = Rules(
    renames=template_rules(_NAMES.items()),
    dropped=(
        (r'social_dec\..*', 'the released code never calls it'),
        (r'prediction_header\.dis_emb\..*', 'the released code never calls it'),
        (r'hist_tf\.src_embed\.1\.pe', 'sines, which are computed'),
    ),
    required=(
        'encoder.proposals',
        'encoder.motion_in.weight',
        'decoder.regression.4.weight',
    ),
)
#: Their x is to the right and y ahead; ours are ahead and to the left.
_TURN = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
#: Layers that read coordinates, and how many of their first inputs are coordinates.
_READERS = {
    'encoder.motion_in.weight': 2,
    'encoder.place.0.weight': 2,
    'encoder.lane_graph.levels.0.0.weight': 4,
}


def convert_mmtransformer(
    state: dict[str, Tensor],
    llm: str | None = None,
    layer: int | Sequence[int] = -1,
    origin: str = 'The checkpoint',
) -> dict[str, Tensor]:
    """Convert a state of the released mmTransformer.

    Args:
        state (dict[str, Tensor]): By the published names, without ``module.``.
        llm (str, optional): There is no block in it, so it must be None.
        layer (int | Sequence[int]): Not used.
        origin (str): What messages call the file.

    Returns:
        dict[str, Tensor]: The state of a :class:`MotionForecaster` as in
        ``configs/motion/mmtransformer_argoverse1.py``, with
        ``model.decoder.learned_weights=False``.

    Raises:
        UserError: ``llm`` is given.
        CheckpointError: A key is unknown or missing.
    """
    require(
        llm is None,
        f'{origin} has no block of a language model, so --llm has no use. Fix: leave it out.',
    )
    state = {name.removeprefix('stacked_transformer.'): t for name, t in state.items()}
    renamed = rename(state, RULES, origin)
    converted = _join_attention(renamed)
    for name, coordinates in _READERS.items():
        converted[name] = _turn_inputs(converted[name], coordinates)
    for name in ('decoder.regression.4.weight', 'decoder.regression.4.bias'):
        converted[name] = _turn_outputs(converted[name])
    # Their order of a concatenation is place, then proposal (or summary); ours the
    # reverse.
    channels = converted['encoder.proposals'].shape[1]
    for name in ('encoder.fuse_place.0.weight', 'encoder.fuse_summary.0.weight'):
        place, rest = converted[name].tensor_split([-channels], 1)
        converted[name] = torch.cat([rest, place], 1)
    return converted


def _join_attention(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Make one matrix of queries, keys and values, as torch's attention has it."""
    joined = {}
    for name, tensor in state.items():
        if '.in.' not in name:
            joined[name] = tensor
    for name in state:
        if '.in.0.' in name:
            parts = [state[name.replace('.in.0.', f'.in.{i}.')] for i in range(3)]
            joined[name.replace('.in.0.', '.in_proj_')] = torch.cat(parts)
    return joined


def _turn_inputs(weight: Tensor, coordinates: int) -> Tensor:
    """Let a layer read coordinates of our frame, the first of its inputs."""
    read, rest = weight.tensor_split([coordinates], 1)
    turned = read.unflatten(1, (-1, 2)) @ _TURN
    return torch.cat([turned.flatten(1), rest], 1)


def _turn_outputs(rows: Tensor) -> Tensor:
    """Let a layer, of which this is the weight or bias, write coordinates of our frame."""
    points = rows.reshape(-1, 2, rows[0].numel())
    return (_TURN.T @ points).reshape(rows.shape)
