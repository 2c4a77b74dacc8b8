"""A saved model remembers which language model it was trained around."""

import copy

import pytest
import torch
from mmengine.runner import load_checkpoint, save_checkpoint
from mmengine.runner.checkpoint import get_state_dict
from torch import nn

from lm4ve.blocks import LLMBlock
from lm4ve.blocks.provenance import SOURCE_KEY
from lm4ve.errors import CheckpointError
from lm4ve.release.release import trained_state
from tests.blocks.test_families import tokens
from tests.helpers.families import FAMILIES

KEY = f'block.{SOURCE_KEY}'


class Host(nn.Module):
    """A mapper and a block, as a neck has them."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__()
        self.mapper = nn.Linear(32, 32)
        self.block = LLMBlock(*args, **kwargs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(self.mapper(x))


def embedded(host: Host, prefix: str = 'block.') -> dict:
    """The state of a self-contained release."""
    frozen = host.block.frozen_state()
    return {**host.state_dict(), **{prefix + k: v for k, v in frozen.items()}}


@pytest.mark.parametrize('trainable', ['none', 'norms', 'all'])
def test_states_load_strictly_and_through_mmengine(checkpoints, trainable, tmp_path):
    path, file = checkpoints('llama'), str(tmp_path / 'model.pth')
    host = Host(path, trainable=trainable)
    with torch.no_grad():
        for param in host.block.parameters():
            param.add_(torch.randn(param.shape))
    state = get_state_dict(host)
    assert trainable != 'none' or sorted(state) == [KEY, 'mapper.bias', 'mapper.weight']
    save_checkpoint(dict(state_dict=state), file)
    torch.load(file, weights_only=True)
    plain, through_file = Host(path, trainable=trainable), Host(path, trainable=trainable)
    plain.load_state_dict(host.state_dict(), strict=True)
    load_checkpoint(through_file, file, map_location='cpu', strict=True)
    for other in (plain, through_file):
        assert torch.equal(host(tokens()), other(tokens()))


def build(checkpoints, layers=(1,), seed=0, **options) -> Host:
    return Host(checkpoints('llama', seed=seed), layers=layers, **options)


@pytest.mark.parametrize('options', [dict(layers=(0,)), dict(seed=1), dict(pretrained=False)])
def test_another_language_model_is_an_error_that_names_both(checkpoints, options, tmp_path):
    host, other = build(checkpoints), build(checkpoints, **options)
    state = other.state_dict()
    before, file = copy.deepcopy(host.block.source), str(tmp_path / 'model.pth')
    save_checkpoint(dict(state_dict=state), file)
    for load in (
        lambda: host.load_state_dict(state),
        lambda: host.load_state_dict(state, strict=False),
        lambda: load_checkpoint(host, file),
    ):
        with pytest.raises(CheckpointError, match='other frozen weights.*neck.block.ch') as e:
            load()
        for s in (before, other.block.source):
            for text in (s['source'], f'layers {s["layers"]}', s['fingerprint'][:12]):
                assert text in str(e.value)
    assert host.block.source == before


def test_a_state_without_a_record_is_missing_a_key(checkpoints):
    host = Host(checkpoints('llama'))
    state = host.state_dict()
    del state[KEY]
    with pytest.raises(RuntimeError, match=KEY):
        host.load_state_dict(state)
    result = host.load_state_dict(state, strict=False)
    assert result.missing_keys == [KEY]


DAMAGED = [
    torch.tensor(10**15),
    torch.tensor(1, dtype=torch.uint8),
    torch.ones(4),
    *(
        torch.tensor(list(text), dtype=torch.uint8)
        for text in (b'[' * 100_000, b'', b'{', b'[]', b'{}', b'\xff\xfe')
    ),
]


@pytest.mark.parametrize('record', DAMAGED)
def test_a_damaged_record_is_named(checkpoints, record):
    host = Host(checkpoints('llama'))
    with pytest.raises(CheckpointError, match=f'{KEY}.*damaged'):
        host.load_state_dict({**host.state_dict(), KEY: record})


def test_a_fully_trained_block_takes_any_record(checkpoints):
    # All of its weights are in the state; where they came from is history.
    path = checkpoints('llama')
    state = Host(path, layers=(0,), trainable='all').state_dict()
    host = Host(path, layers=(1,), trainable='all')
    host.load_state_dict(state, strict=True)


@pytest.mark.parametrize('trainable', ['none', 'norms'])
def test_embedded_weights_need_no_language_model(checkpoints, trainable, tmp_path):
    host = Host(checkpoints('llama'), trainable=trainable)
    options = dict(arch=FAMILIES['llama'], trainable=trainable)
    state = embedded(host)
    other = Host(**options)
    twin = copy.deepcopy(other)
    file = str(tmp_path / 'release.pth')
    torch.save(dict(state_dict=state), file)
    load_checkpoint(other, file, strict=True)
    assert torch.equal(other(tokens()), host(tokens()))
    assert other.block.source == host.block.source
    if trainable == 'none':  # an EMA copy shares the values
        assert torch.equal(twin.block(tokens()), host.block(tokens()))
    # And what is saved of it is accepted where the language model is there.
    host.load_state_dict(other.state_dict(), strict=True)


@pytest.mark.parametrize('by', ['arch', 'checkpoint'])
def test_embedded_weights_are_those_of_their_fingerprint(checkpoints, by):
    host = Host(checkpoints('llama'))
    state = {**embedded(host), **trained_state(host)}
    other = host if by == 'checkpoint' else Host(arch=FAMILIES['llama'])
    other.load_state_dict(state)
    name = next(k for k in state if 'q_proj' in k)
    state[name] = state[name] + 1e-3
    with pytest.raises(CheckpointError, match='embedded weights are damaged'):
        Host(arch=FAMILIES['llama']).load_state_dict(state)


def test_embedded_weights_do_not_replace_another_checkpoint(checkpoints):
    host, other = build(checkpoints), build(checkpoints, layers=(0,))
    host.load_state_dict(embedded(host), strict=True)
    with pytest.raises(CheckpointError, match='other frozen weights'):
        host.load_state_dict(embedded(other))


def test_embedded_weights_of_another_shape_are_refused(checkpoints):
    state = embedded(Host(checkpoints('llama')))
    for arch in (FAMILIES['bert'], FAMILIES['llama-gqa']):
        host = Host(arch=arch)
        before = host.block.frozen_state()
        with pytest.raises(CheckpointError, match='self-contained.*block.arch'):
            host.load_state_dict(state)
        for name, value in host.block.frozen_state().items():
            assert torch.equal(value, before[name])
