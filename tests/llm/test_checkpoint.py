"""A checkpoint's weights are opened only when a layer is read."""

import pytest

from lm4ve.blocks import LLMBlock
from lm4ve.errors import UnsupportedModelError
from lm4ve.llm.checkpoint import open_checkpoint
from tests.helpers.families import write_huggingface, write_meta


@pytest.mark.parametrize('write', [write_huggingface, write_meta])
def test_both_layouts_say_the_same(tmp_path, write):
    write(*((tmp_path, 'llama') if write is write_huggingface else (tmp_path,)))
    checkpoint = open_checkpoint(str(tmp_path))
    assert checkpoint.config['model_type'] == 'llama'
    assert checkpoint.config['hidden_size'] == 32
    name = next(n for n in checkpoint.weights if n.endswith('0.mlp.gate_proj.weight'))
    shape = tuple(checkpoint.weights[name]().shape)
    (read,) = checkpoint.read_layer('0', {'mlp.gate_proj.weight': shape})
    assert read[0] == 'mlp.gate_proj.weight' and tuple(read[1].shape) == shape


def test_weights_are_opened_when_a_layer_is_read(tmp_path, monkeypatch):
    folder = str(write_huggingface(tmp_path, 'llama'))

    def opened(*args):
        raise AssertionError('the weights were opened')

    monkeypatch.setattr('lm4ve.llm.checkpoint.open_huggingface', opened)
    LLMBlock(folder, pretrained=False)
    (tmp_path / 'config.json').write_text('{"model_type": "bloom"}')
    with pytest.raises(UnsupportedModelError, match='alibi'):
        LLMBlock(folder)
