"""Indexes and configs that somebody else wrote end in one message at worst."""

import json
import sys

import pytest
import torch

from lm4ve.blocks import LLMBlock
from lm4ve.errors import CheckpointError, UserError
from tests.helpers.families import write_huggingface, write_meta

DEEP = '[' * 100_000 + ']' * 100_000


@pytest.mark.parametrize('layout', ['sharded-safetensors', 'sharded-bin'])
@pytest.mark.parametrize('way', ['..', 'absolute', 'below'])
def test_an_index_does_not_lead_out_of_its_folder(tmp_path, layout, way):
    folder = tmp_path / 'model'
    folder.mkdir()
    write_huggingface(folder, 'llama', layout)
    index = next(folder.glob('*.index.json'))
    content = json.loads(index.read_text())
    for shard in set(content['weight_map'].values()):
        (folder / shard).rename(tmp_path / shard)
    start = {'..': '..', 'absolute': str(tmp_path), 'below': 'a/../..'}[way]
    content['weight_map'] = {k: f'{start}/{v}' for k, v in content['weight_map'].items()}
    index.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match='outside the checkpoint.s folder'):
        LLMBlock(str(folder))


@pytest.mark.parametrize('content', [DEEP, '{"weight_map": {"a": 5}}', '{"weight_map": null}'])
def test_an_index_that_is_none(tmp_path, content):
    write_huggingface(tmp_path, 'llama', 'sharded-safetensors')
    next(tmp_path.glob('*.index.json')).write_text(content)
    with pytest.raises(CheckpointError, match='is not a weight index'):
        LLMBlock(str(tmp_path))


@pytest.mark.parametrize('name', ['config.json', 'params.json'])
def test_deep_json(tmp_path, name):
    (tmp_path / name).write_text(DEEP)
    with pytest.raises(CheckpointError, match=f'{name} is not JSON'):
        LLMBlock(str(tmp_path))


@pytest.mark.parametrize('field', ['dim', 'n_heads', 'n_layers', 'n_kv_heads', 'norm_eps'])
@pytest.mark.parametrize('value', [[4], {'a': 1}, 'x'])
def test_params_that_are_not_numbers_are_refused(tmp_path, field, value):
    write_meta(tmp_path, 1, 'llama')
    path = tmp_path / 'params.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises((UserError, RuntimeError)):
        LLMBlock(str(tmp_path))


@pytest.mark.parametrize(
    'lost', ['attention.wq', 'attention.wk', 'attention.wo', 'feed_forward.w1', 'ffn_norm']
)
def test_a_weight_that_metas_files_lack_is_named(tmp_path, lost):
    write_meta(tmp_path, 1, 'llama')
    path = tmp_path / 'consolidated.00.pth'
    state = torch.load(path, weights_only=True)
    del state[f'layers.0.{lost}.weight']
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        LLMBlock(str(tmp_path), layers=(0,))


@pytest.mark.parametrize('field', ['hidden_size', 'num_attention_heads', 'num_hidden_layers'])
@pytest.mark.parametrize('value', [None, [4], '8', {}, 0, -1, 10**8])
def test_fields_of_a_config_that_are_no_numbers(tmp_path, field, value):
    write_huggingface(tmp_path, 'llama', 'safetensors')
    path = tmp_path / 'config.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(UserError):
        LLMBlock(str(tmp_path))


@pytest.mark.parametrize(
    'field, value',
    [('model_type', v) for v in (['llama'], {}, 5, None)]
    + [('text_config', v) for v in (['a'], 5)],
)
def test_invalid_model_types_are_refused(tmp_path, field, value):
    write_huggingface(tmp_path, 'llama', 'safetensors')
    path = tmp_path / 'config.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(UserError):
        LLMBlock(str(tmp_path))


@pytest.mark.parametrize(
    'fields',
    [
        dict(auto_map={'AutoModel': 'code.Code', 'AutoConfig': 'code.Code'}),
        # transformers downloads such "kernels" from the hub and imports them.
        dict(attn_implementation='somebody/kernel'),
        dict(_attn_implementation='somebody/kernel', use_kernels=True),
        dict(_attn_implementation_internal='somebody/kernel'),
    ],
    ids=lambda f: next(iter(f)),
)
def test_no_code_that_a_config_names_is_looked_for(tmp_path, fields):
    write_huggingface(tmp_path, 'llama', 'safetensors')
    (tmp_path / 'code.py').write_text(f"open('{tmp_path}/ran', 'w')")
    expected = LLMBlock(str(tmp_path))
    path = tmp_path / 'config.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    assert LLMBlock(str(tmp_path)).source['fingerprint'] == expected.source['fingerprint']
    assert not (tmp_path / 'ran').exists()


def test_fields_that_are_nested_deeply(tmp_path):
    write_huggingface(tmp_path, 'llama', 'safetensors')
    path = tmp_path / 'config.json'
    deep = '{"a":' * 600 + '1' + '}' * 600
    path.write_text(path.read_text().rstrip()[:-1] + f', "more": {deep}}}')
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)  # Python's own; torch.compile raises it in the tests before
    try:
        with pytest.raises(CheckpointError, match='config'):
            LLMBlock(str(tmp_path))
    finally:
        sys.setrecursionlimit(before)
