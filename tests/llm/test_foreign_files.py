"""Files that somebody else wrote, damaged or hostile, end in one message and run no code."""

import json
import os
import pickle
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lm4ve.blocks import LLMBlock
from lm4ve.blocks.language_model import LanguageModel
from lm4ve.errors import CheckpointError, UserError
from tests.helpers import families, hostile

pytestmark = pytest.mark.filterwarnings('ignore:.*before PyTorch 1.6')
DEEP = '[' * 100_000 + ']' * 100_000


def refused(source, kind=CheckpointError, match: str = '', **options) -> None:
    with pytest.raises(kind, match=match):
        LLMBlock(str(source), **options)


def edit(folder: Path, name: str, changes: dict) -> None:
    hostile.edit(folder / name, lambda content: content.update(changes))


def edit_last(path: Path, ending: str, change) -> None:
    """Change the last layer's tensor with a name that ends so; None removes it."""
    state = torch.load(path, weights_only=True)
    name = max(n for n in state if n.endswith(ending))
    state[name] = change(state[name])
    torch.save({k: v for k, v in state.items() if v is not None}, path)


def truncate(path: Path, share: float = 0.5) -> None:
    os.truncate(path, int(path.stat().st_size * share))


def twins(folder: Path) -> None:
    state = families.random_model('llama').state_dict()
    twice = {p + k: v.clone() for p in ('', 'twin.') for k, v in state.items()}
    save_file(twice, folder / 'model.safetensors')


NO_NUMBERS = (None, [4], '8', {}, 0, -1, 10**8)
CONFIGS = [
    *({name: v} for name in ('hidden_size', 'num_attention_heads') for v in NO_NUMBERS),
    *(dict(num_hidden_layers=v) for v in (*NO_NUMBERS, 5)),
    *(dict(model_type=v) for v in (['llama'], {}, 5, None)),
    *(dict(text_config=v) for v in (['a'], 5)),
    *(dict(intermediate_size=64), dict(num_key_value_heads=2)),
    dict(rope_parameters=dict(rope_type='unheard-of')),
]
DAMAGE = [
    *(partial(edit, name='config.json', changes=changes) for changes in CONFIGS),
    *(
        lambda f, text=text: (f / 'config.json').write_text(text)
        for text in ('{"model_type": ', '[]', '"llama"', '{}', 'null', DEEP)
    ),
    lambda f: (f / 'model.safetensors').unlink(),
    lambda f: (f / 'config.json').unlink(),
    twins,
]


@pytest.mark.parametrize('damage', DAMAGE)
def test_damaged_folders_are_refused(tmp_path, damage):
    damage(families.write_huggingface(tmp_path, 'llama'))
    refused(tmp_path, UserError, rotary=True)


LEFT_OUT = [
    ('llama-bias', dict(attention_bias=False, mlp_bias=False)),
    *(('qwen3', dict(model_type='llama')), ('phi-qk-norm', dict(qk_layernorm=False))),
]


@pytest.mark.parametrize('variant, changes', LEFT_OUT)
def test_weights_that_the_config_leaves_out_are_refused(tmp_path, variant, changes):
    edit(families.write_huggingface(tmp_path, variant), 'config.json', changes)
    refused(tmp_path, match='which a .* of its config.json does not have')


@pytest.mark.parametrize('variant', families.FAMILIES)
def test_an_extra_tensor_of_a_layer_is_refused(checkpoints, variant):
    model, reference = (
        LanguageModel(checkpoints(variant), None),
        families.random_model(variant),
    )
    *_, last = families.decoder_layers(reference)[-1].modules()
    part = next(n for n, m in reference.named_modules() if m is last)
    model.files.weights = {
        **model.files.weights,
        f'{part}.extra': lambda: torch.zeros(1),
    }
    with pytest.raises(CheckpointError, match='extra'):
        model.build_layer(1, torch.float32, True, lambda name, weight: None)


@pytest.mark.parametrize('layout', ['safetensors', 'bin', 'legacy-bin'])
@pytest.mark.parametrize('share', [0, 0.01, 0.5, 0.99])
def test_truncated_files_are_refused(tmp_path, layout, share):
    families.write_huggingface(tmp_path, 'llama', layout)
    (file,) = (f for f in tmp_path.iterdir() if f.suffix != '.json')
    truncate(file, share)
    refused(tmp_path, match=file.name)


@pytest.mark.parametrize('layout', ['sharded-safetensors', 'sharded-bin'])
def test_damaged_shards_and_indexes_are_refused(tmp_path, layout):
    families.write_huggingface(tmp_path, 'llama', layout)
    shard = next(tmp_path.glob('*-00003-of-00003.*'))
    truncate(shard)
    refused(tmp_path, match=shard.name)
    shard.unlink()
    refused(tmp_path, match=shard.name)
    LLMBlock(str(tmp_path), layers=(0,))
    if layout == 'sharded-safetensors':  # of another download
        save_file({'other': torch.zeros(1)}, shard)
        refused(tmp_path)
    index = next(tmp_path.glob('*.index.json'))
    maps = ('3', 'null', '{"a": 5}')
    for content in ('{', '{}', '[]', DEEP, *(f'{{"weight_map": {m}}}' for m in maps)):
        index.write_text(content)
        refused(tmp_path, match=index.name)


@pytest.mark.parametrize('layout', ['sharded-safetensors', 'sharded-bin'])
@pytest.mark.parametrize('way', ['..', 'absolute', 'below'])
def test_an_index_does_not_lead_out_of_its_folder(tmp_path, layout, way):
    folder = families.write_huggingface(tmp_path / 'model', 'llama', layout)
    index = next(folder.glob('*.index.json'))
    shards = json.loads(index.read_text())['weight_map']
    for shard in set(shards.values()):
        (folder / shard).rename(tmp_path / shard)
    start = {'..': '..', 'absolute': str(tmp_path), 'below': 'a/../..'}[way]
    edit(
        folder,
        index.name,
        dict(weight_map={k: f'{start}/{v}' for k, v in shards.items()}),
    )
    refused(folder, match='outside the checkpoint.s folder')


NOT_PLAIN = [
    *(
        lambda w, t=t: w.to(t)
        for t in (torch.int8, torch.float8_e4m3fn, torch.complex64)
    ),
    *(lambda w: w.to_sparse(), lambda w: w.to_sparse_csr(), lambda w: w.to('meta')),
    *(
        lambda w, v=v: w.index_fill(0, torch.tensor(0), v)
        for v in (torch.nan, torch.inf)
    ),
]


@pytest.mark.parametrize('change', NOT_PLAIN)
def test_weights_that_are_no_plain_numbers_are_refused(tmp_path, change):
    families.write_huggingface(tmp_path, 'llama', 'bin')
    edit_last(tmp_path / 'pytorch_model.bin', 'up_proj.weight', change)
    refused(tmp_path, match='up_proj.weight')


@pytest.mark.parametrize('file', ['pytorch_model.bin', 'consolidated.00.pth'])
@pytest.mark.parametrize('how', ['zip', 'legacy', 'pickle'])
def test_a_pickle_never_runs_code(tmp_path, file, how):
    families.write_meta(tmp_path) if file.endswith(
        'pth'
    ) else families.write_huggingface(tmp_path, 'llama', 'bin')
    trace = tmp_path / 'trace'
    content = {'weight': torch.zeros(1), 'payload': hostile.Payload(trace)}
    if how == 'pickle':
        (tmp_path / file).write_bytes(pickle.dumps(content))
    else:
        torch.save(
            content, tmp_path / file, _use_new_zipfile_serialization=(how == 'zip')
        )
    refused(tmp_path, match=file)
    assert not trace.exists()
    pickle.loads(pickle.dumps(content))  # it would have run
    assert trace.exists()


CODE = [
    dict(auto_map={'AutoModel': 'code.Code', 'AutoConfig': 'code.Code'}),
    # transformers downloads such "kernels" from the hub and imports them.
    dict(attn_implementation='somebody/kernel'),
    dict(_attn_implementation='somebody/kernel', use_kernels=True),
    dict(_attn_implementation_internal='somebody/kernel'),
]


@pytest.mark.parametrize('fields', CODE, ids=lambda f: next(iter(f)))
def test_code_that_a_config_names_is_ignored(tmp_path, fields):
    families.write_huggingface(tmp_path, 'llama')
    (tmp_path / 'code.py').write_text(f"open('{tmp_path}/ran', 'w')")
    expected = LLMBlock(str(tmp_path))
    edit(tmp_path, 'config.json', fields)
    assert (
        LLMBlock(str(tmp_path)).source['fingerprint'] == expected.source['fingerprint']
    )
    assert not (tmp_path / 'ran').exists()


def test_deeply_nested_fields_are_refused(tmp_path):
    path = families.write_huggingface(tmp_path, 'llama') / 'config.json'
    deep = '{"a":' * 600 + '1' + '}' * 600
    path.write_text(path.read_text().rstrip()[:-1] + f', "more": {deep}}}')
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(
        1000
    )  # Python's own; torch.compile raises it in the tests before
    try:
        refused(tmp_path, match='config')
    finally:
        sys.setrecursionlimit(before)


# ----------------------------------------------------------------------- Meta's folders
def both(folder: Path, change) -> None:
    for n in (0, 1):
        edit_last(folder / f'consolidated.0{n}.pth', 'w2.weight', change)


PARAMS = ('dim', 'n_heads', 'n_layers', 'n_kv_heads', 'norm_eps')
LOST = ('attention.wq', 'attention.wk', 'attention.wo', 'feed_forward.w1', 'ffn_norm')


META_DAMAGE = [
    *(
        lambda f, t=t: (f / 'params.json').write_text(t)
        for t in ('{', '[]', '{"dim": 32}')
    ),
    *(
        partial(edit, name='params.json', changes={field: value})
        for field in PARAMS
        for value in ([4], {'a': 1}, 'x')
    ),
    *(
        lambda f, name=name: [
            edit_last(p, f'layers.1.{name}.weight', lambda _: None)
            for p in f.glob('*.pth')
        ]
        for name in LOST
    ),
    lambda f: [p.unlink() for p in f.glob('*.pth')],
    lambda f: f.joinpath('consolidated.01.pth').unlink(),
    lambda f: truncate(f / 'consolidated.01.pth'),
    lambda f: edit_last(f / 'consolidated.01.pth', 'w2.weight', lambda w: w[:, :3]),
    lambda f: both(f, torch.sum),
    lambda f: torch.save({}, f / 'consolidated.01.pth'),
    lambda f: families.write_meta(f, 2, moe=dict(num_experts=8)),
]


@pytest.mark.parametrize('change', META_DAMAGE)
def test_damaged_meta_folders_are_refused(tmp_path, change):
    change(families.write_meta(tmp_path, shards=2))
    refused(tmp_path, UserError)
