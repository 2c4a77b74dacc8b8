"""Convert checkpoints of LLM4Seg, CMUNeXt, MedVisionLlama and LLMBoostMedical's ViViT.

A file's names decide which it is. LLMBoostMedical's 2D models have the names of the
paper's own ViT, which ``tools/convert_checkpoint.py image`` converts.
"""

from collections.abc import Sequence

from torch import Tensor

from lm4ve.blocks import LLMBlock, frozen_tensors
from lm4ve.blocks.provenance import SOURCE_KEY
from lm4ve.convert.key_rules import Rules, rename, template_rules
from lm4ve.convert.released_block import convert_state
from lm4ve.errors import CheckpointError, UserError, listing

State = dict[str, Tensor]
#: Places within a layer of CMUNeXt's code, and in ours: a depthwise part and a
#: pointwise one.
_CMUNEXT_PARTS = {'0.fn.0': 'spatial.{i}.0', '0.fn.2': 'spatial.{i}.2'} | {
    old: f'pointwise.{{i}}.{new}'
    for old, new in {'1': 0, '3': 2, '4': 3, '6': 5}.items()
}
CMUNEXT_RULES = Rules(
    renames=template_rules(
        [
            ('stem.conv.{rest}', 'backbone.stem.{rest}'),
            ('encoder{j}.up.conv.{rest}', 'backbone.encoder{j}.up.{rest}'),
            *(
                (
                    f'encoder{{j}}.block.{{i}}.{old}.{{rest}}',
                    f'backbone.encoder{{j}}.{new}.{{rest}}',
                )
                for old, new in _CMUNEXT_PARTS.items()
            ),
            *(
                (f'Up{n}.up.{{rest}}', f'decode_head.ups.{5 - n}.{{rest}}')
                for n in range(2, 6)
            ),
            *(
                (f'Up_conv{n}.conv.{{rest}}', f'decode_head.fusions.{5 - n}.{{rest}}')
                for n in range(2, 6)
            ),
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
_MAPPERS = ((1, 'backbone.llm_neck.mapper_in'), (2, 'backbone.llm_neck.mapper_out'))
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
            *(
                (f'llm_dim_mapper{n}.{{p}}', f'{at}.base_layer.{{p}}')
                for n, at in _MAPPERS
            ),
            *(
                (f'llm_dim_mapper{n}.lora_{x}', f'{at}.lora_{x}.default.weight')
                for n, at in _MAPPERS
                for x in 'AB'
            ),
        ]
    ),
    dropped=((r'vis_output_proj.*', 'draws pictures only'),),
    required=('backbone.embed.weight', 'backbone.pos_embed', 'head.weight'),
)
_ENCODERS = (('spatial', 'within'), ('temporal', 'across'))
VIVIT_RULES = Rules(
    renames=template_rules(
        [
            *(
                (f'to_patch_embedding.{n}.{{p}}', f'backbone.embed.{n - 1}.{{p}}')
                for n in (1, 2, 3)
            ),
            ('pos_embedding', 'backbone.pos_embed'),
            ('spatial_cls_token', 'backbone.slab_token'),
            ('temporal_cls_token', 'backbone.cls_token'),
            ('mlp_head.{p}', 'head.fc.{p}'),
            ('llama_dim_mapper1.weight', 'neck.mapper_in.weight'),
            ('llama_dim_mapper2.weight', 'neck.mapper_out.weight'),
            ('llama_dim_dim_mapper.weight', 'neck.skip.0.weight'),
            *(
                (f'{theirs}_transformer.{old}.{{p}}', f'backbone.{ours}.{new}.{{p}}')
                for theirs, ours in _ENCODERS
                for old, new in {
                    'norm': 'norm',
                    'layers.{i}.0.norm': 'attentions.{i}.norm',
                    'layers.{i}.0.to_qkv': 'attentions.{i}.qkv',
                    'layers.{i}.0.to_out.0': 'attentions.{i}.out',
                    'layers.{i}.1.net.0': 'mlps.{i}.0',
                    'layers.{i}.1.net.1': 'mlps.{i}.1',
                    'layers.{i}.1.net.4': 'mlps.{i}.3',
                }.items()
            ),
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
) -> State:
    """Convert a state of one of the four.

    Args:
        state (dict[str, Tensor]): By the released names.
        llm (str, optional): The language model of the block; needed if there is one.
        layer (int | Sequence[int]): The block's layer(s) in it.
        origin (str): Name of the file in messages.
        skip (bool): ViViT was trained in the mode ``llm_out_nn``, whose layer beside
            the block every file has.
        unmerged (bool): MedVisionLlama's mappers do not hold their low-rank update yet.
            Its code saves them in evaluation, where loralib has added it.

    Raises:
        UserError, CheckpointError: See
            :func:`lm4ve.convert.released_block.convert_state`.
    """
    if 'spatial_cls_token' in state:
        kept = {
            k: v
            for k, v in state.items()
            if skip or not k.startswith('llama_dim_dim_mapper')
        }
        return convert_state(kept, VIVIT_RULES, VIVIT_RULES, llm, layer, origin)
    if 'position_embed' in state:
        return _convert_medvisionllama(state, llm, layer, origin, unmerged)
    return _convert_cmunext(state, llm, layer, origin)


def _convert_medvisionllama(
    state: State,
    llm: str | None,
    layer: int | Sequence[int],
    origin: str,
    unmerged: bool,
) -> State:
    """Convert MedVisionLlama or its baseline. Its update is ``B A x / 4``: rank 4 and alpha 1."""
    state = {
        f'llama.{k[4:]}' if k.startswith('llm.') else k: v for k, v in state.items()
    }
    for n in (1, 2) if llm is not None and not unmerged else ():
        weight, a, b = (
            state[f'llm_dim_mapper{n}.{x}'].float()
            for x in ('weight', 'lora_A', 'lora_B')
        )
        state[f'llm_dim_mapper{n}.weight'] = weight - b @ a / len(a)
    converted = convert_state(
        state, VOLUME_VIT_RULES, VOLUME_VIT_RULES, llm, layer, origin
    )
    record = converted.pop(f'neck.block.{SOURCE_KEY}', None)
    if record is not None:
        converted[f'backbone.llm_neck.block.{SOURCE_KEY}'] = record
    return converted


def _convert_cmunext(
    state: State, llm: str | None, layer: int | Sequence[int], origin: str
) -> State:
    """Convert LLM4Seg or CMUNeXt. The record is that of the released computation."""
    prefix = 'llm4seg.llm.'
    theirs = {
        k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)
    }
    if bool(theirs) != (llm is not None):
        raise UserError(
            f"{origin} has {'a' if theirs else 'no'} block ('{prefix}...'). Fix: give --llm if and "
            'only if there is one.'
        )
    rest = {k: v for k, v in state.items() if not k.startswith(prefix)}
    converted = rename(rest, CMUNEXT_RULES, origin)
    if llm is not None:
        layers = (layer,) if isinstance(layer, int) else tuple(layer)
        block = LLMBlock(
            checkpoint=llm,
            layers=layers,
            causal=True,
            rotary='llm4seg',
            final_norm=False,
        )
        expected = frozen_tensors(block)
        found = rename(theirs, _LAYER_RULES, origin)
        wrong = [
            k for k in expected.keys() | found.keys() if not _equal(expected, found, k)
        ]
        if wrong:
            raise CheckpointError(
                f"{origin}: {listing(sorted(wrong))} differ from layers {layers} of '{llm}'. Fix: "
                '--llm, --layer.'
            )
        converted[f'backbone.llm_neck.block.{SOURCE_KEY}'] = block.state_dict()[
            SOURCE_KEY
        ]
    return converted


def _equal(expected: State, found: State, name: str) -> bool:
    if name not in expected or name not in found:
        return False
    a, b = expected[name], found[name]
    return a.shape == b.shape and bool((a.to(b.dtype) == b).all())
