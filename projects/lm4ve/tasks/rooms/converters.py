"""SQA3D's released checkpoints (github.com/SilongYong/SQA3D) as models of this suite, and back.

One table serves both ways. The release has convolutions of size 1 where we have Linear, so
that their weights lose or get dimensions of 1.
"""

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from lm4ve.errors import CheckpointError, UserError, check
from lm4ve.tasks.base.key_rules import Rules, rename, template_rules
from lm4ve.tasks.base.language.answering import FINGERPRINT, vocabulary_digest
from lm4ve.tasks.rooms.models.heads import Corpus, count_answers

_NET, _VOTE = 'detection_backbone', 'proposal_net.vote_aggregation.mlp_module'
_OURS = 'object_encoder'
_STACKS = dict(
    enc_list_s='situation_layers',
    enc_list_q='question_layers',
    dec_list='object_situation_layers',
    dec_list_2='object_question_layers',
)
_ATTENTION = dict(linear_q='query', linear_k='key', linear_v='value', linear_merge='merge')
_POOLS = dict(attflat_visual='objects', attflat_s='situation', attflat_q='question')


def _shared(theirs: str, ours: str) -> list[tuple[str, str]]:
    """Layers of a shared perceptron: convolution of size 1, batch norm."""
    return [
        (f'{theirs}.layer{{j}}.conv.weight', f'{ours}.layers.{{j}}.linear.weight'),
        (f'{theirs}.layer{{j}}.bn.bn.{{rest}}', f'{ours}.layers.{{j}}.norm.{{rest}}'),
    ]


def _detector() -> list[tuple[str, str]]:
    pairs = []
    for i in range(4):
        pairs += _shared(f'{_NET}.sa{i + 1}.mlp_module', f'{_OURS}.backbone.abstraction.{i}')
    for i in range(2):
        pairs += _shared(f'{_NET}.fp{i + 1}.mlp', f'{_OURS}.backbone.propagation.{i}')
        layer = f'{_OURS}.voting.layers.{i}'
        pairs += [
            (f'voting_net.conv{i + 1}.{{p}}', f'{layer}.linear.{{p}}'),
            (f'voting_net.bn{i + 1}.{{rest}}', f'{layer}.norm.{{rest}}'),
        ]
        layer = f'{_OURS}.head.layers.{i}'
        pairs += [
            (f'proposal_net.proposal.{3 * i}.weight', f'{layer}.linear.weight'),
            (f'proposal_net.proposal.{3 * i + 1}.{{rest}}', f'{layer}.norm.{{rest}}'),
        ]
    return [
        *pairs,
        ('voting_net.conv3.{p}', f'{_OURS}.voting.out.{{p}}'),
        *_shared(_VOTE, f'{_OURS}.aggregation'),
        ('proposal_net.proposal.6.{p}', f'{_OURS}.head.out.{{p}}'),
    ]


def _reader() -> list[tuple[str, str]]:
    pairs = []
    for stack, name in _STACKS.items():
        theirs, ours = f'{stack}.{{i}}', f'fusion.{name}.{{i}}'
        attentions = dict(mhatt='self_attention')
        if stack.startswith('dec'):
            attentions = dict(mhatt1='self_attention', mhatt2='guided_attention')
        pairs += [
            (f'{theirs}.{a}.{k}.{{p}}', f'{ours}.{b}.{v}.{{p}}')
            for a, b in attentions.items()
            for k, v in _ATTENTION.items()
        ]
        pairs += _perceptron(f'{theirs}.ffn.mlp', f'{ours}.feed_forward')
        pairs += [
            (f'{theirs}.norm{n + 1}.{part}', f'{ours}.norms.{n}.{part}')
            for n in range(len(attentions) + 1)
            for part in ('a_2', 'b_2')
        ]
    for pool, name in _POOLS.items():
        pairs += _perceptron(f'{pool}.mlp', f'pools.{name}.weigh')
        pairs.append((f'{pool}.linear_merge.{{p}}', f'pools.{name}.merge.{{p}}'))
    return pairs


def _perceptron(theirs: str, ours: str) -> list[tuple[str, str]]:
    return [
        (f'{theirs}.fc.linear.{{p}}', f'{ours}.0.{{p}}'),
        (f'{theirs}.linear.{{p}}', f'{ours}.3.{{p}}'),
    ]


#: Their names and ours, as templates.
NAMES = (
    ('lang_net.lstm.{rest}', 'text_encoder.lstm.{rest}'),
    *_detector(),
    ('lang_feat_linear.0.{p}', 'text_transform.{p}'),
    ('object_feat_linear.0.{p}', 'object_transform.{p}'),
    *_reader(),
    ('answer_cls.{i}.{p}', 'head.layers.{i}.{p}'),
    ('aux_reg.{i}.{p}', 'pose_head.layers.{i}.{p}'),
)
#: The head of answers in older files.
_OLDER = ('lang_cls.{i}.{p}', 'head.layers.{i}.{p}')
_DROPPED = (
    (r'[sq]_feat_linear\..*', 'projections of single texts, which the forward pass never calls'),
    (r'attflat_lstm_q\..*', 'a pooling that the forward pass never calls'),
    (r'object_cls\..*', 'a confidence of objects, which the forward pass never calls'),
    (r'lang_net\.lang_cls\..*', 'a classifier of texts, which is not used for questions'),
)
_REQUIRED = (
    'text_encoder.lstm.weight_ih_l0',
    f'{_OURS}.backbone.abstraction.3.layers.0.linear.weight',
    f'{_OURS}.voting.out.weight',
    f'{_OURS}.head.out.weight',
    'fusion.object_question_layers.0.guided_attention.query.weight',
    'pools.objects.merge.weight',
    'head.layers.0.weight',
    'head.layers.3.bias',
)


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
    if llm is not None:
        raise UserError(f'{origin} has no block of a language model. Fix: leave out --llm.')
    rules = Rules(renames=template_rules((*NAMES, _OLDER)), dropped=_DROPPED, required=_REQUIRED)
    renamed, _ = rename(state, rules, origin)
    converted = {k: _flat(k, v) for k, v in renamed.items()}
    _check_kind(converted, origin)
    converted[f'head.{FINGERPRINT}'] = _fingerprint(converted, answers, origin)
    return converted


def _flat(name: str, tensor: Tensor) -> Tensor:
    tensor = tensor.float() if tensor.is_floating_point() else tensor
    is_weight = name.endswith('.weight') and tensor.dim() > 2
    return tensor.flatten(1) if is_weight and tensor[0, 0].numel() == 1 else tensor


def _check_kind(state: dict[str, Tensor], origin: str) -> None:
    """Refuse the ablation without objects, whose head reads two features."""
    wanted = 3 * len(state['pools.objects.merge.weight'])
    found = state['head.layers.0.weight'].shape[1]
    if found != wanted:
        raise CheckpointError(
            f'{origin} was trained without objects (--wo3d): its head reads {found} channels, not '
            f'{wanted}.'
        )


def _fingerprint(state: dict[str, Tensor], answers: Corpus | None, origin: str) -> Tensor:
    rows = len(state['head.layers.3.bias'])
    if answers is None:
        raise UserError(f'{origin} has no answers itself. Fix: --answers answer_counter.json.')
    counts = count_answers(answers, '--answers')
    check('--answers: their number', len(counts), choices=(rows,))
    return vocabulary_digest(list(counts))


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
        UserError: The model has a block.
        CheckpointError: A key is unknown or missing: the model has other parts.
    """
    if any(k.startswith('neck.') for k in state):
        raise UserError(f"{origin} has a block ('neck...'), for which SQA3D has no place.")
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
