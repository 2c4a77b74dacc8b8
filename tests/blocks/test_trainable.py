"""What trains, what it starts from, and the random control."""

import warnings

import pytest
import torch
from mmengine.model import BaseModule
from torch import nn

from lm4ve.blocks import LLMBlock, frozen_tensors
from lm4ve.errors import CheckpointError
from tests.blocks.test_families import tokens
from tests.helpers.families import FAMILIES, config_of, decoder_layers, random_model

VARIANTS = ['llama', 'qwen3', 'gemma2', 'olmo2', 'phi-qk-norm', 'gpt2', 'opt', 'falcon-40b', 'bert']


@pytest.mark.parametrize('variant', VARIANTS)
def test_norms_or_all_of_the_layer_train(checkpoints, variant):
    for trainable in ('norms', 'all'):
        block = LLMBlock(checkpoints(variant), trainable=trainable, final_norm=False)
        expected = sum(
            p.numel()
            for m in decoder_layers(random_model(variant))[1].modules()
            if trainable == 'all' or 'Norm' in type(m).__name__
            for p in m.parameters(recurse=False)
        )
        params = list(block.parameters())
        assert sum(p.numel() for p in params) == expected
        block(tokens()).square().sum().backward()
        assert all(p.requires_grad and p.grad is not None for p in params)
        frozen = frozen_tensors(block)
        assert bool(frozen) == (trainable == 'norms')
        assert not any(t.requires_grad for t in frozen.values())


class Host(BaseModule):
    """Initializes every layer with weights, as hosts do."""

    def __init__(self, *args, **kwargs) -> None:
        linear = dict(type='TruncNormal', layer='Linear', std=0.02)
        super().__init__(init_cfg=[linear, dict(type='Constant', layer='LayerNorm', val=3.0)])
        self.mapper = nn.Linear(8, 32)
        self.block = LLMBlock(*args, **kwargs)


@pytest.mark.parametrize('trainable', ['norms', 'all'])
@pytest.mark.parametrize('pretrained', [True, False])
@pytest.mark.parametrize('variant', VARIANTS)
def test_a_hosts_initializer_leaves_trained_parts(checkpoints, variant, pretrained, trainable):
    options = dict(layers=(0, 1), pretrained=pretrained, seed=3, trainable=trainable)
    host = Host(checkpoints(variant), **options)
    before = {k: v.clone() for k, v in host.block.named_parameters()}
    expected = host.block(tokens())
    torch.manual_seed(7)
    host.block.init_weights()
    assert torch.equal(torch.rand(1), torch.manual_seed(7) and torch.rand(1))
    host.init_weights()
    assert all(torch.equal(v, before[name]) for name, v in host.block.named_parameters())
    assert torch.equal(host.block(tokens()), expected)


# ------------------------------------------------------------- random control
@pytest.mark.parametrize('variant', FAMILIES)
def test_random_blocks_depend_on_their_seed_only(variant):
    def build(global_seed: int, seed: int) -> LLMBlock:
        torch.manual_seed(global_seed)
        block = LLMBlock(arch=FAMILIES[variant], layers=(0, 1), seed=seed)
        assert torch.equal(torch.rand(1), torch.manual_seed(global_seed) and torch.rand(1))
        return block

    x = tokens()
    first, again, other = build(1, 0), build(2, 0), build(1, 5)
    assert torch.equal(first(x), again(x)) and first.source == again.source
    assert not torch.equal(first(x), other(x)) and first(x).isfinite().all()
    assert first.source['fingerprint'] != other.source['fingerprint']


def test_random_layers_have_the_familys_initialization():
    block = LLMBlock(arch=dict(FAMILIES['llama'], initializer_range=0.5), layers=(0, 1))
    first, second = (layer.q_proj.wrapped.weight for layer in block.layers)
    assert not torch.equal(first, second)
    assert first.std().item() == pytest.approx(0.5, rel=0.1)


def test_a_random_block_needs_no_weight_file(checkpoints, tmp_path):
    config_of('llama').save_pretrained(tmp_path)
    block = LLMBlock(str(tmp_path), pretrained=False)
    twin = LLMBlock(checkpoints('llama'), pretrained=False)
    assert torch.equal(block(tokens()), twin(tokens()))
    assert not block.source['pretrained'] and block.source['seed'] == 0
    with pytest.raises(CheckpointError, match='pretrained=False'):
        LLMBlock(str(tmp_path))


def test_random_weights_are_the_same_in_every_type():
    full, half = (LLMBlock(arch=FAMILIES['llama'], dtype=d) for d in ('float32', 'bfloat16'))
    assert full.source['fingerprint'] == half.source['fingerprint']
    for name, value in frozen_tensors(full).items():
        assert torch.equal(value.bfloat16(), frozen_tensors(half)[name])


def test_building_warns_of_nothing(checkpoints):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        LLMBlock(checkpoints('llama'))
        LLMBlock(arch=dict(model_type='llama', hidden_size=64, num_attention_heads=4))
