"""What trains, what it starts from, and the random control."""

import warnings

import pytest
import torch
from mmengine.model import BaseModule, initialize
from torch import nn

from lm4ve.blocks import LLMBlock, frozen_tensors
from lm4ve.errors import CheckpointError
from tests.blocks.test_families import tokens
from tests.helpers.families import FAMILIES, decoder_layers, random_model

VARIANTS = ['llama', 'qwen3', 'gemma2', 'olmo2', 'phi-qk-norm', 'gpt2', 'opt', 'falcon-40b', 'bert']


def norm_size(variant: str) -> int:
    """Number of parameters in the norms of layer 1."""
    return sum(
        p.numel()
        for m in decoder_layers(random_model(variant))[1].modules()
        if 'Norm' in type(m).__name__
        for p in m.parameters()
    )


@pytest.mark.parametrize('variant', VARIANTS)
def test_only_the_norms_train(checkpoints, variant):
    block = LLMBlock(checkpoints(variant), trainable='norms', final_norm=False)
    params = list(block.parameters())
    assert params and all(p.requires_grad for p in params)
    assert sum(p.numel() for p in params) == norm_size(variant)
    block(tokens()).square().sum().backward()
    assert all(p.grad is not None for p in params)
    assert not any(t.requires_grad for t in frozen_tensors(block).values())


@pytest.mark.parametrize('variant', VARIANTS)
def test_all_of_the_layer_trains(checkpoints, variant):
    block = LLMBlock(checkpoints(variant), trainable='all')
    assert not frozen_tensors(block)
    block(tokens()).square().sum().backward()
    assert all(p.grad is not None for p in block.parameters())


@pytest.mark.parametrize('trainable', ['norms', 'all'])
@pytest.mark.parametrize('pretrained', [True, False])
@pytest.mark.parametrize('variant', VARIANTS)
def test_a_host_gives_trained_parts_their_source_back(checkpoints, variant, pretrained, trainable):

    class Host(BaseModule):
        def __init__(self) -> None:
            super().__init__(
                init_cfg=[
                    dict(type='TruncNormal', layer='Linear', std=0.02),
                    dict(type='Constant', layer='LayerNorm', val=3.0),
                ]
            )
            self.mapper = nn.Linear(8, 32)
            self.block = LLMBlock(
                checkpoints(variant),
                layers=(0, 1),
                pretrained=pretrained,
                seed=3,
                trainable=trainable,
            )

    host = Host()
    before = {k: v.clone() for k, v in host.block.named_parameters()}
    state = torch.get_rng_state()
    host.init_weights()
    torch.set_rng_state(state)
    for name, value in host.block.named_parameters():
        assert torch.equal(value, before[name]), name


def test_overwritten_parts_come_back_too(checkpoints):
    block = LLMBlock(checkpoints('llama'), trainable='all')
    expected = block(tokens())
    initialize(block, dict(type='Normal', layer='Linear', std=5.0))
    assert not torch.equal(block(tokens()), expected)
    block.init_weights()
    assert torch.equal(block(tokens()), expected)


@pytest.mark.parametrize('trainable', ['none', 'norms', 'all'])
def test_every_setting_starts_from_the_same_function(checkpoints, trainable):
    path = checkpoints('gemma2')
    block = LLMBlock(path, trainable=trainable)
    assert torch.equal(block(tokens()), LLMBlock(path)(tokens()))


# ------------------------------------------------------------- random control
@pytest.mark.parametrize('variant', FAMILIES)
def test_random_blocks_depend_on_their_seed_only(variant):
    def build(global_seed: int, seed: int) -> LLMBlock:
        torch.manual_seed(global_seed)
        return LLMBlock(arch=FAMILIES[variant], layers=(0, 1), seed=seed)

    x = tokens()
    first, again, other = build(1, 0), build(2, 0), build(1, 5)
    assert torch.equal(first(x), again(x))
    assert first.source == again.source
    assert not torch.equal(first(x), other(x))
    assert first.source['fingerprint'] != other.source['fingerprint']
    assert first(x).isfinite().all()


@pytest.mark.parametrize(
    'options',
    [
        dict(pretrained=False),
        dict(pretrained=True),
        dict(pretrained=False, trainable='all', rotary=True),
    ],
)
def test_the_global_random_state_is_left_alone(checkpoints, options):
    path = checkpoints('llama')
    torch.manual_seed(7)
    state = torch.get_rng_state()
    block = LLMBlock(path, **options)
    block.init_weights()
    assert torch.equal(torch.get_rng_state(), state)


def test_random_layers_differ_and_have_the_familys_initialisation():
    block = LLMBlock(arch=dict(FAMILIES['llama'], initializer_range=0.5), layers=(0, 1))
    first, second = (layer.q_proj.wrapped.weight for layer in block.layers)
    assert not torch.equal(first, second)
    assert first.std().item() == pytest.approx(0.5, rel=0.1)


def test_a_random_block_needs_no_weight_file(checkpoints, tmp_path):
    from tests.helpers.families import config_of

    config_of('llama').save_pretrained(tmp_path)
    block = LLMBlock(str(tmp_path), pretrained=False)
    twin = LLMBlock(checkpoints('llama'), pretrained=False)
    assert torch.equal(block(tokens()), twin(tokens()))
    assert not block.source['pretrained'] and block.source['seed'] == 0
    with pytest.raises(CheckpointError, match='pretrained=False'):
        LLMBlock(str(tmp_path))


def test_the_same_random_weights_in_other_types():
    full, half = (LLMBlock(arch=FAMILIES['llama'], dtype=d) for d in ('float32', 'bfloat16'))
    assert full.source['fingerprint'] == half.source['fingerprint']
    for name, value in frozen_tensors(full).items():
        assert torch.equal(value.bfloat16(), frozen_tensors(half)[name])


def test_building_warns_of_nothing(checkpoints):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        LLMBlock(checkpoints('llama'))
        LLMBlock(
            arch=dict(
                model_type='llama', num_hidden_layers=1, hidden_size=64, num_attention_heads=4
            )
        )
