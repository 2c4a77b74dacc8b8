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
NO_LAYERS = ((2,), (0, -3), (1, -1), (), 1, ('a',), None)


ARGUMENTS = [
    (dict(), 'block.checkpoint=.*block.arch=.*exactly one'),
    (dict(checkpoint='x', arch=dict(model_type='llama')), 'exactly one'),
    *((dict(arch=arch), 'arch') for arch in ({}, dict(hidden_size=32), 'llama', [])),
    (dict(arch=dict(LLAMA, hidden_size='wide')), "valid 'llama'.*hidden_size"),
    (dict(arch=dict(LLAMA, num_attention_heads=5)), 'arch.*llama'),
    (dict(checkpoint='package:other'), 'all-MiniLM'),
    (dict(arch=dict(model_type='mixtral', num_local_experts=10**9)), 'at most 10000'),
    *(
        (dict(checkpoint=p), 'block.checkpoint')
        for p in ('/no/such', './nowhere', 'a/b/c', '')
    ),
    (dict(arch=LLAMA, trainable='some'), "trainable='some'.*none, norms, all"),
    (dict(arch=LLAMA, dtype='int4'), "='int4'.*float32, bfloat16"),
    *(
        (dict(arch=LLAMA, trainable='all', dtype=dtype), 'block.dtype.*float32')
        for dtype in ('bfloat16', 'int8')
    ),
    *((dict(arch=LLAMA, layers=x), 'block.layers') for x in NO_LAYERS),
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
    (dict(model_type='deepseek_v3', n_routed_experts=64), 'latent attention'),
    (
        dict(model_type='no-such-wrapper', text_config=dict(model_type='granitemoe')),
        "'no-such-wrapper' has no layer spec, and transformers .* does not have it",
    ),
    (dict(model_type='bloom'), "'bloom' is refused.*alibi"),
    (dict(FAMILIES['falcon-rw'], alibi=True), 'falcon.*alibi=True.*Choose'),
    (dict(model_type='phi-msft'), 'remote-code.*model_type "phi"'),
    (dict(LLAMA, quantization_config=dict(quant_method='gptq')), 'unquantized'),
    (dict(LLAMA, num_local_experts=4), "'llama' with experts.*mixtral"),
]


@pytest.mark.parametrize('fields, message', UNSUPPORTED_MODELS)
def test_unsupported_models_are_refused_with_the_reason(tmp_path, fields, message):
    (tmp_path / 'config.json').write_text(json.dumps(fields))
    for source in (dict(arch=fields), dict(checkpoint=str(tmp_path))):
        with pytest.raises(UnsupportedModelError, match=message):
            LLMBlock(**source)


INPUTS = [
    *(
        (torch.zeros(s), {}, r'takes \[B, N, 32\]')
        for s in ((2, 6, 31), (6, 32), (2, 32, 3, 3))
    ),
    *(
        (
            tokens(),
            dict(padding_mask=mask),
            'padding_mask (must be bool|marks every token)',
        )
        for mask in (
            *(torch.zeros(2, 6), torch.zeros(2, 6, dtype=torch.long)),
            *(torch.zeros(2, 5).bool(), torch.zeros(6).bool()),
            torch.tensor([[False] * 6, [True] * 6]),
        )
    ),
    *(
        (tokens(), dict(queries=queries), r'queries(=| must be)')
        for queries in (
            *(0, [0, 1], torch.tensor([0, 1]), torch.zeros(2, 1, dtype=torch.int32)),
            *(torch.ones(2, 6).bool(), torch.zeros(3, 1, dtype=torch.long)),
        )
    ),
]


@pytest.mark.parametrize('x, inputs, message', INPUTS)
def test_inputs_that_cannot_be_are_refused(x, inputs, message):
    with pytest.raises(UserError, match=message):
        LLMBlock(arch=LLAMA)(x, **inputs)
