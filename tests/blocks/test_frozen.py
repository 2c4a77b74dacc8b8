"""Frozen weights stay as they are, and out of every place that stores weights; what trains."""

import copy
import pickle
from contextlib import contextmanager

import pytest
import torch
from mmengine.model import ExponentialMovingAverage, initialize
from torch import nn

from lm4ve.blocks import Frozen, LLMBlock, frozen_tensors
from lm4ve.blocks.record_text import KEY
from lm4ve.errors import CheckpointError
from tests.helpers.blocks.inputs import right_padding, tokens
from tests.helpers.closeness import assert_equal_but_for_rounding
from tests.helpers.families import FAMILIES, config_of, decoder_layers, random_model


def snapshot(module: nn.Module) -> dict:
    return {k: t.clone() for k, t in frozen_tensors(module).items()}


@pytest.fixture
def block(checkpoints) -> LLMBlock:
    return LLMBlock(checkpoints('llama'), layers=(0, 1))


def test_the_state_dict_holds_the_source_only(block):
    state = block.state_dict()
    assert list(state) == [KEY] and state[KEY].dtype == torch.uint8
    assert list(block.parameters()) == []
    assert list(block.buffers()) == []


def test_values_are_bit_equal_to_the_files(checkpoints):
    held = frozen_tensors(LLMBlock(checkpoints('llama-gqa')))
    layer = random_model('llama-gqa').layers[1]
    names = {
        'q_proj': 'self_attn.q_proj',
        'k_proj': 'self_attn.k_proj',
        'v_proj': 'self_attn.v_proj',
        'o_proj': 'self_attn.o_proj',
        'mlp.gate_proj': 'mlp.gate_proj',
        'mlp.up_proj': 'mlp.up_proj',
        'mlp.down_proj': 'mlp.down_proj',
        'attention_norm': 'input_layernorm',
    }
    for mine, theirs in names.items():
        expected = layer.get_parameter(f'{theirs}.weight')
        assert torch.equal(held[f'layers.0.{mine}.weight'], expected)


INITIALIZERS = [
    dict(type='TruncNormal', layer='Linear', std=0.02),
    dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.02),
    dict(type='Constant', layer=['Conv1D', 'LlamaRMSNorm'], val=0.5),
    # MMEngine also matches the names of base classes.
    dict(type='Constant', layer='Module', val=0.5),
    dict(type='Normal', layer=['_NormBase', 'NonDynamicallyQuantizableLinear']),
]


COPIES = [
    copy.deepcopy,
    lambda block: copy.deepcopy(nn.Sequential(block))[0],
    lambda block: ExponentialMovingAverage(block).module,
    lambda block: ExponentialMovingAverage(block, update_buffers=True).module,
]


@pytest.mark.parametrize('copied', COPIES)
@pytest.mark.bitwise
def test_copies_share_the_values_and_cast_alone(block, copied):
    before = snapshot(block)
    twin = copied(block)
    assert addresses(twin) == addresses(block)
    assert torch.equal(twin(tokens()), block(tokens()))
    twin.to(torch.bfloat16)
    assert all(t.dtype == torch.bfloat16 for t in frozen_tensors(twin).values())
    torch.testing.assert_close(frozen_tensors(block), before, rtol=0, atol=0)


def addresses(block: nn.Module) -> dict:
    return {name: tensor.data_ptr() for name, tensor in frozen_tensors(block).items()}


def test_hooks_of_a_copy_are_its_own(block):
    calls = []
    block.layers[0].k_proj.register_forward_hook(lambda module, args, out: 2 * out)
    twin = copy.deepcopy(block)
    torch.testing.assert_close(twin(tokens()), block(tokens()))
    twin.layers[0].q_proj.register_forward_hook(
        lambda module, args, out: calls.append(1)
    )
    block(tokens())
    assert not calls
    twin(tokens())
    assert calls == [1]


@pytest.mark.parametrize('trainable', ['none', 'all'])
@pytest.mark.parametrize('variant', ['llama', 'bert'])
@pytest.mark.bitwise
def test_a_cast_model_computes_in_the_type_of_its_weights(
    checkpoints, variant, trainable
):
    block = LLMBlock(checkpoints(variant), trainable=trainable)
    x = tokens()
    expected = block(x)
    model = nn.Sequential(block).to(torch.float64)
    assert_equal_but_for_rounding(model(x.double()).float(), expected, block)
    assert torch.equal(model.float()(x), expected)
    assert model.half()(x.half()).dtype == torch.float16


def move(block: nn.Module) -> None:
    block.to('meta')


def follow(block: nn.Module) -> None:
    """Move what a wrapper leaves behind that moves registered parameters only."""
    for module in block.modules():
        if isinstance(module, Frozen):
            module.follow(torch.device('meta'))


@pytest.mark.parametrize('move', [move, follow])
def test_weights_move_to_a_device(block, move):
    move(block)
    for tensor in frozen_tensors(block).values():
        assert tensor.is_meta
        assert not tensor.requires_grad


@pytest.mark.parametrize('rotary', [False, True])
@pytest.mark.bitwise
def test_pickling_keeps_everything(checkpoints, rotary):
    block = LLMBlock(checkpoints('llama-gqa'), rotary=rotary)
    twin = pickle.loads(pickle.dumps(block))
    torch.testing.assert_close(
        frozen_tensors(twin), frozen_tensors(block), rtol=0, atol=0
    )
    assert torch.equal(twin(tokens()), block(tokens()))


@pytest.mark.parametrize(
    'backend', ['aot_eager', pytest.param('inductor', marks=pytest.mark.slow)]
)
def test_compiled_blocks_give_equal_results(checkpoints, backend):
    torch.compiler.reset()
    block = LLMBlock(checkpoints('llama-gqa'), causal=True, rotary=True)
    compiled = torch.compile(block, backend=backend, fullgraph=True)
    padding = right_padding()
    queries = torch.tensor([[1], [3]])
    x = tokens().requires_grad_()
    out = compiled(x, padding, queries)
    expected = block(x, padding, queries)
    assert_equal_but_for_rounding(out, expected, block)
    # Not the sum of squares, which the final norm keeps constant: its gradient is
    # rounding.
    direction = torch.randn(out.shape)
    (gradient,) = torch.autograd.grad((out * direction).sum(), x)
    (expected_gradient,) = torch.autograd.grad((expected * direction).sum(), x)
    assert_equal_but_for_rounding(gradient, expected_gradient, block)


VARIANTS = [
    'llama',
    'qwen3',
    'gpt_neo',
    'opt',
    'opt-350m',
    't5',
    'bert',
]
#: Variants and what may train in them; those by their own layer as a whole.
TRAINED = [
    *((v, trainable) for v in VARIANTS for trainable in ('none', 'norms', 'all')),
    *((v, trainable) for v in ('gemma2', 'gpt2') for trainable in ('none', 'all')),
]


@pytest.mark.parametrize('variant', VARIANTS)
def test_norms_or_all_of_the_layer_train(checkpoints, variant):
    for trainable in ('norms', 'all'):
        block = LLMBlock(checkpoints(variant), trainable=trainable, final_norm=False)
        layer = decoder_layers(random_model(variant))[1]
        parameters = list(block.parameters())
        count = sum(p.numel() for p in parameters)
        assert count == count_trained(layer, trainable)
        block(tokens()).square().sum().backward()
        assert all(p.requires_grad and p.grad is not None for p in parameters)
        frozen = frozen_tensors(block)
        assert bool(frozen) == (trainable == 'norms')
        assert not any(t.requires_grad for t in frozen.values())


def count_trained(layer: nn.Module, trainable: str) -> int:
    """Count the values of a layer of ``transformers`` that train."""
    count = 0
    for module in layer.modules():
        if trainable == 'all' or 'Norm' in type(module).__name__:
            count += sum(p.numel() for p in module.parameters(recurse=False))
    return count


@pytest.mark.parametrize('pretrained', [True, False])
@pytest.mark.parametrize('variant, trainable', TRAINED)
@pytest.mark.bitwise
def test_initializers_of_a_host_leave_the_block(
    checkpoints, variant, pretrained, trainable
):
    options = dict(layers=(0, 1), pretrained=pretrained, seed=3, trainable=trainable)
    block = LLMBlock(checkpoints(variant), **options)
    before = snapshot(block)
    for name, parameter in block.named_parameters():
        before[name] = parameter.detach().clone()
    host = nn.Sequential(nn.Linear(8, 32), block)
    expected = block(tokens())
    with draws_nothing():
        block.init_weights()
    for init_cfg in INITIALIZERS:
        initialize(host, init_cfg)
    for module in host.modules():
        if hasattr(module, 'reset_parameters'):
            module.reset_parameters()
    block.init_weights()
    after = {**frozen_tensors(block), **dict(block.named_parameters())}
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert torch.equal(block(tokens()), expected)


@contextmanager
def draws_nothing(seed: int = 7):
    """Check that nothing is drawn from torch's global generator inside."""
    torch.manual_seed(seed)
    yield
    found = torch.rand(1)
    torch.manual_seed(seed)
    assert torch.equal(found, torch.rand(1))


# ------------------------------------------------------------- random control
@pytest.mark.parametrize('variant', FAMILIES)
@pytest.mark.bitwise
def test_random_blocks_depend_on_their_seed_only(variant):
    def build(global_seed: int, seed: int) -> LLMBlock:
        with draws_nothing(global_seed):
            return LLMBlock(arch=FAMILIES[variant], layers=(0, 1), seed=seed)

    x = tokens()
    first = build(global_seed=1, seed=0)
    again = build(global_seed=2, seed=0)
    other = build(global_seed=1, seed=5)
    assert torch.equal(first(x), again(x))
    assert first.source == again.source
    assert first(x).isfinite().all()
    assert not torch.equal(first(x), other(x))
    assert first.source['fingerprint'] != other.source['fingerprint']


def test_random_layers_have_the_familys_initialization():
    block = LLMBlock(arch=dict(FAMILIES['llama'], initializer_range=0.5), layers=(0, 1))
    first = block.layers[0].q_proj.wrapped.weight
    second = block.layers[1].q_proj.wrapped.weight
    assert not torch.equal(first, second)
    assert first.std().item() == pytest.approx(0.5, rel=0.1)


@pytest.mark.bitwise
def test_a_random_block_needs_no_weight_file(checkpoints, tmp_path):
    config_of('llama').save_pretrained(tmp_path)
    block = LLMBlock(str(tmp_path), pretrained=False)
    twin = LLMBlock(checkpoints('llama'), pretrained=False)
    assert torch.equal(block(tokens()), twin(tokens()))
    assert not block.source['pretrained'] and block.source['seed'] == 0
    with pytest.raises(CheckpointError, match='pretrained=False'):
        LLMBlock(str(tmp_path))


def test_random_weights_are_the_same_in_every_type():
    full = LLMBlock(arch=FAMILIES['llama'])
    half = LLMBlock(arch=FAMILIES['llama'], dtype='bfloat16')
    assert full.source['fingerprint'] == half.source['fingerprint']
    torch.testing.assert_close(
        snapshot(full.bfloat16()), snapshot(half), rtol=0, atol=0
    )


@pytest.mark.filterwarnings('error')
def test_building_warns_of_nothing(checkpoints):
    LLMBlock(checkpoints('llama'))
    LLMBlock(arch=dict(model_type='llama', hidden_size=64, num_attention_heads=4))
