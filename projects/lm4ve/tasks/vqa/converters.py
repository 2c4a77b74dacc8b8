"""METER's released checkpoints (github.com/zdou0830/METER) as models of this suite.

CLIP's fused projections of queries, keys and values are three in ``transformers``, so
they are split.
"""

import re
from collections.abc import Sequence

from torch import Tensor

from lm4ve.convert.key_rules import Rules, rename, template_rules
from lm4ve.errors import check, listing, require
from lm4ve.tasks.vqa.datasets.answers import read_vocabulary
from lm4ve.text.vocabulary import FINGERPRINT, vocabulary_digest

_CLIP = 'vit_model.visual.'
_BLOCK = f'{_CLIP}transformer.resblocks.{{i}}.'
_IMAGE = 'image_encoder.model.'
_LAYER = f'{_IMAGE}encoder.layers.{{i}}.'
#: METER's names and ours; {p} is weight or bias, {i} a number, {rest} anything.
TRUNK = (
    ('vit_model.patch_embed.{rest}', f'{_IMAGE}patch_embed.{{rest}}'),
    ('vit_model.layers.{i}.blocks.{rest}', f'{_IMAGE}layers.{{i}}.blocks.{{rest}}'),
    ('vit_model.norm.{p}', f'{_IMAGE}norm.{{p}}'),
    # At the end of a stage in METER's Swin, at the begin of the next one in timm's.
    ('vit_model.layers.0.downsample.{rest}', f'{_IMAGE}layers.1.downsample.{{rest}}'),
    ('vit_model.layers.1.downsample.{rest}', f'{_IMAGE}layers.2.downsample.{{rest}}'),
    ('vit_model.layers.2.downsample.{rest}', f'{_IMAGE}layers.3.downsample.{{rest}}'),
    (f'{_CLIP}conv1.weight', f'{_IMAGE}embeddings.patch_embedding.weight'),
    (f'{_CLIP}class_embedding', f'{_IMAGE}embeddings.class_embedding'),
    (f'{_CLIP}positional_embedding', f'{_IMAGE}embeddings.position_embedding.weight'),
    (f'{_CLIP}ln_pre.{{p}}', f'{_IMAGE}pre_layrnorm.{{p}}'),
    (f'{_CLIP}ln_post.{{p}}', f'{_IMAGE}post_layernorm.{{p}}'),
    (f'{_BLOCK}attn.in_proj_{{p}}', f'{_LAYER}self_attn.in_proj.{{p}}'),
    (f'{_BLOCK}attn.out_proj.{{p}}', f'{_LAYER}self_attn.out_proj.{{p}}'),
    (f'{_BLOCK}ln_1.{{p}}', f'{_LAYER}layer_norm1.{{p}}'),
    (f'{_BLOCK}ln_2.{{p}}', f'{_LAYER}layer_norm2.{{p}}'),
    (f'{_BLOCK}mlp.c_fc.{{p}}', f'{_LAYER}mlp.fc1.{{p}}'),
    (f'{_BLOCK}mlp.c_proj.{{p}}', f'{_LAYER}mlp.fc2.{{p}}'),
    ('text_transformer.{rest}', 'text_encoder.model.{rest}'),
    ('cross_modal_text_transform.{p}', 'text_transform.{p}'),
    ('cross_modal_image_transform.{p}', 'image_transform.{p}'),
    ('token_type_embeddings.weight', 'token_types.weight'),
    ('cross_modal_text_layers.{rest}', 'fusion.text_layers.{rest}'),
    ('cross_modal_image_layers.{rest}', 'fusion.image_layers.{rest}'),
    ('cross_modal_text_pooler.dense.{p}', 'text_pooler.dense.{p}'),
    ('cross_modal_image_pooler.dense.{p}', 'image_pooler.dense.{p}'),
)
#: The head of each of our tasks.
HEADS = {
    'vqa': [('vqa_classifier.{i}.{p}', 'head.layers.{i}.{p}')],
    'retrieval': [
        ('rank_output.{p}', 'head.rank_output.{p}'),
        ('itm_score.fc.{p}', 'head.itm.fc.{p}'),
    ],
    'matching': [('itm_score.fc.{p}', 'head.fc.{p}')],
}
_DROPPED = (
    (r'vit_model\.(positional_embedding|ln_final\.\w+|token_embedding\.weight|text_projection'
     r'|logit_scale)', "the text half of CLIP, which METER's forward pass never calls"),
    (r'vit_model\.layers\..*\.(attn_mask|relative_position_index)', 'counting, not weights'),
    (r'vit_model\.visual\.proj', "CLIP's projection, which METER's forward pass never calls"),
    (r'text_transformer\.pooler\..*', 'a pooler that the forward pass never calls'),
    (r'text_transformer\.embeddings\.(position_ids|token_type_ids)', 'counting, not weights'),
    (r'mlm_score\..*', "pre-training's prediction of words"),
)  # fmt: skip
_REQUIRED = (
    'text_encoder.model.embeddings.word_embeddings.weight',
    'fusion.text_layers.0.crossattention.self.query.weight',
    'fusion.image_layers.0.crossattention.self.query.weight',
    'text_pooler.dense.weight',
    'image_pooler.dense.weight',
)


def convert_meter(
    state: dict[str, Tensor],
    task: str = 'auto',
    vocabulary: str | Sequence[str] | None = None,
    origin: str = 'The checkpoint',
) -> dict[str, Tensor]:
    """Convert a state of METER.

    Args:
        state (dict[str, Tensor]): By the released names, without ``module.``.
        task (str): What the model is for: 'vqa', 'retrieval' or 'matching'; 'auto'
            chooses by the heads in the file (a pre-trained model: 'matching'). For
            retrieval a pre-trained model's ``rank_output`` starts from ITM's row of the
            class "match", as in METER; for questions its head starts at random.
        vocabulary (str | Sequence[str], optional): The answers in the head's order,
            needed for a head of answers; see :class:`VQAHead`.
        origin (str): What messages call the file.

    Returns:
        dict[str, Tensor]: The state of a :class:`METER`, in fp32, whose image encoder
        is CLIP's (:class:`TransformersImageEncoder`) or Swin
        (:class:`TimmImageEncoder`).

    Raises:
        UserError: There is no vocabulary for a head of answers.
        CheckpointError: The file is of another model; a key is unknown or missing.
    """
    _check_encoder(state, origin)
    if task == 'auto':
        task = _task_of(state)
    # The counting of the text encoder's embeddings would fit a rename, too.
    kept = {}
    for name, tensor in state.items():
        if not any(re.fullmatch(pattern, name) for pattern, _ in _DROPPED):
            kept[name] = tensor
    converted = {}
    for name, tensor in rename(kept, _rules_of(task), origin).items():
        tensor = tensor.float()
        if '.in_proj.' not in name:
            converted[name] = tensor
            continue
        for part, rows in zip('qkv', tensor.chunk(3), strict=True):
            converted[name.replace('in_proj', f'{part}_proj')] = rows.contiguous()
    if task == 'retrieval':
        _start_ranking(converted)
    if task == 'vqa' and 'head.layers.3.bias' in converted:
        scores = len(converted['head.layers.3.bias'])
        answers = _read_answers(vocabulary, scores, origin)
        converted[f'head.{FINGERPRINT}'] = vocabulary_digest(answers)
    return converted


def _check_encoder(state: dict[str, Tensor], origin: str) -> None:
    """Refuse another image encoder in one message, rather than by a list of keys."""
    first_layers = {f'{_CLIP}conv1.weight', 'vit_model.patch_embed.proj.weight'}
    found = first_layers.intersection(state)
    require(
        len(found) == 1,
        f"{origin} is no METER with CLIP's ViT or Swin, which are what can be converted: it has "
        f'{listing(sorted(found)) or "neither of their first layers"}.',
    )


def _task_of(state: dict[str, Tensor]) -> str:
    """Return what a released model is for, by its heads."""
    heads = {name.partition('.')[0] for name in state}
    if 'vqa_classifier' in heads:
        return 'vqa'
    if 'rank_output' in heads:
        return 'retrieval'
    return 'matching'


def _rules_of(task: str) -> Rules:
    """Return the rules for a model of a task, which drop the heads of the others."""
    dropped = list(_DROPPED)
    for other, pairs in HEADS.items():
        if other == task:
            continue
        for pattern, _ in template_rules(pairs):
            dropped.append((pattern, f'not for {task}'))
    return Rules(template_rules((*TRUNK, *HEADS[task])), dropped, _REQUIRED)


def _start_ranking(converted: dict[str, Tensor]) -> None:
    """Give a pre-trained model without a ranking head ITM's row of the class "match"."""
    for part in ('weight', 'bias'):
        matching = converted.get(f'head.itm.fc.{part}')
        if matching is not None:
            converted.setdefault(f'head.rank_output.{part}', matching[1:].clone())


def _read_answers(
    vocabulary: str | Sequence[str] | None, scores: int, origin: str
) -> Sequence[str]:
    """Return the answers of a head with so many scores."""
    check(
        '--vocabulary, the answers of the head in their order',
        vocabulary,
        kind=(str, list),
    )
    assert vocabulary is not None
    answers = read_vocabulary(vocabulary, '--vocabulary')
    require(
        len(answers) == scores,
        f'--vocabulary has {len(answers)} answers, but {origin} has scores for {scores}. '
        'Fix: the answers that it was trained with, in their order.',
    )
    return answers
