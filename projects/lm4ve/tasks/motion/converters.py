"""The released mmTransformer (github.com/decisionforce/mmTransformer) as a model of this suite.

Its scenes have the focal agent's heading along y, ours along x: the turn goes into the
linear layers that read and write coordinates.
"""

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from lm4ve.errors import check
from lm4ve.tasks.base.key_rules import Rules, rename

_WB = r'(weight|bias)'
_STF = r'stacked_transformer\.'


def _layers(theirs: str, ours: str, sublayers: Sequence[str]) -> list[tuple[str, str]]:
    """Names of a stack; ``sublayers`` are its attentions in their order."""
    at = rf'{_STF}{theirs}\.layers\.(\d+)'
    rules = [(rf'{_STF}{theirs}\.norm\.{_WB}', rf'{ours}.norm.\1')]
    for name, new in zip(('self_attn', 'src_attn'), sublayers, strict=False):
        rules.append(
            (rf'{at}\.{name}\.linears\.([0-2])\.{_WB}', rf'{ours}.layers.\1.{new}.in.\2.\3')
        )
        rules.append((rf'{at}\.{name}\.linears\.3\.{_WB}', rf'{ours}.layers.\1.{new}.out_proj.\2'))
    for i in (1, 2):
        rules.append((rf'{at}\.feed_forward\.w_{i}\.{_WB}', rf'{ours}.layers.\1.linear{i}.\2'))
    for i in range(3):
        rules.append((rf'{at}\.sublayer\.{i}\.norm\.{_WB}', rf'{ours}.layers.\1.norm{i + 1}.\2'))
    return rules


_SELF, _BOTH = ('self_attn',), ('self_attn', 'multihead_attn')
RULES = Rules(
    renames=(
        *_layers(r'hist_tf\.encoder', 'encoder.motion_encoder', _SELF),
        *_layers(r'hist_tf\.decoder', 'encoder.motion_decoder', _BOTH),
        *_layers('lane_enc', 'encoder.lane_encoder', _SELF),
        *_layers('lane_dec', 'encoder.lane_decoder', _BOTH),
        *_layers('social_enc', 'encoder.social', _SELF),
        (rf'{_STF}hist_tf\.src_embed\.0\.lut\.{_WB}', r'encoder.motion_in.\1'),
        (rf'{_STF}lane_emb\.lut\.{_WB}', r'encoder.lane_in.\1'),
        (rf'{_STF}query_embed\.weight', 'encoder.proposals'),
        (rf'{_STF}pos_emb\.(\d\.\w+)', r'encoder.place.\1'),
        (rf'{_STF}dist_emb\.(\d\.\w+)', r'encoder.summary.\1'),
        (rf'{_STF}fusion1\.(\d\.\w+)', r'encoder.fuse_place.\1'),
        (rf'{_STF}fusion2\.(\d\.\w+)', r'encoder.fuse_summary.\1'),
        (r'subgraph\.layer_seq\.lmlp_(\d)\.mlp\.(\d\.\w+)', r'encoder.lane_graph.levels.\1.\2'),
        (rf'{_STF}prediction_header\.reg_mlp\.(\d\.\w+)', r'decoder.regression.\1'),
        (rf'{_STF}prediction_header\.cls_FFN\.w_1\.{_WB}', r'decoder.score.0.\1'),
        (rf'{_STF}prediction_header\.cls_FFN\.w_2\.{_WB}', r'decoder.score.2.\1'),
        (rf'{_STF}prediction_header\.classification_layer\.0\.{_WB}', r'decoder.score.3.\1'),
        (rf'{_STF}prediction_header\.classification_layer\.1\.{_WB}', r'decoder.score.4.\1'),
    ),
    dropped=(
        (rf'{_STF}social_dec\..*', 'the released code never calls it'),
        (rf'{_STF}prediction_header\.dis_emb\..*', 'the released code never calls it'),
        (rf'{_STF}hist_tf\.src_embed\.1\.pe', 'sines, which are computed'),
    ),
    required=('encoder.proposals', 'encoder.motion_in.weight', 'decoder.regression.4.weight'),
)
#: Their x is to the right and y ahead; ours are ahead and to the left.
_TURN = ((0.0, -1.0), (1.0, 0.0))


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
    check(f'{origin} has no block of a language model, so --llm', llm, choices=(None,))
    renamed, _ = rename(state, RULES, origin)
    converted = {name: tensor for name, tensor in renamed.items() if '.in.' not in name}
    # Queries, keys and values are one matrix in torch's attention.
    for name in filter(re.compile(r'\.in\.0\.').search, renamed):
        parts = [renamed[name.replace('.in.0.', f'.in.{i}.')] for i in range(3)]
        converted[name.replace('.in.0.', '.in_proj_')] = torch.cat(parts)
    turn = torch.tensor(_TURN)
    for name, coordinates in (
        ('encoder.motion_in.weight', 2),
        ('encoder.place.0.weight', 2),
        ('encoder.lane_graph.levels.0.0.weight', 4),
    ):
        read, rest = converted[name].split([coordinates, converted[name].shape[1] - coordinates], 1)
        converted[name] = torch.cat([(read.unflatten(1, (-1, 2)) @ turn).flatten(1), rest], 1)
    for name in ('decoder.regression.4.weight', 'decoder.regression.4.bias'):
        rows = converted[name]
        converted[name] = (turn.T @ rows.reshape(-1, 2, rows[0].numel())).reshape(rows.shape)
    # Their order of a concatenation is place, then proposal (or summary); ours the reverse.
    channels = converted['encoder.proposals'].shape[1]
    for name in ('encoder.fuse_place.0.weight', 'encoder.fuse_summary.0.weight'):
        place, rest = converted[name].split([converted[name].shape[1] - channels, channels], 1)
        converted[name] = torch.cat([rest, place], 1)
    return converted
