"""``pretrained='scaled'``: random weights with the standard deviations of a language model's."""

import math

import pytest
import torch

from lm4ve.blocks import LLMBlock
from lm4ve.blocks.frozen import frozen_tensors, unwrap
from lm4ve.errors import CheckpointError, UserError
from lm4ve.release.states import frozen_state, trained_state
from tests.helpers.closeness import assert_equal_but_for_rounding
from tests.helpers.families import FAMILIES, random_model, write_huggingface
from tests.helpers.gguf_files import write_gguf

#: Wide enough that drawn deviations lie within a tenth: 5 standard errors of 64 * 64
#: values are 5 / sqrt(2 * 4096) = 0.055.
SIZES = dict(hidden_size=64, intermediate_size=64, num_attention_heads=4)
PROJECTIONS = ('q_proj', 'k_proj', 'v_proj', 'o_proj')


@pytest.fixture
def uneven(tmp_path):
    """``uneven(family)``: a folder in which q is 2, k 4 and v 8 times as large as others."""

    def write(family):
        model = random_model(family, **SIZES)
        folder = write_huggingface(tmp_path / family, family, **SIZES)
        copy = type(model)(model.config)
        copy.load_state_dict(model.state_dict())
        for name, weight in copy.named_parameters():
            for part, factor in (('.q_proj', 2), ('.k_proj', 4), ('.v_proj', 8)):
                if part in name:
                    weight.data *= factor
        copy.save_pretrained(folder)
        return str(folder)

    return write


@pytest.mark.parametrize('family', ['llama', 'opt', 'gpt_neo'])
def test_each_projection_has_its_own_scale(family, uneven):
    path = uneven(family)
    layer = LLMBlock(path).layers[0]
    drawn = LLMBlock(path, pretrained='scaled').layers[0]
    for name in PROJECTIONS:
        expected = unwrap(getattr(layer, name)).weight
        found = unwrap(getattr(drawn, name)).weight
        assert found.std() == pytest.approx(expected.std().item(), rel=0.1)
        assert (
            abs(
                torch.corrcoef(torch.stack((found.flatten(), expected.flatten())))[0, 1]
            )
            < 0.1
        )


@pytest.mark.parametrize('family', ['llama-bias', 'cohere-qk-norm', 'qwen3', 'gpt2'])
def test_gains_and_biases_are_those_of_the_random_control(family, checkpoints):
    path = checkpoints(family)
    scaled = frozen_tensors(LLMBlock(path, pretrained='scaled', seed=3))
    random = frozen_tensors(LLMBlock(path, pretrained=False, seed=3))
    for name, tensor in random.items():
        is_kept = tensor.dim() == 1 or 'norm' in name
        assert torch.equal(scaled[name], tensor) == is_kept, name


@pytest.mark.parametrize('family', ['gemma4_text', 'qwen3'])
def test_scores_have_the_factor_of_the_heads_width(family, checkpoints):
    """Gemma 4's attention has the factor 1: trained gains of norms are in its place."""
    layer = LLMBlock(checkpoints(family), pretrained='scaled').layers[0]
    generator = torch.Generator().manual_seed(0)
    channels = torch.randn(3, layer.head_dim, generator=generator)
    normed = layer.q_norm(channels)
    squares = normed.square().mean(dim=-1).sqrt() * layer.scale
    wanted = 1 / math.sqrt(layer.head_dim)
    assert squares.tolist() == pytest.approx([wanted] * 3, rel=1e-3)


def test_any_layout_of_files_gives_the_same_weights(checkpoints, tmp_path):
    blocks = [
        LLMBlock(checkpoints('llama', layout=layout), pretrained='scaled', seed=1)
        for layout in ('safetensors', 'sharded-bin')
    ]
    blocks.append(
        LLMBlock(write_gguf(tmp_path / 'm.gguf', 'llama'), (-1,), 'scaled', 1)
    )
    expected = frozen_tensors(blocks[0])
    for block in blocks[1:]:
        assert block.source['fingerprint'] == blocks[0].source['fingerprint']
        for name, tensor in frozen_tensors(block).items():
            assert torch.equal(tensor, expected[name]), name


def test_the_record_tells_scaled_weights_from_others(checkpoints):
    path = checkpoints('llama')
    scaled = LLMBlock(path, pretrained='scaled', seed=2)
    assert scaled.source['pretrained'] == 'scaled'
    assert scaled.source['seed'] == 2
    LLMBlock(path, pretrained='scaled', seed=2).load_state_dict(scaled.state_dict())
    for other in (dict(), dict(pretrained=False, seed=2), dict(pretrained='scaled')):
        with pytest.raises(CheckpointError, match='scaled with seed 2'):
            LLMBlock(path, **other).load_state_dict(scaled.state_dict())


def test_a_trained_block_starts_from_scaled_weights(checkpoints):
    path = checkpoints('llama')
    frozen = LLMBlock(path, pretrained='scaled')
    block = LLMBlock(path, pretrained='scaled', trainable='all')
    for parameter in block.parameters():
        torch.nn.init.zeros_(parameter)
    block.init_weights()
    x = torch.randn(2, 5, 32)
    assert_equal_but_for_rounding(block(x), frozen(x), frozen)


@pytest.mark.bitwise
def test_a_release_computes_the_same(checkpoints):
    """It has no checkpoint to scale by: its own factor of scores must be in the weights."""
    block = LLMBlock(checkpoints('gemma4_text'), pretrained='scaled')
    frozen, _ = frozen_state(block)
    loaded = LLMBlock(arch=dict(FAMILIES['gemma4_text']))
    loaded.load_state_dict({**trained_state(block), **frozen})
    x = torch.randn(2, 5, 32)
    assert torch.equal(loaded(x), block(x))


def test_a_family_without_a_spec_is_scaled_too(checkpoints):
    path = checkpoints('bitnet')
    expected = frozen_tensors(LLMBlock(path))
    found = frozen_tensors(LLMBlock(path, pretrained='scaled'))
    for name, tensor in expected.items():
        if tensor.dim() > 1:
            # 5 standard errors of 32 * 16 values.
            assert found[name].std() == pytest.approx(tensor.std().item(), rel=0.2)


def test_scaled_weights_need_weights():
    arch = dict(FAMILIES['llama'])
    with pytest.raises(UserError, match=r"pretrained='scaled' needs weights"):
        LLMBlock(arch=arch, pretrained='scaled')
