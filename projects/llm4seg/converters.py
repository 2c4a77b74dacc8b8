"""Convert checkpoints of LLM4Seg, CMUNeXt, MedVisionLlama and LLMBoostMedical's ViViT.

A file's names decide which it is. LLMBoostMedical's 2D models have the names of the
paper's own ViT, which ``tools/convert_checkpoint.py image`` converts.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lm4ve.blocks import LLMBlock, frozen_tensors
from lm4ve.blocks.record_text import KEY, encode_record
from lm4ve.convert.key_rules import Rules, rename, template_rules
from lm4ve.convert.released_block import BLOCK_PREFIX, convert_state
from lm4ve.errors import CheckpointError, UserError, listing

State = dict[str, Tensor]
#: Part of a layer in CMUNeXt's code -> in ours, the depthwise and the pointwise half.
_CMUNEXT_PARTS = {
    '0.fn.0': 'spatial.{i}.0',
    '0.fn.2': 'spatial.{i}.2',
    '1': 'pointwise.{i}.0',
    '3': 'pointwise.{i}.2',
    '4': 'pointwise.{i}.3',
    '6': 'pointwise.{i}.5',
}


def _cmunext_parts() -> list[tuple[str, str]]:
    """Return the templates of the parts of CMUNeXt's layers."""
    pairs = []
    for old, new in _CMUNEXT_PARTS.items():
        old_name = f'encoder{{j}}.block.{{i}}.{old}.{{rest}}'
        pairs.append((old_name, f'backbone.encoder{{j}}.{new}.{{rest}}'))
    return pairs


CMUNEXT_RULES = Rules(
    renames=template_rules(
        [
            ('stem.conv.{rest}', 'backbone.stem.{rest}'),
            ('encoder{j}.up.conv.{rest}', 'backbone.encoder{j}.up.{rest}'),
            *_cmunext_parts(),
            ('Up5.up.{rest}', 'decode_head.ups.0.{rest}'),
            ('Up4.up.{rest}', 'decode_head.ups.1.{rest}'),
            ('Up3.up.{rest}', 'decode_head.ups.2.{rest}'),
            ('Up2.up.{rest}', 'decode_head.ups.3.{rest}'),
            ('Up_conv5.conv.{rest}', 'decode_head.fusions.0.{rest}'),
            ('Up_conv4.conv.{rest}', 'decode_head.fusions.1.{rest}'),
            ('Up_conv3.conv.{rest}', 'decode_head.fusions.2.{rest}'),
            ('Up_conv2.conv.{rest}', 'decode_head.fusions.3.{rest}'),
            ('Conv_1x1.{p}', 'decode_head.conv_seg.{p}'),
            ('llm4seg.adapter1.{p}', 'backbone.llm_neck.mapper_in.{p}'),
            ('llm4seg.adapter2.{p}', 'backbone.llm_neck.mapper_out.{p}'),
        ]
    ),
    required=('backbone.stem.0.weight', 'decode_head.conv_seg.weight'),
)
#: A layer by the names of ``transformers``, and by those of LLMBlock.
_LAYER_RULES = Rules(
    renames=(
        (r'self_attn\.(\w_proj\.\w+)', r'layers.0.\1'),
        (r'mlp\.(.*)', r'layers.0.mlp.\1'),
        (r'input_layernorm\.weight', 'layers.0.attention_norm.weight'),
        (r'post_attention_layernorm\.weight', 'layers.0.mlp_norm.weight'),
    )
)
_IN = 'backbone.llm_neck.mapper_in'
_OUT = 'backbone.llm_neck.mapper_out'
VOLUME_VIT_RULES = Rules(
    renames=template_rules(
        [
            ('pe.embed_layer.{p}', 'backbone.embed.{p}'),
            ('position_embed', 'backbone.pos_embed'),
            ('attention_blocks.{i}.ln{j}.{p}', 'backbone.layers.{i}.ln{j}.{p}'),
            ('attention_blocks.{i}.mha.{rest}', 'backbone.layers.{i}.attn.{rest}'),
            (
                'attention_blocks.{i}.mlp.layers.{j}.{p}',
                'backbone.layers.{i}.mlp.{j}.{p}',
            ),
            ('output_proj.projection.{p}', 'head.{p}'),
            ('llm_dim_mapper1.{p}', f'{_IN}.base_layer.{{p}}'),
            ('llm_dim_mapper1.lora_A', f'{_IN}.lora_A.default.weight'),
            ('llm_dim_mapper1.lora_B', f'{_IN}.lora_B.default.weight'),
            ('llm_dim_mapper2.{p}', f'{_OUT}.base_layer.{{p}}'),
            ('llm_dim_mapper2.lora_A', f'{_OUT}.lora_A.default.weight'),
            ('llm_dim_mapper2.lora_B', f'{_OUT}.lora_B.default.weight'),
        ]
    ),
    dropped=((r'vis_output_proj.*', 'draws pictures only'),),
    required=('backbone.embed.weight', 'backbone.pos_embed', 'head.weight'),
)
#: Encoder in LLMBoostMedical's code -> in ours.
_ENCODERS = {'spatial': 'within', 'temporal': 'across'}
#: Part of an encoder in LLMBoostMedical's code -> in ours.
_ENCODER_PARTS = {
    'norm': 'norm',
    'layers.{i}.0.norm': 'attentions.{i}.norm',
    'layers.{i}.0.to_qkv': 'attentions.{i}.qkv',
    'layers.{i}.0.to_out.0': 'attentions.{i}.out',
    'layers.{i}.1.net.0': 'mlps.{i}.0',
    'layers.{i}.1.net.1': 'mlps.{i}.1',
    'layers.{i}.1.net.4': 'mlps.{i}.3',
}


def _vivit_encoders() -> list[tuple[str, str]]:
    """Return the templates of the parts of ViViT's encoders."""
    pairs = []
    for old_encoder, encoder in _ENCODERS.items():
        for old, new in _ENCODER_PARTS.items():
            old_name = f'{old_encoder}_transformer.{old}.{{p}}'
            pairs.append((old_name, f'backbone.{encoder}.{new}.{{p}}'))
    return pairs


VIVIT_RULES = Rules(
    renames=template_rules(
        [
            ('to_patch_embedding.1.{p}', 'backbone.embed.0.{p}'),
            ('to_patch_embedding.2.{p}', 'backbone.embed.1.{p}'),
            ('to_patch_embedding.3.{p}', 'backbone.embed.2.{p}'),
            ('pos_embedding', 'backbone.pos_embed'),
            ('spatial_cls_token', 'backbone.slab_token'),
            ('temporal_cls_token', 'backbone.cls_token'),
            ('mlp_head.{p}', 'head.fc.{p}'),
            ('llama_dim_mapper1.weight', 'neck.mapper_in.weight'),
            ('llama_dim_mapper2.weight', 'neck.mapper_out.weight'),
            ('llama_dim_dim_mapper.weight', 'neck.skip.0.weight'),
            *_vivit_encoders(),
        ]
    ),
    required=('backbone.pos_embed', 'backbone.slab_token', 'head.fc.weight'),
)


def convert_medical(
    state: State,
    llm: str | None = None,
    layer: int | Sequence[int] = -1,
    origin: str = 'The checkpoint',
    skip: bool = False,
    unmerged: bool = False,
    input_scale: float = 1 / 255,
) -> State:
    """Convert a state of one of the four released models, whichever its names show it to be.

    Args:
        state (dict[str, Tensor]): By the released names.
        llm (str, optional): The language model of the block; needed if there is one.
        layer (int | Sequence[int]): The block's layer(s) in it.
        origin (str): Name of the file in messages.
        skip (bool): Keep the skip layer, which lies beside ViViT's block. Every file has
            one, but only the mode of training ``llm_out_nn`` uses it; otherwise it is
            left out.
        unmerged (bool): MedVisionLlama's mappers do not hold their low-rank update yet.
            Its code saves them in evaluation, where loralib has added it.
        input_scale (float): The factor of CMUNeXt's pixels that the checkpoint was
            trained with; by default that of LLM4Seg's code.

    Raises:
        UserError, CheckpointError: See
            :func:`lm4ve.convert.released_block.convert_state`.
    """
    if 'spatial_cls_token' in state:
        if not skip:
            state = _without(state, 'llama_dim_dim_mapper')
        # One table serves both: in a file without mappers their rules match nothing.
        return convert_state(
            state,
            plain=VIVIT_RULES,
            with_block=VIVIT_RULES,
            llm=llm,
            layer=layer,
            origin=origin,
        )
    if 'position_embed' in state:
        return _convert_medvisionllama(state, llm, layer, origin, unmerged)
    # CMUNeXt's, or an unknown state: its rules refuse one that lacks their names.
    converted = _convert_cmunext(state, llm, layer, origin)
    converted['backbone.input_scale'] = torch.tensor(input_scale)
    return converted


def _without(state: State, prefix: str) -> State:
    """Return the tensors whose names do not begin with a prefix."""
    others = {}
    for name, tensor in state.items():
        if not name.startswith(prefix):
            others[name] = tensor
    return others


def _below(state: State, prefix: str) -> State:
    """Return the tensors whose names begin with a prefix; their new names lack it."""
    below = {}
    for name, tensor in state.items():
        if name.startswith(prefix):
            below[name.removeprefix(prefix)] = tensor
    return below


def _convert_medvisionllama(
    state: State,
    llm: str | None,
    layer: int | Sequence[int],
    origin: str,
    unmerged: bool,
) -> State:
    """Convert MedVisionLlama, or its baseline without a language model.

    LoRA trains the two mappers around the block: a file holds the weight W of each
    beside the factors A and B. loralib adds their product to W in evaluation, so that
    most files hold the sum in place of W. Our mappers are peft's, which keep W apart
    and add the product themselves; it is taken out here.

    Args:
        state (dict[str, Tensor]): By the released names.
        llm (str, optional): The language model of the block; None for the baseline.
        layer (int | Sequence[int]): The block's layer(s) in it.
        origin (str): Name of the file in messages.
        unmerged (bool): The file holds W itself, from which nothing is taken.
    """
    # convert_state and compare_block find a block by their own prefix.
    renamed = _without(state, 'llm.')
    for name, tensor in _below(state, 'llm.').items():
        renamed[f'{BLOCK_PREFIX}{name}'] = tensor
    if llm is not None and not unmerged:
        for mapper in ('llm_dim_mapper1', 'llm_dim_mapper2'):
            renamed[f'{mapper}.weight'] = _without_update(renamed, mapper)
    # One table serves both: in a file without mappers their rules match nothing.
    converted = convert_state(
        renamed,
        plain=VOLUME_VIT_RULES,
        with_block=VOLUME_VIT_RULES,
        llm=llm,
        layer=layer,
        origin=origin,
        kv_heads='tiled',
    )
    # Here the neck with the block is inside the backbone, not beside it.
    for name in (KEY, f'block.{KEY}'):
        record = converted.pop(f'neck.{name}', None)
        if record is not None:
            converted[f'backbone.llm_neck.{name}'] = record
    return converted


def _without_update(state: State, mapper: str) -> Tensor:
    """Return a mapper's weight W, given the sum W + B A / rank that loralib stored.

    loralib's factor is alpha / rank; the released code leaves alpha at 1.

    Args:
        state (dict[str, Tensor]): The sum ``[out, in]`` and the factors A ``[rank, in]``
            and B ``[out, rank]``, by the released names.
        mapper (str): How the three names begin.

    Returns:
        Tensor: fp32 ``[out, in]``.
    """
    merged = state[f'{mapper}.weight'].float()
    a = state[f'{mapper}.lora_A'].float()
    b = state[f'{mapper}.lora_B'].float()
    rank = len(a)
    return merged - b @ a / rank


def _convert_cmunext(
    state: State, llm: str | None, layer: int | Sequence[int], origin: str
) -> State:
    """Convert LLM4Seg, or CMUNeXt, which is the same without a block.

    LLM4Seg's file holds its layer by the names of ``transformers``. That layer is
    compared with the language model's and left out; a record of its source takes its
    place.
    """
    prefix = 'llm4seg.llm.'
    stored_layer = _below(state, prefix)
    has_block = len(stored_layer) > 0
    if has_block != (llm is not None):
        article = 'a' if has_block else 'no'
        raise UserError(
            f"{origin} has {article} block ('{prefix}...'). Fix: give --llm if and only if "
            'there is one.'
        )
    converted = rename(_without(state, prefix), CMUNEXT_RULES, origin)
    if llm is not None:
        record = _compare_layer(stored_layer, llm, layer, origin)
        converted[f'backbone.llm_neck.block.{KEY}'] = record
        converted[f'backbone.llm_neck.{KEY}'] = encode_record({})
    return converted


def _compare_layer(
    stored_layer: State, llm: str, layer: int | Sequence[int], origin: str
) -> Tensor:
    """Compare LLM4Seg's layer with a language model's, and return the block's record.

    The record is that of the released computation: causal, with rotary embedding of its
    own, and without a final norm.

    Args:
        stored_layer (dict[str, Tensor]): By the names of ``transformers``.
        llm (str): The language model.
        layer (int | Sequence[int]): The layer in it.
        origin (str): Name of the file in messages.

    Raises:
        CheckpointError: Tensors differ.
    """
    layers = (layer,) if isinstance(layer, int) else tuple(layer)
    block = LLMBlock(
        checkpoint=llm, layers=layers, causal=True, rotary='llm4seg', final_norm=False
    )
    expected = frozen_tensors(block)
    stored = rename(stored_layer, _LAYER_RULES, origin)
    differing = []
    for name in expected.keys() | stored.keys():
        if not _are_equal(expected.get(name), stored.get(name)):
            differing.append(name)
    if differing:
        raise CheckpointError(
            f"{origin}: {listing(sorted(differing))} differ from layers {layers} of '{llm}'. "
            "Fix: --llm, --layer. LLM4Seg's code takes layer 14 whatever its own --layer says "
            '(CMUNeXt.py:172).'
        )
    return block.get_extra_state()


def _are_equal(expected: Tensor | None, stored: Tensor | None) -> bool:
    """Return whether a language model's tensor equals the file's in the file's precision.

    A tensor that is missing (None) on one side equals nothing.
    """
    if expected is None or stored is None or expected.shape != stored.shape:
        return False
    return bool((expected.to(stored.dtype) == stored).all())
