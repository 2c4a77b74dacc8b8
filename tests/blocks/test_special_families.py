"""Wrappers, mixtures of experts, layers that are refused, and the documentation's tables."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lm4ve.blocks import FAMILIES as SPECS
from lm4ve.blocks import LLMBlock
from lm4ve.blocks.families import REFUSED, WRAPPERS
from lm4ve.errors import CheckpointError, UnsupportedModelError, UserError
from tests.blocks.test_families import tokens
from tests.helpers.families import FAMILIES, write_huggingface
from tools.dev.write_tables import with_tables

GUIDE = Path(__file__).resolve().parents[2] / 'docs/guides/language_models.md'


def test_the_guide_has_the_tables_that_the_specs_make():
    page = GUIDE.read_text()
    assert f'{len(SPECS)} families' in page, 'python tools/dev/write_tables.py'
    assert with_tables(page) == page, 'python tools/dev/write_tables.py'
    assert with_tables(page.replace('apertus', '')) == page


@pytest.mark.parametrize('wrapper', WRAPPERS)
def test_the_text_part_of_a_wrapper_makes_a_block(wrapper):
    text = FAMILIES[WRAPPERS[wrapper]]
    block = LLMBlock(arch=dict(model_type=wrapper, text_config=text))
    assert block.source['model_type'] == WRAPPERS[wrapper]
    assert block.embed_dims == text['hidden_size']


FULL, LINEAR = 'full_attention', 'linear_attention'


UNUSABLE = [
    *((None, dict(model_type=kind), -1, f"'{kind}' is refused: ") for kind in REFUSED),
    (
        *('lfm2', dict(layer_types=[FULL, 'conv', 'conv'], num_hidden_layers=3), -1),
        "Layer 2 .*'conv'.*nearest layer that has is 0.*Fix: change block.layers",
    ),
    (
        *('qwen3_next', dict(layer_types=[LINEAR, FULL, LINEAR], num_hidden_layers=3), 0),
        "Layer 0 .*'linear_attention'.*nearest layer that has is 1",
    ),
    ('qwen3_5_text', dict(layer_types=[LINEAR] * 2), 0, 'no layer has'),
    ('gemma4_text', dict(num_kv_shared_layers=1, layer_types=[FULL] * 2), 1, 'own'),
    ('gemma4_text', dict(hidden_size_per_layer_input=8), 0, "token's id"),
    ('albert', dict(inner_group_num=2), 0, 'inner_group_num=2'),
]


@pytest.mark.parametrize('variant, changes, layer, reason', UNUSABLE)
def test_families_and_layers_are_refused_with_the_reason(variant, changes, layer, reason):
    with pytest.raises(UnsupportedModelError, match=reason):
        LLMBlock(arch=dict(FAMILIES.get(variant, {}), **changes), layers=(layer,))


def test_positions_that_a_family_scales_by_are_refused():
    block = LLMBlock(arch=FAMILIES['ministral3'], rotary=True)
    with pytest.raises(UserError, match='block.rotary=True of .ministral3.=65.*at most 64'):
        block(tokens(length=65))
    LLMBlock(arch=FAMILIES['ministral3'])(tokens(length=65))


@pytest.mark.parametrize('variant', ['mixtral', 'qwen3_next'])
def test_joined_experts_equal_stored_ones(tmp_path, variant):
    # One writer stores a matrix an expert, the other what the layer has.
    apart = write_huggingface(tmp_path / 'apart', variant)
    joined = write_huggingface(tmp_path / 'joined', variant, layout='sharded-safetensors')
    assert any('.experts.3.' in name for name in load_file(apart / 'model.safetensors'))
    blocks = [LLMBlock(str(folder), layers=(0,)) for folder in (apart, joined)]
    assert torch.equal(*(block(tokens()) for block in blocks))
    assert len({block.source['fingerprint'] for block in blocks}) == 1


DAMAGES = [
    lambda state, name: state.pop(name),
    lambda state, name: state.update({name: state[name][1:]}),
    lambda state, name: state.update({name: state[name].half()}),
]


@pytest.mark.parametrize('damage', DAMAGES)
def test_damaged_experts_are_refused(tmp_path, damage):
    file = write_huggingface(tmp_path, 'mixtral') / 'model.safetensors'
    state = load_file(file)
    damage(state, next(n for n in state if '.1.block_sparse_moe.experts.2.w1.' in n))
    save_file({k: v.contiguous() for k, v in state.items()}, file)
    with pytest.raises(CheckpointError, match='expert'):
        LLMBlock(str(tmp_path))
