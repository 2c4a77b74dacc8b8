"""A checkpoint is opened in one direction, and its weights only when they are read."""

import ast
from pathlib import Path

import pytest

import lm4ve.llm
from lm4ve.blocks import LLMBlock
from lm4ve.errors import UnsupportedModelError
from lm4ve.llm.checkpoint import open_checkpoint
from tests.helpers.families import write_huggingface, write_meta

#: From a name to tensors: no file imports one that stands to its right.
ORDER = ['sources', 'readers', 'meta_layout', 'gguf_files', 'expert_layout', 'checkpoint']


def imported(module: str) -> set[str]:
    """The modules of lm4ve that a file of lm4ve/llm imports."""
    tree = ast.parse((Path(lm4ve.llm.__path__[0]) / f'{module}.py').read_text())
    names = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
    return {n for n in names if n.startswith('lm4ve')}


@pytest.mark.parametrize('module', ORDER)
def test_imports_go_one_way(module):
    before = {f'lm4ve.llm.{name}' for name in ORDER[: ORDER.index(module)]}
    assert imported(module) <= before | {'lm4ve.errors', 'lm4ve.llm.torch_files'}


@pytest.mark.parametrize('write', [write_huggingface, write_meta])
def test_both_layouts_say_the_same(tmp_path, write):
    write(*((tmp_path, 'llama') if write is write_huggingface else (tmp_path,)))
    checkpoint = open_checkpoint(str(tmp_path))
    assert checkpoint.config['model_type'] == 'llama'
    assert checkpoint.config['hidden_size'] == 32
    name = next(n for n in checkpoint.weights.names() if n.endswith('0.mlp.gate_proj.weight'))
    shape = checkpoint.weights.shape(name)
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
