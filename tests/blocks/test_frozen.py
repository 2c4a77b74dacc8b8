"""Frozen weights stay as they are, and out of every place that stores weights."""

import copy
import pickle

import pytest
import torch
from mmengine.model import ExponentialMovingAverage, initialize
from torch import nn

from lm4ve.blocks import Frozen, LLMBlock, count_parameters, frozen_tensors
from lm4ve.blocks.provenance import SOURCE_KEY
from tests.blocks.test_families import right_padding, tokens
from tests.helpers.families import random_model


def snapshot(module: nn.Module) -> dict:
    return {k: t.clone() for k, t in frozen_tensors(module).items()}


def assert_same(tensors: dict, expected: dict) -> None:
    assert tensors.keys() == expected.keys()
    for name, value in tensors.items():
        assert value.dtype == expected[name].dtype, name
        assert torch.equal(value, expected[name]), name


@pytest.fixture
def block(checkpoints) -> LLMBlock:
    return LLMBlock(checkpoints('llama'), layers=(0, 1))


def test_the_state_dict_holds_the_source_only(block):
    state = block.state_dict()
    assert list(state) == [SOURCE_KEY]
    assert state[SOURCE_KEY].dtype == torch.uint8
    assert list(block.parameters()) == list(block.buffers()) == []


def test_parameters_are_counted_all_the_same(checkpoints):
    layer = sum(p.numel() for p in random_model('llama').layers[1].parameters())
    path = checkpoints('llama')
    assert count_parameters(LLMBlock(path, final_norm=False)) == (0, layer)
    assert count_parameters(LLMBlock(path, final_norm=False, trainable='norms')) == (64, layer - 64)
    assert count_parameters(LLMBlock(path, final_norm=False, trainable='all')) == (layer, 0)


@pytest.mark.parametrize(
    'init_cfg',
    [
        dict(type='TruncNormal', layer='Linear', std=0.02),
        dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.02),
        dict(type='Constant', layer=['Conv1D', 'LlamaRMSNorm'], val=0.5),
        # MMEngine also matches the names of base classes.
        dict(type='Constant', layer='Module', val=0.5),
        dict(type='Normal', layer=['_NormBase', 'NonDynamicallyQuantizableLinear']),
    ],
)
@pytest.mark.parametrize('variant', ['llama', 'gpt2', 'bert'])
def test_initialisers_of_a_host_do_not_reach_them(checkpoints, variant, init_cfg):
    block = LLMBlock(checkpoints(variant))
    before = snapshot(block)
    host = nn.Sequential(nn.Linear(8, 32), block)
    initialize(host, init_cfg)
    host.apply(lambda m: m.reset_parameters() if hasattr(m, 'reset_parameters') else None)
    block.init_weights()
    assert_same(frozen_tensors(block), before)
    model = random_model(variant)
    source = {
        'llama': 'layers.1.mlp.up_proj',
        'gpt2': 'h.1.mlp.c_fc',
        'bert': 'encoder.layer.1.output.dense',
    }[variant]
    value = model.get_submodule(source).weight
    assert any(
        v.shape == value.shape and torch.equal(v, value) for v in frozen_tensors(block).values()
    )


def test_training_mode_changes_nothing(block):
    x = tokens()
    expected = block.eval()(x)
    assert torch.equal(block.train()(x), expected)
    assert block.requires_grad_(True) is block
    assert not any(t.requires_grad for t in frozen_tensors(block).values())


def test_copies_share_the_storage(block):
    twin = copy.deepcopy(nn.Sequential(block))[0]
    for mine, other in zip(
        frozen_tensors(block).values(), frozen_tensors(twin).values(), strict=True
    ):
        assert mine.data_ptr() == other.data_ptr()
    assert torch.equal(twin(tokens()), block(tokens()))


def test_casting_a_copy_leaves_the_original_alone(block):
    before = snapshot(block)
    twin = copy.deepcopy(block).to(torch.bfloat16)
    assert all(t.dtype == torch.bfloat16 for t in frozen_tensors(twin).values())
    assert_same(frozen_tensors(block), before)


def test_hooks_of_a_copy_are_its_own(block):
    calls = []
    block.layers[0].k_proj.register_forward_hook(lambda module, args, out: 2 * out)
    twin = copy.deepcopy(block)
    torch.testing.assert_close(twin(tokens()), block(tokens()))
    twin.layers[0].q_proj.register_forward_hook(lambda module, args, out: calls.append(1))
    block(tokens())
    assert not calls
    twin(tokens())
    assert calls == [1]


@pytest.mark.parametrize('update_buffers', [False, True])
def test_an_ema_copy_shares_and_keeps_them(block, update_buffers):
    host = nn.Sequential(nn.Linear(8, 32), block)
    average = ExponentialMovingAverage(host, update_buffers=update_buffers)
    before = snapshot(block)
    average.update_parameters(host)
    average.update_parameters(host)
    shared = frozen_tensors(average.module[1])
    assert_same(shared, before)
    assert all(t.data_ptr() == shared[k].data_ptr() for k, t in frozen_tensors(block).items())


def test_moving_and_casting_reach_them(block):
    x = tokens()
    expected = block(x)
    block.to(torch.float64)
    assert all(t.dtype == torch.float64 for t in frozen_tensors(block).values())
    block.float()
    assert torch.equal(block(x), expected)
    block.to('meta')
    assert all(t.is_meta and not t.requires_grad for t in frozen_tensors(block).values())


@pytest.mark.parametrize('trainable', ['none', 'all'])
@pytest.mark.parametrize('variant', ['llama', 'bert'])
def test_a_cast_model_computes_in_the_type_of_its_weights(checkpoints, variant, trainable):
    block = LLMBlock(checkpoints(variant), trainable=trainable)
    x = tokens()
    expected = block(x)
    model = nn.Sequential(block).to(torch.float64)
    torch.testing.assert_close(model(x.double()).float(), expected, atol=1e-5, rtol=1e-5)
    assert model.half()(x.half()).dtype == torch.float16


def test_weights_follow_the_input_to_its_device(block):
    # What a wrapper that moves registered parameters only leaves behind.
    for module in block.modules():
        if isinstance(module, Frozen):
            module.follow(torch.device('meta'))
    assert all(t.is_meta for t in frozen_tensors(block).values())


def test_hooks_find_the_parts_by_name(block):
    shapes = {}
    for name in ('layers.0.q_proj', 'layers.1.mlp', 'final_norm'):
        block.get_submodule(name).register_forward_hook(
            lambda module, args, out, name=name: shapes.update({name: out.shape})
        )
    block(tokens())
    assert shapes == dict.fromkeys(('layers.0.q_proj', 'layers.1.mlp', 'final_norm'), (2, 6, 32))


def test_pickling_keeps_everything(block):
    twin = pickle.loads(pickle.dumps(block))
    assert_same(frozen_tensors(twin), frozen_tensors(block))
    assert torch.equal(twin(tokens()), block(tokens()))
    assert list(twin.state_dict()) == [SOURCE_KEY]


@pytest.mark.parametrize(
    'backend, layers',
    [('aot_eager', (0, 1)), pytest.param('inductor', (1,), marks=pytest.mark.slow)],
)
def test_compiled_blocks_give_equal_results(checkpoints, backend, layers):
    torch.compiler.reset()
    block = LLMBlock(checkpoints('llama-gqa'), layers=layers, causal=True, rotary=True)
    compiled = torch.compile(block, backend=backend, fullgraph=True)
    queries = torch.tensor([[1], [3]])
    x = tokens().requires_grad_()
    out = compiled(x, right_padding(), queries)
    expected = block(x, right_padding(), queries)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    (grad,) = torch.autograd.grad(out.square().sum(), x)
    (expected,) = torch.autograd.grad(expected.square().sum(), x)
    torch.testing.assert_close(grad, expected, atol=1e-4, rtol=1e-4)
