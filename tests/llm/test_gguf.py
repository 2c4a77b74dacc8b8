"""GGUF files: a layer equals that of ``transformers``; damaged files end in one message."""

import os
import struct

import numpy as np
import pytest
import torch

from lm4ve.blocks import LLMBlock
from lm4ve.errors import CheckpointError, UserError
from tests.helpers.blocks.inputs import tokens
from tests.helpers.blocks.reference import reference_layer
from tests.helpers.families import random_model
from tests.helpers.gguf_files import write_gguf

gguf = pytest.importorskip('gguf')

VARIANTS = [
    ('llama-gqa', {}),
    ('qwen2', {}),
    ('qwen3', {}),
    # What llama.cpp has by the architecture: no biases of the MLP.
    ('llama-bias', dict(mlp_bias=False)),
    ('gemma3_text', dict(query_pre_attn_scalar=16, sliding_window_pattern=6)),
]


@pytest.mark.parametrize('variant, changes', VARIANTS)
def test_a_layer_equals_the_model_that_was_written(tmp_path, variant, changes):
    path = write_gguf(tmp_path / 'm.gguf', variant, **changes)
    for rotary in (False, True):  # the order of rows matters to rotary embedding only
        block = LLMBlock(
            path, layers=(1,), rotary=rotary, causal=rotary, final_norm=False
        )
        model = random_model(variant, **changes)
        expected = reference_layer(model, 1, tokens(), rotary, rotary)
        torch.testing.assert_close(block(tokens()), expected, atol=1e-5, rtol=1e-5)
    folder = LLMBlock(str(tmp_path), layers=(1,))
    assert folder.source['fingerprint'] == block.source['fingerprint']


def test_quantized_weights_are_what_the_library_makes_of_them(tmp_path):
    path = write_gguf(tmp_path / 'm.gguf', 'llama-gqa', 'Q8_0')
    (layer,) = LLMBlock(path, layers=(0,)).layers
    weight = random_model('llama-gqa').layers[0].mlp.up_proj.weight.numpy()
    kind = gguf.GGMLQuantizationType.Q8_0
    expected = gguf.quants.dequantize(gguf.quants.quantize(weight, kind), kind)
    assert np.array_equal(layer.mlp.wrapped.up_proj.weight.numpy(), expected)


def header(*parts: bytes, tensors: int = 0, fields: int = 0) -> bytes:
    return b'GGUF' + struct.pack('<IQQ', 3, tensors, fields) + b''.join(parts)


def name(text: str) -> bytes:
    return struct.pack('<Q', len(text)) + text.encode()


DAMAGED = [
    b'',
    b'GGML' + bytes(60),
    b'GGUF' + bytes(60),
    header(tensors=2**60),
    header(struct.pack('<Q', 2**62), bytes(40), fields=1),
    header(name('a'), struct.pack('<I', 99), bytes(40), fields=1),
    header(name('a'), struct.pack('<IIQ', 9, 8, 2**61), bytes(40), fields=1),
    header(name('a'), struct.pack('<IQIQ', 1, 2**39, 0, 0), bytes(40), tensors=1),
    header(name('a'), struct.pack('<IQIQ', 1, 32, 99, 0), bytes(40), tensors=1),
]


@pytest.mark.parametrize('content', DAMAGED, ids=range(9))
def test_damaged_and_hostile_files_are_refused(tmp_path, content):
    path = tmp_path / 'm.gguf'
    path.write_bytes(content)
    with pytest.raises(UserError, match='m.gguf'):
        LLMBlock(str(path))


def test_truncated_file_is_refused(tmp_path):
    path = write_gguf(tmp_path / 'm.gguf', 'llama-gqa')
    os.truncate(path, os.path.getsize(path) - 500)
    with pytest.raises(CheckpointError, match='cut off'):
        LLMBlock(path)


NOT_READ = [
    (dict(fields={'llama.rope.scaling.factor': 4.0}), 'rope.scaling.*safetensors'),
    (dict(fields={'llama.attention.clamp_kqv': 4.0}), 'clamp_kqv.*safetensors'),
    (
        dict(fields={'llama.attention.value_length': 16.0}),
        'dimension_count=8, and another',
    ),
    (dict(tensors=['blk.1.ffn_up.bias']), 'mlp.up_proj.bias, which'),
    (dict(tensors=['blk.1.attn_sinks.weight']), 'attn_sinks.weight, which'),
]


@pytest.mark.parametrize('options, message', NOT_READ)
def test_what_is_not_read_is_refused_not_ignored(tmp_path, options, message):
    path = write_gguf(tmp_path / 'm.gguf', 'llama', **options)
    with pytest.raises(UserError, match=message):
        LLMBlock(path)


def test_one_of_several_files_must_be_named(tmp_path):
    for file in ('a.gguf', 'b.gguf'):
        write_gguf(tmp_path / file, 'llama')
    with pytest.raises(CheckpointError, match='several GGUF files'):
        LLMBlock(str(tmp_path))
    assert LLMBlock(str(tmp_path / 'b.gguf')).source['model_type'] == 'llama'
