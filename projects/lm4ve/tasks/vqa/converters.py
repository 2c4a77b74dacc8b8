"""METER's released checkpoints (github.com/zdou0830/METER) as models of this suite, and back.

One table serves both ways. CLIP's fused projections of queries, keys and values are
three in ``transformers``, so they are split, or joined on the way back.
"""

import re
from collections.abc import Sequence

import torch
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
    *(
        (
            f'vit_model.layers.{i}.downsample.{{rest}}',
            f'{_IMAGE}layers.{i + 1}.downsample.{{rest}}',
        )
        for i in range(3)
    ),
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
HEADS = dict(
    vqa=(('vqa_classifier.{i}.{p}', 'head.layers.{i}.{p}'),),
    retrieval=(
        ('rank_output.{p}', 'head.rank_output.{p}'),
        ('itm_score.fc.{p}', 'head.itm.fc.{p}'),
    ),
    matching=(('itm_score.fc.{p}', 'head.fc.{p}'),),
)
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
    # Another encoder in one message, rather than by a list of keys.
    found = {f'{_CLIP}conv1.weight', 'vit_model.patch_embed.proj.weight'}.intersection(
        state
    )
    require(
        len(found) == 1,
        f"{origin} is no METER with CLIP's ViT or Swin, which are what can be converted: it has "
        f'{listing(sorted(found)) or "neither of their first layers"}.',
    )
    if task == 'auto':
        heads = {name.partition('.')[0] for name in state}
        task = 'retrieval' if 'rank_output' in heads else 'matching'
        task = 'vqa' if 'vqa_classifier' in heads else task
    others = [(p, f'not for {task}') for k, pairs in HEADS.items() if k != task
              for p, _ in template_rules(pairs)]  # fmt: skip
    renames = template_rules((*TRUNK, *HEADS[task]))
    rules = Rules(renames, (*_DROPPED, *others), _REQUIRED)
    # The counting of the text encoder's embeddings would fit a rename, too.
    kept = {
        k: v
        for k, v in state.items()
        if not any(re.fullmatch(p, k) for p, _ in _DROPPED)
    }
    converted = {}
    for name, tensor in rename(kept, rules, origin).items():
        if '.in_proj.' in name:
            for part, rows in zip('qkv', tensor.float().chunk(3), strict=True):
                converted[name.replace('in_proj', f'{part}_proj')] = rows.contiguous()
        else:
            converted[name] = tensor.float()
    for part in ('weight', 'bias') if task == 'retrieval' else ():
        if (itm := f'head.itm.fc.{part}') in converted:
            converted.setdefault(f'head.rank_output.{part}', converted[itm][1:].clone())
    if task == 'vqa' and (bias := converted.get('head.layers.3.bias')) is not None:
        check(
            '--vocabulary, the answers of the head in their order',
            vocabulary,
            kind=(str, list),
        )
        assert vocabulary is not None
        answers = read_vocabulary(vocabulary, '--vocabulary')
        require(
            len(answers) == len(bias),
            f'--vocabulary has {len(answers)} answers, but {origin} has scores for {len(bias)}. '
            'Fix: the answers that it was trained with, in their order.',
        )
        converted[f'head.{FINGERPRINT}'] = vocabulary_digest(answers)
    return converted


def to_meter(
    state: dict[str, Tensor], origin: str = 'The checkpoint'
) -> dict[str, Tensor]:
    """Convert a state of ours into METER's names.

    Args:
        state (dict[str, Tensor]): The state of a :class:`METER` with CLIP or Swin,
            without a block.
        origin (str): What messages call the file.

    Returns:
        dict[str, Tensor]: By the released names. What METER never calls (the text half
        of CLIP, a pooler of the text encoder) is not in it; METER's loading is not
        strict.

    Raises:
        UserError: The model has a block, or a head that METER has not.
        CheckpointError: A key is unknown or missing.
    """
    for part in ('neck.', 'head.contrastive.'):
        found = any(k.startswith(part) for k in state)
        require(
            not found,
            f"{origin} has '{part}', for which the released METER has no place.",
        )
    joined = {}
    for name, tensor in state.items():
        if match := re.fullmatch(r'(.*\.self_attn\.)q_proj(\..*)', name):
            parts = [state[f'{match[1]}{part}_proj{match[2]}'] for part in 'qkv']
            joined[f'{match[1]}in_proj{match[2]}'] = torch.cat(parts)
        elif not re.fullmatch(r'.*\.self_attn\.[kv]_proj\..*', name):
            joined[name] = tensor
    pairs = [pair for head in HEADS.values() for pair in head]
    table = [(ours, theirs) for theirs, ours in (*TRUNK, *pairs)]
    dropped = [(rf'head\.{FINGERPRINT}', 'METER keeps no record of its answers')]
    required = ['cross_modal_text_pooler.dense.weight']
    return rename(joined, Rules(template_rules(table), dropped, required), origin)
