"""``dtype='auto'``: what it is on a device, and how a checkpoint's dtype replaces it."""

import copy

import pytest
import torch

from lm4ve.blocks import LLMBlock, auto_dtype
from lm4ve.blocks.auto_dtype import computes_bfloat16
from lm4ve.errors import UserError
from tests.helpers.blocks.inputs import tokens
from tests.helpers.families import FAMILIES
from tests.helpers.logs import record_logs

PLAIN = ('float32', 'bfloat16', 'float16')
A100, H100, V100 = (8, 0), (9, 0), (7, 0)


def use_device(monkeypatch, name: str, gpus=(), cpu_has_bfloat16=False) -> None:
    """Let MMEngine and torch report a device and its abilities."""
    monkeypatch.setattr(auto_dtype, 'get_device', lambda: name)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: len(gpus))
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda index: gpus[index])
    monkeypatch.setattr(
        torch.cpu, '_is_avx512_bf16_supported', lambda: cpu_has_bfloat16
    )


def use_dtype(monkeypatch, dtype: str) -> None:
    """Let this machine's device compute in bfloat16, or not."""
    use_device(monkeypatch, 'cpu', cpu_has_bfloat16=dtype == 'bfloat16')


def random_block(**fields) -> LLMBlock:
    """A block whose weights are exact in no type of 16 bits."""
    return LLMBlock(arch=FAMILIES['llama'], **fields)


DEVICES = [
    (dict(name='cuda', gpus=[A100]), 'bfloat16'),
    (dict(name='cuda', gpus=[A100, H100]), 'bfloat16'),
    (dict(name='cuda', gpus=[V100], cpu_has_bfloat16=True), 'float32'),
    (dict(name='cuda', gpus=[H100, V100]), 'float32'),
    (dict(name='cpu', gpus=[A100]), 'float32'),
    (dict(name='cpu', cpu_has_bfloat16=True), 'bfloat16'),
    (dict(name='mps', cpu_has_bfloat16=True), 'float32'),
]


@pytest.mark.parametrize(('device', 'dtype'), DEVICES, ids=str)
def test_auto_is_bfloat16_where_every_device_computes_it(device, dtype, monkeypatch):
    use_device(monkeypatch, **device)
    block = random_block(dtype='auto')
    assert block.source['dtype'] == dtype
    assert block.dtype == getattr(torch, dtype)


def test_every_gpu_of_amd_computes_bfloat16(monkeypatch):
    use_device(monkeypatch, 'cuda', [V100])
    monkeypatch.setattr(torch.version, 'hip', '6.0')
    assert computes_bfloat16('cuda')


@pytest.mark.parametrize('trainable', ['norms', 'all'])
def test_auto_is_float32_where_weights_train(trainable, monkeypatch):
    use_dtype(monkeypatch, 'bfloat16')
    block = random_block(dtype='auto', trainable=trainable)
    assert block.source['dtype'] == 'float32'


def test_a_misspelled_dtype_names_auto_among_the_choices():
    with pytest.raises(UserError, match="block.dtype.*'autom'.*auto"):
        random_block(dtype='autom')


BLOCKS = [
    dict(pretrained=False),
    dict(pretrained='permuted', seed=3),
    dict(trainable='lora', lora=dict(r=2)),
    dict(layers=(0, 1), rotary=True, causal=True),
]


@pytest.mark.bitwise
@pytest.mark.parametrize('fields', BLOCKS, ids=str)
@pytest.mark.parametrize('device', ['float32', 'bfloat16'])
@pytest.mark.parametrize('recorded', PLAIN)
def test_loaded_block_is_the_recorded_one_to_the_bit(
    recorded, device, fields, checkpoints, monkeypatch
):
    path = checkpoints('llama', num_hidden_layers=2)
    trained = LLMBlock(path, dtype=recorded, **fields)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(torch.randn(parameter.shape))
    use_dtype(monkeypatch, device)
    block = LLMBlock(path, dtype='auto', **fields)
    block.load_state_dict(trained.state_dict())
    assert block.source == trained.source
    assert torch.equal(block(tokens()), trained(tokens()))
    assert {t.dtype for t in block.parameters()} == {
        t.dtype for t in trained.parameters()
    }


@pytest.mark.bitwise
@pytest.mark.parametrize('recorded', PLAIN)
def test_weights_are_read_again_and_not_rounded_twice(recorded, monkeypatch):
    trained = random_block(dtype=recorded)
    use_dtype(monkeypatch, 'bfloat16')
    block = random_block(dtype='auto')
    block.load_state_dict(trained.state_dict())
    assert torch.equal(block(tokens()), trained(tokens()))


@pytest.mark.bitwise
def test_embedded_weights_of_a_release_take_the_recorded_dtype(monkeypatch):
    trained = random_block(dtype='float32', seed=5)
    state = trained.state_dict() | trained.frozen_state()
    use_dtype(monkeypatch, 'bfloat16')
    block = random_block(dtype='auto', seed=6)
    block.load_state_dict(state)
    assert block.source['dtype'] == 'float32'
    assert torch.equal(block(tokens()), trained(tokens()))


@pytest.mark.bitwise
@pytest.mark.parametrize('first', PLAIN)
def test_the_first_checkpoint_decides_and_later_ones_keep_the_weights(
    first, monkeypatch
):
    """The weights that a release brought along cannot be read from `arch` again."""
    use_dtype(monkeypatch, 'bfloat16')
    trained = random_block(dtype=first, seed=5)
    block = random_block(dtype='auto', seed=6)
    block.load_state_dict(trained.state_dict() | trained.frozen_state())
    expected = trained(tokens())
    assert torch.equal(block(tokens()), expected)
    texts = record_logs(monkeypatch, 'lm4ve.blocks.provenance')
    for later in PLAIN:
        same = random_block(dtype=later, seed=5)
        texts.clear()
        block.load_state_dict(same.state_dict() | same.frozen_state())
        assert block.source['dtype'] == first
        assert torch.equal(block(tokens()), expected)
        warned = 'results will differ' in ''.join(texts)
        assert warned == (later != first)


@pytest.mark.bitwise
def test_a_copy_keeps_its_dtype_until_it_loads(monkeypatch):
    """An average of weights is a deep copy, whose frozen tensors are shared."""
    trained = random_block(dtype='bfloat16')
    use_dtype(monkeypatch, 'float32')
    block = random_block(dtype='auto')
    average = copy.deepcopy(block)
    before = average(tokens())
    block.load_state_dict(trained.state_dict())
    assert torch.equal(average(tokens()), before)
    average.load_state_dict(trained.state_dict())
    assert torch.equal(average(tokens()), trained(tokens()))


def test_one_line_says_that_the_recorded_dtype_is_kept(monkeypatch):
    use_dtype(monkeypatch, 'bfloat16')
    trained = random_block(dtype='auto')
    use_dtype(monkeypatch, 'float32')
    block = random_block(dtype='auto')
    texts = record_logs(monkeypatch, 'lm4ve.blocks.provenance')
    block.load_state_dict(trained.state_dict())
    assert len(texts) == 1
    assert "dtype='auto': the block computes in 'bfloat16' as in the" in texts[0]
    block.load_state_dict(trained.state_dict())
    assert len(texts) == 1


@pytest.mark.parametrize('change', ['named', 'cast'])
def test_a_dtype_that_the_user_chose_stays(change, monkeypatch):
    trained = random_block(dtype='bfloat16')
    use_dtype(monkeypatch, 'float32')
    block = random_block(dtype='float32' if change == 'named' else 'auto')
    if change == 'cast':
        block.double()
    expected = block.dtype
    texts = record_logs(monkeypatch, 'lm4ve.blocks.provenance')
    block.load_state_dict(trained.state_dict())
    assert block.dtype == expected
    assert 'results will differ' in texts[0]


def test_eight_bits_of_a_record_are_not_followed(monkeypatch):
    trained = random_block(dtype='int8')
    use_dtype(monkeypatch, 'float32')
    block = random_block(dtype='auto')
    texts = record_logs(monkeypatch, 'lm4ve.blocks.provenance')
    block.load_state_dict(trained.state_dict())
    assert block.source['dtype'] == 'float32'
    assert "made with model.neck.block.dtype='int8'" in texts[0]
