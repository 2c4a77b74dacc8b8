"""Frozen weights stay as they are, and out of every place that stores weights; what trains."""

import copy
import pickle

import pytest
import torch
from mmengine.model import ExponentialMovingAverage, initialize
from torch import nn

from lm4ve.blocks import Frozen, LLMBlock, frozen_tensors
from lm4ve.blocks.provenance import SOURCE_KEY
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
    assert list(state) == [SOURCE_KEY] and state[SOURCE_KEY].dtype == torch.uint8
    assert list(block.parameters()) == []
    assert [buffer.numel() for buffer in block.buffers()] == [0]  # see declare_record


def test_values_are_bit_equal_to_the_files(checkpoints):
    held = frozen_tensors(LLMBlock(checkpoints('llama-gqa')))
    layer = random_model('llama-gqa').layers[1]
    for mine, theirs in (
        *((f'{n}_proj', layer.self_attn.get_submodule(f'{n}_proj')) for n in 'qkvo'),
        *(
            (f'mlp.{n}_proj', layer.mlp.get_submodule(f'{n}_proj'))
            for n in ('gate', 'up', 'down')
        ),
        ('attention_norm', layer.input_layernorm),
    ):
        assert torch.equal(held[f'layers.0.{mine}.weight'], theirs.weight)


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
    before, twin = snapshot(block), copied(block)
    places = [
        {k: t.data_ptr() for k, t in frozen_tensors(b).items()} for b in (twin, block)
    ]
    assert places[0] == places[1]
    assert torch.equal(twin(tokens()), block(tokens()))
    twin.to(torch.bfloat16)
    assert all(t.dtype == torch.bfloat16 for t in frozen_tensors(twin).values())
    torch.testing.assert_close(frozen_tensors(block), before, rtol=0, atol=0)


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


MOVES = [
    lambda block: block.to('meta'),
    # A wrapper that moves registered parameters only leaves them behind.
    lambda b: [
        m.follow(torch.device('meta')) for m in b.modules() if isinstance(m, Frozen)
    ],
]


@pytest.mark.parametrize('move', MOVES)
def test_weights_move_to_a_device(block, move):
    move(block)
    assert all(
        t.is_meta and not t.requires_grad for t in frozen_tensors(block).values()
    )


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
    inputs = right_padding(), torch.tensor([[1], [3]])
    x = tokens().requires_grad_()
    outs = [run(x, *inputs) for run in (compiled, block)]
    assert_equal_but_for_rounding(*outs, block)
    # Not the sum of squares, which the final norm keeps constant: its gradient is
    # rounding.
    direction = torch.randn(outs[0].shape)
    grads = [torch.autograd.grad((out * direction).sum(), x)[0] for out in outs]
    assert_equal_but_for_rounding(*grads, block)


VARIANTS = [
    'llama',
    'qwen3',
    'gemma2',
    'olmo2',
    'phi-qk-norm',
    'gpt2',
    'opt',
    'falcon-40b',
    'bert',
]


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


@pytest.mark.parametrize('trainable', ['none', 'norms', 'all'])
@pytest.mark.parametrize('pretrained', [True, False])
@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.bitwise
def test_initializers_of_a_host_leave_the_block(
    checkpoints, variant, pretrained, trainable
):
    options = dict(layers=(0, 1), pretrained=pretrained, seed=3, trainable=trainable)
    block = LLMBlock(checkpoints(variant), **options)
    before = {**snapshot(block), **{k: v.clone() for k, v in block.named_parameters()}}
    host, expected = nn.Sequential(nn.Linear(8, 32), block), block(tokens())
    torch.manual_seed(7)
    block.init_weights()
    assert torch.equal(torch.rand(1), torch.manual_seed(7) and torch.rand(1))
    for init_cfg in INITIALIZERS:
        initialize(host, init_cfg)
    host.apply(
        lambda m: m.reset_parameters() if hasattr(m, 'reset_parameters') else None
    )
    block.init_weights()
    after = {**frozen_tensors(block), **dict(block.named_parameters())}
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert torch.equal(block(tokens()), expected)


# ------------------------------------------------------------- random control
@pytest.mark.parametrize('variant', FAMILIES)
@pytest.mark.bitwise
def test_random_blocks_depend_on_their_seed_only(variant):
    def build(global_seed: int, seed: int) -> LLMBlock:
        torch.manual_seed(global_seed)
        block = LLMBlock(arch=FAMILIES[variant], layers=(0, 1), seed=seed)
        assert torch.equal(
            torch.rand(1), torch.manual_seed(global_seed) and torch.rand(1)
        )
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
    full, half = (
        LLMBlock(arch=FAMILIES['llama'], dtype=d) for d in ('float32', 'bfloat16')
    )
    assert full.source['fingerprint'] == half.source['fingerprint']
    torch.testing.assert_close(
        snapshot(full.bfloat16()), snapshot(half), rtol=0, atol=0
    )


@pytest.mark.filterwarnings('error')
def test_building_warns_of_nothing(checkpoints):
    LLMBlock(checkpoints('llama'))
    LLMBlock(arch=dict(model_type='llama', hidden_size=64, num_attention_heads=4))
