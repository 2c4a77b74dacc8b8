"""SQA3D's released checkpoints (github.com/SilongYong/SQA3D) as models of this suite, and back.

One table serves both ways. The release has convolutions of size 1 where we have Linear, so
that their weights lose or get dimensions of 1.
"""

import re
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lm4ve.errors import check
from lm4ve.tasks.base.key_rules import Rules, rename, template_rules
from lm4ve.tasks.base.language.answering import FINGERPRINT, vocabulary_digest
from lm4ve.tasks.rooms.models.heads import Corpus, count_answers

#: Their names and ours within a part, as templates of :func:`template_rules`.
_LINEAR = {'{p}': '{p}'}
_NORM = _LSTM = {'{rest}': '{rest}'}
_SHARED = {
    'layer{j}.conv.weight': 'layers.{j}.linear.weight',
    'layer{j}.bn.bn.{rest}': 'layers.{j}.norm.{rest}',
}
_TWO_LAYERS = {'fc.linear.{p}': '0.{p}', 'linear.{p}': '3.{p}'}
_MCAN_NORM = {'a_2': 'a_2', 'b_2': 'b_2'}
_ATTENTION = {
    f'linear_{theirs}.{{p}}': f'{ours}.{{p}}'
    for theirs, ours in dict(q='query', k='key', v='value', merge='merge').items()
}
_STACKS = dict(
    enc_list_s='situation_layers',
    enc_list_q='question_layers',
    dec_list='object_situation_layers',
    dec_list_2='object_question_layers',
)
_POOLS = dict(attflat_visual='objects', attflat_s='situation', attflat_q='question')


def _parts() -> Iterator[tuple[str, str, dict[str, str]]]:
    """Yield the parts of the model: their name, ours, and the names within."""
    ours = 'object_encoder'
    yield 'lang_net.lstm', 'text_encoder.lstm', _LSTM
    for i in range(4):
        name = f'detection_backbone.sa{i + 1}.mlp_module'
        yield name, f'{ours}.backbone.abstraction.{i}', _SHARED
    for i in range(2):
        yield f'detection_backbone.fp{i + 1}.mlp', f'{ours}.backbone.propagation.{i}', _SHARED
        yield f'voting_net.conv{i + 1}', f'{ours}.voting.layers.{i}.linear', _LINEAR
        yield f'voting_net.bn{i + 1}', f'{ours}.voting.layers.{i}.norm', _NORM
        yield f'proposal_net.proposal.{3 * i}', f'{ours}.head.layers.{i}.linear', _LINEAR
        yield f'proposal_net.proposal.{3 * i + 1}', f'{ours}.head.layers.{i}.norm', _NORM
    yield 'voting_net.conv3', f'{ours}.voting.out', _LINEAR
    yield 'proposal_net.vote_aggregation.mlp_module', f'{ours}.aggregation', _SHARED
    yield 'proposal_net.proposal.6', f'{ours}.head.out', _LINEAR
    yield 'lang_feat_linear.0', 'text_transform', _LINEAR
    yield 'object_feat_linear.0', 'object_transform', _LINEAR
    for stack, name in _STACKS.items():
        theirs, layer = f'{stack}.{{i}}', f'fusion.{name}.{{i}}'
        attentions = ['self_attention', 'guided_attention'][: 1 + stack.startswith('dec')]
        for number, attention in enumerate(attentions, 1):
            suffix = number if len(attentions) > 1 else ''
            yield f'{theirs}.mhatt{suffix}', f'{layer}.{attention}', _ATTENTION
        yield f'{theirs}.ffn.mlp', f'{layer}.feed_forward', _TWO_LAYERS
        for n in range(len(attentions) + 1):
            yield f'{theirs}.norm{n + 1}', f'{layer}.norms.{n}', _MCAN_NORM
    for pool, name in _POOLS.items():
        yield f'{pool}.mlp', f'pools.{name}.weigh', _TWO_LAYERS
        yield f'{pool}.linear_merge', f'pools.{name}.merge', _LINEAR
    yield 'answer_cls.{i}', 'head.layers.{i}', _LINEAR
    yield 'aux_reg.{i}', 'pose_head.layers.{i}', _LINEAR


#: Their names and ours, as templates.
NAMES = [
    (f'{theirs}.{a}', f'{ours}.{b}') for theirs, ours, within in _parts() for a, b in within.items()
]
#: The head of answers in older files.
_OLDER = ('lang_cls.{i}.{p}', 'head.layers.{i}.{p}')
_DROPPED = (
    (r'[sq]_feat_linear\..*', 'projections of single texts, which the forward pass never calls'),
    (r'attflat_lstm_q\..*', 'a pooling that the forward pass never calls'),
    (r'object_cls\..*', 'a confidence of objects, which the forward pass never calls'),
    (r'lang_net\.lang_cls\..*', 'a classifier of texts, which is not used for questions'),
)
_REQUIRED = [
    *('text_encoder.lstm.weight_ih_l0', 'object_encoder.voting.out.weight'),
    *('pools.objects.merge.weight', 'head.layers.0.weight', 'head.layers.3.bias'),
]


def convert_sqa3d(
    state: dict[str, Tensor],
    llm: str | None = None,
    layer: int | Sequence[int] = -1,
    answers: Corpus | None = None,
    origin: str = 'The checkpoint',
) -> dict[str, Tensor]:
    """Convert a state of SQA3D's ScanQA baseline.

    Args:
        state (dict[str, Tensor]): By the released names, without ``module.``. The head of
            answers may be called ``answer_cls`` or, as in older files, ``lang_cls``.
        llm (str, optional): There is no block in it, so it must be None.
        layer (int | Sequence[int]): Not used.
        answers (str | Sequence[str] | Mapping[str, int]): The corpus that it was trained
            on, as of :class:`SceneAnswerHead`.
        origin (str): What messages call the file.

    Returns:
        dict[str, Tensor]: The state of an :class:`SQA3D` with :class:`VoteNet`,
        :class:`LSTMTextEncoder` and :class:`PoseHead`; floats in fp32.

    Raises:
        UserError: ``llm`` is given, or no answers or not as many as the head has.
        CheckpointError: The file is of another model; a key is unknown or missing.
    """
    check('--llm', llm, choices=(None,))
    rules = Rules(renames=template_rules([*NAMES, _OLDER]), dropped=_DROPPED, required=_REQUIRED)
    renamed, _ = rename(state, rules, origin)
    converted = {k: _flat(k, v) for k, v in renamed.items()}
    # The ablation without objects (--wo3d) has a head of two features.
    width = 3 * len(converted['pools.objects.merge.weight'])
    found = converted['head.layers.0.weight'].shape[1]
    check(f'{origin}: width of the head', found, choices=(width,))
    counts = count_answers(answers, '--answers')
    check('--answers: their number', len(counts), choices=(len(converted['head.layers.3.bias']),))
    converted[f'head.{FINGERPRINT}'] = vocabulary_digest(list(counts))
    return converted


def _flat(name: str, tensor: Tensor) -> Tensor:
    tensor = tensor.float() if tensor.is_floating_point() else tensor
    is_weight = name.endswith('.weight') and tensor.dim() > 2
    return tensor.flatten(1) if is_weight and tensor[0, 0].numel() == 1 else tensor


def to_sqa3d(state: dict[str, Tensor], origin: str = 'The checkpoint') -> dict[str, Tensor]:
    """Convert a state of ours into the released names.

    Args:
        state (dict[str, Tensor]): The state of an :class:`SQA3D` with :class:`VoteNet`,
            :class:`LSTMTextEncoder`, :class:`PoseHead` and MCAN's norm, without a block.
        origin (str): What messages call the file.

    Returns:
        dict[str, Tensor]: By the released names. The released code loads strictly, so that
        what it never calls is there as well, as copies of their likes or zeros.

    Raises:
        CheckpointError: A key is unknown or missing: the model has a block or other parts.
    """
    rules = Rules(
        renames=template_rules((ours, theirs) for theirs, ours in NAMES),
        dropped=[(rf'head\.{FINGERPRINT}', 'SQA3D keeps no record of its answers')],
        required=['lang_net.lstm.weight_ih_l0', 'voting_net.conv3.weight', 'aux_reg.3.bias'],
    )
    renamed, _ = rename(state, rules, origin)
    out = {k: _as_convolution(k, v) for k, v in renamed.items()}
    for part in ('weight', 'bias'):
        for text in 'sq':
            out[f'{text}_feat_linear.0.{part}'] = out[f'lang_feat_linear.0.{part}'].clone()
    for key in [k for k in out if k.startswith('attflat_q.')]:
        out[key.replace('attflat_q.', 'attflat_lstm_q.')] = out[key].clone()
    width = len(out['lang_feat_linear.0.bias'])
    for place, rows in ((0, width), (3, 1)):
        out[f'object_cls.{place}.weight'] = torch.zeros(rows, width)
        out[f'object_cls.{place}.bias'] = torch.zeros(rows)
    return out


def _as_convolution(name: str, tensor: Tensor) -> Tensor:
    if name.endswith('.conv.weight'):
        return tensor[..., None, None]
    if re.fullmatch(r'(voting_net\.conv\d|proposal_net\.proposal\.[036])\.weight', name):
        return tensor[..., None]
    return tensor
