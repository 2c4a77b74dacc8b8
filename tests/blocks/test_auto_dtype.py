"""``dtype='auto'``: what it is on a device, and that a checkpoint does not change it."""

import pytest
import torch

from lm4ve.blocks import LLMBlock, auto_dtype
from lm4ve.blocks.auto_dtype import computes_bfloat16
from lm4ve.errors import UserError
from tests.helpers.blocks.inputs import tokens
from tests.helpers.families import FAMILIES
from tests.helpers.logs import record_logs

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


@pytest.mark.bitwise
@pytest.mark.parametrize('dtype', ['auto', 'float32'])
def test_a_checkpoint_of_another_dtype_causes_a_warning_and_no_change(
    dtype, monkeypatch
):
    trained = random_block(dtype='bfloat16')
    use_dtype(monkeypatch, 'float32')
    block = random_block(dtype=dtype)
    before = block(tokens())
    texts = record_logs(monkeypatch, 'lm4ve.blocks.record')
    block.load_state_dict(trained.state_dict())
    assert len(texts) == 1
    assert "made with model.neck.block.dtype='bfloat16'" in texts[0]
    assert "computes in 'float32': results will differ" in texts[0]
    assert block.source['dtype'] == 'float32'
    torch.testing.assert_close(block(tokens()), before, rtol=0, atol=0)
    block.load_state_dict(random_block(dtype='auto').state_dict())
    assert len(texts) == 1
