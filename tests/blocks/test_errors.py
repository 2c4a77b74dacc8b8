"""Wrong arguments, damaged files and unsupported models are refused by name."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS
from safetensors.torch import save_file

from lm4ve.blocks import LLMBlock
from lm4ve.errors import CheckpointError, UnsupportedModelError, UserError
from tests.blocks.test_families import tokens
from tests.helpers.families import FAMILIES, random_model, write_huggingface, write_meta


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_huggingface(tmp_path / 'llm', 'llama')


def refused(source, kind=CheckpointError, match: str = '', **options) -> None:
    with pytest.raises(kind, match=match):
        LLMBlock(str(source), **options)


def edit_config(folder: Path, **changes) -> None:
    path = folder / 'config.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_last(path: Path, ending: str, change) -> None:
    """Change the last layer's tensor with a name that ends so."""
    state = torch.load(path, weights_only=True)
    name = max(n for n in state if n.endswith(ending))
    torch.save({**state, name: change(state[name])}, path)


def truncate(path: Path, share: float = 0.5) -> None:
    os.truncate(path, int(path.stat().st_size * share))


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(), 'block.checkpoint=.*block.arch=.*exactly one'),
        (dict(checkpoint='x', arch=dict(model_type='llama')), 'exactly one'),
        *((dict(arch=arch), 'arch') for arch in ({}, dict(hidden_size=32), 'llama', [])),
        (dict(arch=dict(FAMILIES['llama'], hidden_size='wide')), "valid 'llama'.*hidden_size"),
        (dict(arch=dict(FAMILIES['llama'], num_attention_heads=5)), 'arch.*llama'),
        (dict(checkpoint='package:other'), 'all-MiniLM'),
        *((dict(checkpoint=p), 'block.checkpoint') for p in ('/no/such', './nowhere', 'a/b/c', '')),
    ],
)
def test_arguments_are_refused_by_name(options, message):
    with pytest.raises(UserError, match=message):
        LLMBlock(**options)


@pytest.mark.parametrize('trainable', ['norms', 'all'])
def test_settings_that_cannot_be_are_refused(checkpoints, trainable):
    path = checkpoints('llama')
    refused(path, UserError, "trainable='some'.*none, norms, all", trainable='some')
    refused(path, UserError, "dtype='int8'.*float32, bfloat16", dtype='int8')
    refused(path, UserError, 'block.dtype.*float32', trainable=trainable, dtype='bfloat16')


def test_errors_survive_the_registry_in_their_type(checkpoints):
    # MMEngine raises a constructor's error again as type(e)(message).
    with pytest.raises(CheckpointError, match='does not exist'):
        MODELS.build(dict(type='LLMBlock', checkpoint='/no/such/folder'))
    assert MODELS.build(dict(type='LLMBlock', checkpoint=checkpoints('llama')))


# ------------------------------------------------------------------------------- damaged files
def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


DAMAGE = {
    'no weights': lambda f: (f / 'model.safetensors').unlink(),
    'no config': lambda f: (f / 'config.json').unlink(),
    'no JSON': lambda f: (f / 'config.json').write_text('{"model_type": '),
    **{
        text: lambda f, text=text: (f / 'config.json').write_text(text)
        for text in ('[]', '"llama"', '{}', 'null')
    },
    **{
        str(changes): lambda f, changes=changes: edit_config(f, **changes)
        for changes in (
            *(dict(hidden_size='wide'), dict(num_attention_heads=5), dict(num_attention_heads=0)),
            *(dict(intermediate_size=64), dict(num_key_value_heads=2), dict(num_hidden_layers=5)),
            dict(rope_parameters=dict(rope_type='unheard-of')),
        )
    },
    'two copies of a layer': lambda f: save_file(
        {
            p + k: v.clone()
            for p in ('', 'twin.')
            for k, v in random_model('llama').state_dict().items()
        },
        f / 'model.safetensors',
    ),
}


@pytest.mark.parametrize('damage', DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_folder_is_refused(folder, damage):
    damage(folder)
    refused(folder, UserError, rotary=True)


@pytest.mark.filterwarnings('ignore:.*before PyTorch 1.6')
@pytest.mark.parametrize('layout', ['safetensors', 'bin', 'legacy-bin'])
@pytest.mark.parametrize('share', [0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path, layout, share):
    write_huggingface(tmp_path, 'llama', layout)
    (file,) = (f for f in tmp_path.iterdir() if f.suffix != '.json')
    truncate(file, share)
    refused(tmp_path, match=file.name)


@pytest.mark.parametrize('layout', ['sharded-safetensors', 'sharded-bin'])
def test_a_damaged_shard_is_refused(tmp_path, layout):
    write_huggingface(tmp_path, 'llama', layout)
    shard = only(tmp_path, '*-00003-of-00003.*')
    truncate(shard)
    refused(tmp_path, match=shard.name)
    shard.unlink()
    refused(tmp_path, match=shard.name)
    LLMBlock(str(tmp_path), layers=(0,))
    if layout == 'sharded-safetensors':  # of another download
        save_file({'other': torch.zeros(1)}, shard)
        refused(tmp_path)
    index = only(tmp_path, '*.index.json')
    for content in ('{', '{}', '[]', '{"weight_map": 3}'):
        index.write_text(content)
        refused(tmp_path, match=index.name)


@pytest.mark.parametrize('content', [torch.zeros(3), [1, 2], {'a': 1}, {}])
def test_a_pickle_without_named_tensors_is_refused(tmp_path, content):
    write_huggingface(tmp_path, 'llama', 'bin')
    torch.save(content, tmp_path / 'pytorch_model.bin')
    refused(tmp_path)


@pytest.mark.parametrize(
    'change',
    [
        lambda w: w.to(torch.int8),
        lambda w: w.to(torch.float8_e4m3fn),
        lambda w: w.to(torch.complex64),
        lambda w: w.to_sparse(),
        lambda w: w.to('meta'),
    ],
    ids=['int8', 'float8', 'complex', 'sparse', 'meta'],
)
def test_weights_that_are_no_plain_numbers_are_refused(tmp_path, change):
    write_huggingface(tmp_path, 'llama', 'bin')
    change_last(tmp_path / 'pytorch_model.bin', 'up_proj.weight', change)
    refused(tmp_path, match='up_proj.weight')


class Payload:
    """Creates a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.filterwarnings('ignore:.*before PyTorch 1.6')
@pytest.mark.parametrize('file', ['pytorch_model.bin', 'consolidated.00.pth'])
@pytest.mark.parametrize('how', ['zip', 'legacy', 'pickle'])
def test_a_pickle_never_runs_code(tmp_path, file, how):
    write_meta(tmp_path) if file.endswith('pth') else write_huggingface(tmp_path, 'llama', 'bin')
    trace = tmp_path / 'trace'
    content = {'weight': torch.zeros(1), 'payload': Payload(trace)}
    if how == 'pickle':
        (tmp_path / file).write_bytes(pickle.dumps(content))
    else:
        torch.save(content, tmp_path / file, _use_new_zipfile_serialization=(how == 'zip'))
    refused(tmp_path, match=file)
    assert not trace.exists()
    # It would have run.
    Payload(trace).__reduce__()[0](*Payload(trace).__reduce__()[1])
    assert trace.exists()


def both(folder: Path, change) -> None:
    for n in (0, 1):
        change_last(folder / f'consolidated.0{n}.pth', 'w2.weight', change)


@pytest.mark.parametrize(
    'change',
    [
        *(lambda f, t=t: (f / 'params.json').write_text(t) for t in ('{', '[]', '{"dim": 32}')),
        lambda f: [p.unlink() for p in f.glob('*.pth')],
        lambda f: f.joinpath('consolidated.01.pth').unlink(),
        lambda f: f.joinpath('consolidated.00.pth').unlink(),
        lambda f: truncate(f / 'consolidated.01.pth'),
        lambda f: change_last(f / 'consolidated.01.pth', 'w2.weight', lambda w: w[:, :3]),
        lambda f: both(f, torch.sum),
        lambda f: torch.save({}, f / 'consolidated.01.pth'),
        lambda f: torch.save({}, f / 'consolidated.00.pth'),
        lambda f: write_meta(f, 2, moe=dict(num_experts=8)),
    ],
)
def test_a_damaged_meta_folder_is_refused(tmp_path, change):
    change(write_meta(tmp_path, shards=2))
    refused(tmp_path, UserError)


# -------------------------------------------------------------------------- unsupported models
@pytest.mark.parametrize(
    'fields, message',
    [
        (dict(model_type='zaya'), "'zaya' has no layer spec.*llama.*blocks/families"),
        (dict(model_type='deepseek_v3', n_routed_experts=64), 'latent attention'),
        (
            dict(model_type='no-such-wrapper', text_config=dict(model_type='granitemoe')),
            "'granitemoe' has no layer spec",
        ),
        (dict(model_type='bloom'), "'bloom' is refused.*alibi"),
        (dict(FAMILIES['falcon-rw'], alibi=True), 'falcon.*alibi=True.*Choose'),
        (dict(model_type='phi-msft'), 'remote-code.*model_type "phi"'),
        (dict(FAMILIES['llama'], quantization_config=dict(quant_method='gptq')), 'unquantized'),
        (dict(FAMILIES['llama'], num_local_experts=4), "'llama' with experts.*mixtral.*dense"),
    ],
)
def test_models_that_are_refused_say_why(tmp_path, fields, message):
    with pytest.raises(UnsupportedModelError, match=message):
        LLMBlock(arch=fields)
    (tmp_path / 'config.json').write_text(json.dumps(fields))
    refused(tmp_path, UnsupportedModelError, message)


def test_names_of_remote_code_are_refused(tmp_path):
    # Phi as its first release laid it out.
    names = ('mixer.Wqkv.weight', 'mixer.out_proj.weight', 'ln.weight')
    state = {f'transformer.h.{i}.{n}': torch.zeros(32, 32) for i in range(2) for n in names}
    random_model('phi').config.save_pretrained(tmp_path)
    save_file(state, tmp_path / 'model.safetensors')
    refused(tmp_path, match='phi')


# ------------------------------------------------------------------------------------- inputs
@pytest.mark.parametrize('shape', [(2, 6, 31), (6, 32), (2, 32, 3, 3)])
def test_inputs_of_another_shape_are_refused(checkpoints, shape):
    with pytest.raises(UserError, match=r'takes \[B, N, 32\], got \['):
        LLMBlock(checkpoints('llama'))(torch.zeros(shape))


@pytest.mark.parametrize(
    'padding',
    [
        torch.zeros(2, 6),
        torch.zeros(2, 6, dtype=torch.long),
        torch.zeros(2, 5, dtype=torch.bool),
        torch.zeros(6, dtype=torch.bool),
        torch.tensor([[False] * 6, [True] * 6]),
    ],
    ids=lambda p: f'{p.dtype}{list(p.shape)}',
)
def test_masks_that_cannot_be_are_refused(checkpoints, padding):
    with pytest.raises(UserError, match='padding_mask (must be bool|marks every token)'):
        LLMBlock(checkpoints('llama'))(tokens(), padding)
