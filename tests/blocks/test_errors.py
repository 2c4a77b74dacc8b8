"""Wrong arguments, inputs and unsupported models are refused by name."""

import json

import pytest
import torch
from mmengine.registry import MODELS

from lm4ve.blocks import LLMBlock
from lm4ve.errors import CheckpointError, UnsupportedModelError, UserError
from tests.helpers.blocks.inputs import tokens
from tests.helpers.families import FAMILIES

LLAMA = FAMILIES['llama']


ARGUMENTS = [
    (dict(), 'block.checkpoint=.*block.arch=.*exactly one'),
    (dict(checkpoint='x', arch=dict(model_type='llama')), 'exactly one'),
    (dict(arch={}), 'arch'),
    (dict(arch=dict(hidden_size=32)), 'arch'),
    (dict(arch='llama'), 'arch'),
    (dict(arch=[]), 'arch'),
    (dict(arch=dict(LLAMA, hidden_size='wide')), "valid 'llama'.*hidden_size"),
    (dict(arch=dict(LLAMA, num_attention_heads=5)), 'arch.*llama'),
    (dict(checkpoint='package:other'), 'all-MiniLM'),
    (dict(arch=dict(model_type='mixtral', num_local_experts=10**9)), 'at most 10000'),
    (dict(checkpoint='/no/such'), 'block.checkpoint'),
    (dict(checkpoint='./nowhere'), 'block.checkpoint'),
    (dict(checkpoint='a/b/c'), 'block.checkpoint'),
    (dict(checkpoint=''), 'block.checkpoint'),
    (dict(arch=LLAMA, trainable='some'), "trainable='some'.*none, norms, all"),
    (dict(arch=LLAMA, dtype='int4'), "='int4'.*float32, bfloat16"),
    (dict(arch=LLAMA, trainable='all', dtype='bfloat16'), 'block.dtype.*float32'),
    (dict(arch=LLAMA, trainable='all', dtype='float16'), 'block.dtype.*float32'),
    (dict(arch=LLAMA, layers=(2,)), 'block.layers'),
    (dict(arch=LLAMA, layers=(0, -3)), 'block.layers'),
    (dict(arch=LLAMA, layers=(1, -1)), 'block.layers'),
    (dict(arch=LLAMA, layers=()), 'block.layers'),
    (dict(arch=LLAMA, layers=1), 'block.layers'),
    (dict(arch=LLAMA, layers=('a',)), 'block.layers'),
    (dict(arch=LLAMA, layers=None), 'block.layers'),
]


@pytest.mark.parametrize('options, message', ARGUMENTS)
def test_arguments_are_refused_by_name(options, message):
    with pytest.raises(UserError, match=message):
        LLMBlock(**options)


def test_errors_keep_their_type_in_the_registry():
    # MMEngine raises a constructor's error again as type(e)(message).
    with pytest.raises(CheckpointError, match='does not exist'):
        MODELS.build(dict(type='LLMBlock', checkpoint='/no/such/folder'))


UNSUPPORTED_MODELS = [
    (dict(model_type='zaya'), "'zaya' has no layer spec.*llama.*blocks/families"),
    (dict(model_type='mamba'), 'recurrent'),
    (
        dict(model_type='no-such-wrapper', text_config=dict(model_type='granitemoe')),
        "'no-such-wrapper' has no layer spec, and transformers .* does not have it",
    ),
    (dict(model_type='bloom'), "'bloom' is refused.*alibi"),
    (dict(FAMILIES['falcon-rw'], alibi=True), 'falcon.*alibi=True.*Fix'),
    (dict(model_type='phi-msft'), 'remote-code.*model_type "phi"'),
    (dict(LLAMA, quantization_config=dict(quant_method='gptq')), 'unquantized'),
    (
        dict(LLAMA, num_local_experts=4),
        "'llama' with experts, which its layers do not have",
    ),
]


@pytest.mark.parametrize('fields, message', UNSUPPORTED_MODELS)
def test_unsupported_models_are_refused_with_the_reason(tmp_path, fields, message):
    (tmp_path / 'config.json').write_text(json.dumps(fields))
    for source in (dict(arch=fields), dict(checkpoint=str(tmp_path))):
        with pytest.raises(UnsupportedModelError, match=message):
            LLMBlock(**source)


@pytest.mark.parametrize('shape', [(2, 6, 31), (6, 32), (2, 32, 3, 3)])
def test_inputs_of_another_shape_are_refused(shape):
    with pytest.raises(UserError, match=r'takes \[B, N, 32\]'):
        LLMBlock(arch=LLAMA)(torch.zeros(shape))


PADDING_MASKS = [
    torch.zeros(2, 6),
    torch.zeros(2, 6, dtype=torch.long),
    torch.zeros(2, 5).bool(),
    torch.zeros(6).bool(),
]


@pytest.mark.parametrize('mask', PADDING_MASKS)
def test_padding_masks_of_another_form_are_refused(mask):
    with pytest.raises(UserError, match='padding_mask must be bool'):
        LLMBlock(arch=LLAMA)(tokens(), padding_mask=mask)


def test_a_sample_that_is_all_padding_is_refused():
    mask = torch.tensor([[False] * 6, [True] * 6])
    with pytest.raises(UserError, match='padding_mask marks every token'):
        LLMBlock(arch=LLAMA)(tokens(), padding_mask=mask)


def test_compiled_a_sample_that_is_all_padding_becomes_nan():
    """Compiled code, and a training on a GPU, cannot ask without a wait."""
    mask = torch.tensor([[False] * 6, [True] * 6])
    block = LLMBlock(arch=LLAMA)
    x = tokens()
    computed, refused = torch.compile(block, backend='eager')(x, padding_mask=mask)
    assert refused.isnan().all()
    torch.testing.assert_close(computed, block(x[:1])[0])


QUERIES = [
    0,
    [0, 1],
    torch.tensor([0, 1]),
    torch.zeros(2, 1, dtype=torch.int32),
    torch.ones(2, 6).bool(),
    torch.zeros(3, 1, dtype=torch.long),
]


@pytest.mark.parametrize('queries', QUERIES)
def test_queries_of_another_form_are_refused(queries):
    with pytest.raises(UserError, match=r'queries(=| must be)'):
        LLMBlock(arch=LLAMA)(tokens(), queries=queries)
