"""Files that somebody else wrote, damaged or hostile, end in one message and run no code."""

import json
import os
import pickle
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lm4ve.blocks import LLMBlock
from lm4ve.errors import CheckpointError, UserError
from lm4ve.llm.foreign_config import build_foreign_config
from tests.helpers import families, hostile

pytestmark = pytest.mark.filterwarnings('ignore:.*before PyTorch 1.6')
DEEP = '[' * 100_000 + ']' * 100_000


def refused(source, kind=CheckpointError, match: str = '', **options) -> None:
    with pytest.raises(kind, match=match):
        LLMBlock(str(source), **options)


def edit(file: Path, changes: dict) -> None:
    """Change fields of a JSON file."""
    hostile.edit(file, lambda content: content.update(changes))


def change_tensor(file: Path, ending: str, change) -> None:
    """Change the last layer's tensor with a name that ends so."""
    state = torch.load(file, weights_only=True)
    name = max(name for name in state if name.endswith(ending))
    state[name] = change(state[name])
    torch.save(state, file)


def truncate(file: Path, share: float = 0.5) -> None:
    os.truncate(file, int(file.stat().st_size * share))


# ----------------------------------------------------------------- Hugging Face's folders
def wrong_configs() -> list[dict]:
    """Fields of config.json that no model has."""
    no_sizes = [None, [4], '8', {}, 0, -1, 10**8]
    configs = [
        dict(num_hidden_layers=5),
        dict(text_config=['a']),
        dict(text_config=5),
        dict(intermediate_size=64),
        dict(num_key_value_heads=2),
        dict(rope_parameters=dict(rope_type='unheard-of')),
    ]
    for name in ('hidden_size', 'num_attention_heads', 'num_hidden_layers'):
        configs += [{name: value} for value in no_sizes]
    for value in (['llama'], {}, 5, None):
        configs.append(dict(model_type=value))
    return configs


@pytest.mark.parametrize('fields', wrong_configs(), ids=str)
def test_wrong_fields_of_a_config_are_refused(tmp_path, fields):
    folder = families.write_huggingface(tmp_path, 'llama')
    edit(folder / 'config.json', fields)
    refused(folder, UserError, rotary=True)


NO_CONFIGS = ['{"model_type": ', '[]', '"llama"', '{}', 'null', DEEP]


@pytest.mark.parametrize('text', NO_CONFIGS, ids=lambda text: text[:20])
def test_a_text_that_is_no_config_is_refused(tmp_path, text):
    folder = families.write_huggingface(tmp_path, 'llama')
    (folder / 'config.json').write_text(text)
    refused(folder, UserError)


@pytest.mark.parametrize('name', ['model.safetensors', 'config.json'])
def test_a_folder_without_a_file_is_refused(tmp_path, name):
    folder = families.write_huggingface(tmp_path, 'llama')
    (folder / name).unlink()
    refused(folder, UserError)


def test_a_file_of_two_models_is_refused(tmp_path):
    folder = families.write_huggingface(tmp_path, 'llama')
    state = families.random_model('llama').state_dict()
    twin = {f'twin.{name}': tensor.clone() for name, tensor in state.items()}
    save_file({**state, **twin}, folder / 'model.safetensors')
    refused(folder, UserError)


LEFT_OUT = [
    ('llama-bias', dict(attention_bias=False, mlp_bias=False)),
    ('qwen3', dict(model_type='llama')),
    ('phi-qk-norm', dict(qk_layernorm=False)),
]


@pytest.mark.parametrize('variant, changes', LEFT_OUT)
def test_weights_that_the_config_leaves_out_are_refused(tmp_path, variant, changes):
    folder = families.write_huggingface(tmp_path, variant)
    edit(folder / 'config.json', changes)
    refused(folder, match='which a .* of its config.json does not have')


@pytest.mark.parametrize('variant', families.FAMILIES)
def test_an_extra_tensor_of_a_layer_is_refused(tmp_path, variant):
    model = families.random_model(variant)
    last_layer = families.decoder_layers(model)[-1]
    part = list(last_layer.modules())[-1]
    (name,) = [name for name, module in model.named_modules() if module is part]
    extra = {f'{name}.extra': torch.zeros(1)}
    refused(families.write_huggingface(tmp_path, variant, extra=extra), match='extra')


@pytest.mark.parametrize('layout', ['safetensors', 'bin', 'legacy-bin'])
@pytest.mark.parametrize('share', [0, 0.01, 0.5, 0.99])
def test_truncated_files_are_refused(tmp_path, layout, share):
    families.write_huggingface(tmp_path, 'llama', layout)
    (file,) = [file for file in tmp_path.iterdir() if file.suffix != '.json']
    truncate(file, share)
    refused(tmp_path, match=file.name)


@pytest.mark.parametrize('layout', ['sharded-safetensors', 'sharded-bin'])
def test_damaged_shards_are_refused(tmp_path, layout):
    families.write_huggingface(tmp_path, 'llama', layout)
    (shard,) = tmp_path.glob('*-00003-of-00003.*')
    truncate(shard)
    refused(tmp_path, match=shard.name)
    shard.unlink()
    refused(tmp_path, match=shard.name)
    LLMBlock(str(tmp_path), layers=(0,))  # lies in another shard


def test_a_shard_of_another_download_is_refused(tmp_path):
    families.write_huggingface(tmp_path, 'llama', 'sharded-safetensors')
    (shard,) = tmp_path.glob('*-00003-of-00003.*')
    save_file({'other': torch.zeros(1)}, shard)
    refused(tmp_path)


NO_INDEXES = [
    '{',
    '{}',
    '[]',
    DEEP,
    '{"weight_map": 3}',
    '{"weight_map": null}',
    '{"weight_map": {"a": 5}}',
]


@pytest.mark.parametrize('layout', ['sharded-safetensors', 'sharded-bin'])
def test_damaged_indexes_are_refused(tmp_path, layout):
    families.write_huggingface(tmp_path, 'llama', layout)
    (index,) = tmp_path.glob('*.index.json')
    for text in NO_INDEXES:
        index.write_text(text)
        refused(tmp_path, match=index.name)


@pytest.mark.parametrize('layout', ['sharded-safetensors', 'sharded-bin'])
@pytest.mark.parametrize('way', ['..', 'absolute', 'below'])
def test_an_index_does_not_lead_out_of_its_folder(tmp_path, layout, way):
    folder = families.write_huggingface(tmp_path / 'model', 'llama', layout)
    (index,) = folder.glob('*.index.json')
    shards = json.loads(index.read_text())['weight_map']
    for shard in set(shards.values()):
        (folder / shard).rename(tmp_path / shard)
    start = {'..': '..', 'absolute': str(tmp_path), 'below': 'a/../..'}[way]
    outside = {name: f'{start}/{shard}' for name, shard in shards.items()}
    edit(index, dict(weight_map=outside))
    refused(folder, match='outside the checkpoint.s folder')


def with_value(weight: torch.Tensor, value: float) -> torch.Tensor:
    """Return a weight whose first row has one value."""
    return weight.index_fill(0, torch.tensor(0), value)


#: What is wrong with a weight -> how to make it so.
NO_PLAIN_NUMBERS = {
    'int8': lambda weight: weight.to(torch.int8),
    'float8': lambda weight: weight.to(torch.float8_e4m3fn),
    'complex': lambda weight: weight.to(torch.complex64),
    'sparse': lambda weight: weight.to_sparse(),
    'sparse rows': lambda weight: weight.to_sparse_csr(),
    'without values': lambda weight: weight.to('meta'),
    'not a number': lambda weight: with_value(weight, torch.nan),
    'infinite': lambda weight: with_value(weight, torch.inf),
}


@pytest.mark.parametrize('wrong', NO_PLAIN_NUMBERS)
def test_weights_that_are_no_plain_numbers_are_refused(tmp_path, wrong):
    families.write_huggingface(tmp_path, 'llama', 'bin')
    file = tmp_path / 'pytorch_model.bin'
    change_tensor(file, 'up_proj.weight', NO_PLAIN_NUMBERS[wrong])
    refused(tmp_path, match='up_proj.weight')


#: Names of the tensors beside packed weights, by what packs them.
PACKED = {
    'gptq': ('qweight', 'qzeros', 'scales', 'g_idx'),
    'bitsandbytes, 8 bits': ('weight', 'SCB'),
    'bitsandbytes, 4 bits': ('weight', 'weight.absmax', 'weight.quant_map'),
    'fp8': ('weight', 'weight_scale_inv'),
    'mlx': ('weight', 'scales', 'biases'),
    'compressed-tensors': ('weight_packed', 'weight_scale'),
}


@pytest.mark.parametrize('kind', PACKED)
def test_quantized_weights_that_no_config_names_are_called_so(tmp_path, kind):
    families.write_huggingface(tmp_path, 'llama')
    file = tmp_path / 'model.safetensors'
    state = {}
    for name, tensor in load_file(file).items():
        if not name.endswith('proj.weight'):
            state[name] = tensor
            continue
        for part in PACKED[kind]:
            state[name.removesuffix('weight') + part] = tensor.clone()
    save_file(state, file)
    refused(tmp_path, match='quantized weights.*Fix: the unquantized release')


@pytest.mark.parametrize('beside', ['params.json', 'config.json'])
def test_mistrals_own_layout_is_named_with_the_files_that_are_read(tmp_path, beside):
    if beside == 'params.json':
        families.write_meta(tmp_path)
        without_shards(tmp_path)
    else:
        families.write_huggingface(tmp_path, 'mistral')
        (tmp_path / 'model.safetensors').unlink()
    weight = torch.zeros(4, 4)
    file = tmp_path / 'consolidated.safetensors'
    save_file({'layers.1.attention.wq.weight': weight}, file)
    fix = r"Mistral's own layout.*Fix: config.json and model\*.safetensors"
    refused(tmp_path, match=fix)
    if beside == 'config.json':
        refused(file, match=fix)


# --------------------------------------------------------------------------------- code
@pytest.mark.parametrize('layout', ['bin', 'meta'])
@pytest.mark.parametrize('how', ['zip', 'legacy', 'pickle'])
def test_a_pickle_never_runs_code(tmp_path, layout, how):
    if layout == 'meta':
        families.write_meta(tmp_path)
        file = tmp_path / 'consolidated.00.pth'
    else:
        families.write_huggingface(tmp_path, 'llama', 'bin')
        file = tmp_path / 'pytorch_model.bin'
    trace = tmp_path / 'trace'
    content = {'weight': torch.zeros(1), 'payload': hostile.Payload(trace)}
    if how == 'pickle':
        file.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=how == 'zip')
    refused(tmp_path, match=file.name)
    assert not trace.exists()
    pickle.loads(pickle.dumps(content))  # the code would have left a trace
    assert trace.exists()


def test_fields_that_stand_for_a_number_are_refused():
    with pytest.raises(CheckpointError, match='^config.json is not that of a valid'):
        build_foreign_config({'__float__': 'Infinity'}, 'config.json')


CODE = [
    dict(auto_map={'AutoModel': 'code.Code', 'AutoConfig': 'code.Code'}),
    # transformers downloads such "kernels" from the hub and imports them.
    dict(attn_implementation='somebody/kernel'),
    dict(_attn_implementation='somebody/kernel', use_kernels=True),
    dict(_attn_implementation_internal='somebody/kernel'),
]


@pytest.mark.parametrize('fields', CODE, ids=lambda fields: list(fields)[0])
def test_code_that_a_config_names_is_ignored(tmp_path, fields):
    families.write_huggingface(tmp_path, 'llama')
    (tmp_path / 'code.py').write_text(f"open('{tmp_path}/ran', 'w')")
    expected = LLMBlock(str(tmp_path))
    edit(tmp_path / 'config.json', fields)
    block = LLMBlock(str(tmp_path))
    assert block.source['fingerprint'] == expected.source['fingerprint']
    assert not (tmp_path / 'ran').exists()


def test_deeply_nested_fields_are_refused(tmp_path):
    file = families.write_huggingface(tmp_path, 'llama') / 'config.json'
    deep = '{"a":' * 600 + '1' + '}' * 600
    file.write_text(file.read_text().rstrip()[:-1] + f', "more": {deep}}}')
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)  # Python's own, which torch.compile raises
    try:
        refused(tmp_path, match='config')
    finally:
        sys.setrecursionlimit(before)


# ----------------------------------------------------------------------- Meta's folders
NO_PARAMS = ['{', '[]', '{"dim": 32}']


@pytest.mark.parametrize('text', NO_PARAMS)
def test_a_text_that_is_no_params_is_refused(tmp_path, text):
    folder = families.write_meta(tmp_path)
    (folder / 'params.json').write_text(text)
    refused(folder, UserError)


@pytest.mark.parametrize('value', [[4], {'a': 1}, 'x'], ids=str)
@pytest.mark.parametrize(
    'field', ['dim', 'n_heads', 'n_layers', 'n_kv_heads', 'norm_eps']
)
def test_wrong_params_are_refused(tmp_path, field, value):
    folder = families.write_meta(tmp_path, shards=2)
    edit(folder / 'params.json', {field: value})
    refused(folder, UserError)


@pytest.mark.parametrize(
    'part',
    ['attention.wq', 'attention.wk', 'attention.wo', 'feed_forward.w1', 'ffn_norm'],
)
def test_shards_without_a_tensor_are_refused(tmp_path, part):
    folder = families.write_meta(tmp_path, shards=2)
    for file in folder.glob('*.pth'):
        state = torch.load(file, weights_only=True)
        del state[f'layers.1.{part}.weight']
        torch.save(state, file)
    refused(folder, UserError)


def without_shards(folder: Path) -> None:
    for file in folder.glob('*.pth'):
        file.unlink()


def without_the_second_shard(folder: Path) -> None:
    (folder / 'consolidated.01.pth').unlink()


def with_a_cut_shard(folder: Path) -> None:
    truncate(folder / 'consolidated.01.pth')


def with_an_empty_shard(folder: Path) -> None:
    torch.save({}, folder / 'consolidated.01.pth')


def with_a_narrow_part(folder: Path) -> None:
    change_tensor(folder / 'consolidated.01.pth', 'w2.weight', lambda w: w[:, :3])


def with_numbers_for_a_matrix(folder: Path) -> None:
    for file in folder.glob('*.pth'):
        change_tensor(file, 'w2.weight', torch.sum)


def with_experts(folder: Path) -> None:
    families.write_meta(folder, shards=2, moe=dict(num_experts=8))


@pytest.mark.parametrize(
    'damage',
    [
        without_shards,
        without_the_second_shard,
        with_a_cut_shard,
        with_an_empty_shard,
        with_a_narrow_part,
        with_numbers_for_a_matrix,
        with_experts,
    ],
)
def test_damaged_meta_folders_are_refused(tmp_path, damage):
    folder = families.write_meta(tmp_path, shards=2)
    damage(folder)
    refused(folder, UserError)
