"""SQA3D's released checkpoints (github.com/SilongYong/SQA3D) as models of this suite.

The release has convolutions of size 1 where we have Linear, so that their weights lose
dimensions of 1.
"""

from collections.abc import Iterator

from torch import Tensor

from lm4ve.convert.key_rules import Rules, rename, template_rules
from lm4ve.errors import require
from lm4ve.tasks.rooms.models.heads import Corpus, count_answers
from lm4ve.text.vocabulary import FINGERPRINT, vocabulary_digest

#: Stacks of self-attention, and those whose layers attend to a guide, too.
_PLAIN_STACKS = {'enc_list_s': 'situation_layers', 'enc_list_q': 'question_layers'}
_GUIDED_STACKS = {
    'dec_list': 'object_situation_layers',
    'dec_list_2': 'object_question_layers',
}
#: The attentions of their layers.
_PLAIN_ATTENTIONS = {'mhatt': 'self_attention'}
_GUIDED_ATTENTIONS = {'mhatt1': 'self_attention', 'mhatt2': 'guided_attention'}
#: The linear layers of an attention.
_LINEARS = {
    'linear_q': 'query',
    'linear_k': 'key',
    'linear_v': 'value',
    'linear_merge': 'merge',
}
_POOLS = {
    'attflat_visual': 'objects',
    'attflat_s': 'situation',
    'attflat_q': 'question',
}


def _names() -> Iterator[tuple[str, str]]:
    """Yield their names and ours, as templates of :func:`template_rules`."""
    yield 'lang_net.lstm.{rest}', 'text_encoder.lstm.{rest}'
    yield 'lang_feat_linear.0.{p}', 'text_transform.{p}'
    yield 'object_feat_linear.0.{p}', 'object_transform.{p}'
    yield 'answer_cls.{i}.{p}', 'head.layers.{i}.{p}'
    yield 'aux_reg.{i}.{p}', 'pose_head.layers.{i}.{p}'
    for theirs, ours in _detector():
        yield theirs, f'object_encoder.{ours}'
    for theirs, ours in _PLAIN_STACKS.items():
        yield from _layer_names(theirs, f'fusion.{ours}', _PLAIN_ATTENTIONS)
    for theirs, ours in _GUIDED_STACKS.items():
        yield from _layer_names(theirs, f'fusion.{ours}', _GUIDED_ATTENTIONS)
    for theirs, ours in _POOLS.items():
        yield f'{theirs}.mlp.fc.linear.{{p}}', f'pools.{ours}.weigh.0.{{p}}'
        yield f'{theirs}.mlp.linear.{{p}}', f'pools.{ours}.weigh.3.{{p}}'
        yield f'{theirs}.linear_merge.{{p}}', f'pools.{ours}.merge.{{p}}'


def _layer_names(
    theirs: str, ours: str, attentions: dict[str, str]
) -> Iterator[tuple[str, str]]:
    """Yield their names and ours of the layers of a stack, by the stack's names."""
    theirs = f'{theirs}.{{i}}'
    ours = f'{ours}.{{i}}'
    for their_attention, attention in attentions.items():
        for their_linear, linear in _LINEARS.items():
            yield (
                f'{theirs}.{their_attention}.{their_linear}.{{p}}',
                f'{ours}.{attention}.{linear}.{{p}}',
            )
    yield f'{theirs}.ffn.mlp.fc.linear.{{p}}', f'{ours}.feed_forward.0.{{p}}'
    yield f'{theirs}.ffn.mlp.linear.{{p}}', f'{ours}.feed_forward.3.{{p}}'
    for n in range(len(attentions) + 1):
        for part in ('a_2', 'b_2'):
            yield f'{theirs}.norm{n + 1}.{part}', f'{ours}.norms.{n}.{part}'


def _detector() -> Iterator[tuple[str, str]]:
    """Yield their names and ours of VoteNet's parts."""
    shared = {'proposal_net.vote_aggregation.mlp_module': 'aggregation'}
    for i in range(4):
        shared[f'detection_backbone.sa{i + 1}.mlp_module'] = f'backbone.abstraction.{i}'
    for i in range(2):
        shared[f'detection_backbone.fp{i + 1}.mlp'] = f'backbone.propagation.{i}'
        yield f'voting_net.conv{i + 1}.{{p}}', f'voting.layers.{i}.linear.{{p}}'
        yield f'voting_net.bn{i + 1}.{{rest}}', f'voting.layers.{i}.norm.{{rest}}'
        yield f'proposal_net.proposal.{3 * i}.{{p}}', f'head.layers.{i}.linear.{{p}}'
        yield (
            f'proposal_net.proposal.{3 * i + 1}.{{rest}}',
            f'head.layers.{i}.norm.{{rest}}',
        )
    yield 'voting_net.conv3.{p}', 'voting.out.{p}'
    yield 'proposal_net.proposal.6.{p}', 'head.out.{p}'
    for theirs, ours in shared.items():
        yield f'{theirs}.layer{{j}}.conv.weight', f'{ours}.layers.{{j}}.linear.weight'
        yield (
            f'{theirs}.layer{{j}}.bn.bn.{{rest}}',
            f'{ours}.layers.{{j}}.norm.{{rest}}',
        )


#: Older files call the head of poses ``lang_cls``; the release's scripts/test.py
#: renames it.
_RULES = template_rules([*_names(), ('lang_cls.{i}.{p}', 'pose_head.layers.{i}.{p}')])
_DROPPED = (
    (
        r'[sq]_feat_linear\..*',
        'projections of single texts, which the forward pass never calls',
    ),
    (r'attflat_lstm_q\..*', 'a pooling that the forward pass never calls'),
    (r'object_cls\..*', 'a confidence of objects, which the forward pass never calls'),
    (
        r'lang_net\.lang_cls\..*',
        'a classifier of texts, which is not used for questions',
    ),
)


def convert_sqa3d(
    state: dict[str, Tensor],
    answers: Corpus | None = None,
    origin: str = 'The checkpoint',
) -> dict[str, Tensor]:
    """Convert a state of SQA3D's ScanQA baseline.

    Args:
        state (dict[str, Tensor]): By the released names, without ``module.``. The head
            of poses may be called ``aux_reg`` or, as in older files, ``lang_cls``.
        answers (str | Sequence[str] | Mapping[str, int]): The corpus that it was
            trained on, as of :class:`SceneAnswerHead`.
        origin (str): What messages call the file.

    Returns:
        dict[str, Tensor]: The state of an :class:`SQA3D` with :class:`VoteNet`,
        :class:`LSTMTextEncoder` and :class:`PoseHead`; floats in fp32.

    Raises:
        UserError, TypeError: There are no answers or not as many as the head has.
        CheckpointError: The file is of another model; a key is unknown or missing.
    """
    required = ['text_encoder.lstm.weight_ih_l0', 'object_encoder.voting.out.weight']
    renamed = rename(state, Rules(_RULES, _DROPPED, required), origin)
    converted = {}
    for name, tensor in renamed.items():
        if tensor.is_floating_point():
            tensor = tensor.float()
        if _is_convolution_of_size_1(name, tensor):
            tensor = tensor.flatten(1)
        converted[name] = tensor
    counts = count_answers(answers or (), '--answers')
    scores = len(converted['head.layers.3.bias'])
    require(
        len(counts) == scores,
        f'--answers: they are {len(counts)}, but the checkpoint has scores for {scores}. Fix: the '
        'answers that it was trained with.',
    )
    converted[f'head.{FINGERPRINT}'] = vocabulary_digest(list(counts))
    return converted


def _is_convolution_of_size_1(name: str, tensor: Tensor) -> bool:
    if not name.endswith('.weight') or tensor.dim() <= 2:
        return False
    return tensor[0, 0].numel() == 1
