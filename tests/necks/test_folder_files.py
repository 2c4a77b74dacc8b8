"""What a folder of ``save_pretrained`` may name: no code, no download, no file elsewhere."""

import importlib.metadata
import inspect
import json
import os
import socket
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from mmengine.registry import MODELS
from torch import Tensor, nn

import lm4ve
from lm4ve.blocks import LLMBlock
from lm4ve.errors import CheckpointError, UserError
from lm4ve.necks import LLMBlockNeck, folder_config
from lm4ve.necks.pretrained import CONFIG_FILE, WEIGHTS_FILE
from tests.helpers import hub
from tests.helpers.families import write_huggingface
from tests.helpers.hostile_types import HOSTILE, everywhere, hostile
from tests.helpers.models import BLOCK
from tests.helpers.necks.encoder import C, Encoder, batch, wrapped

LORA = dict(r=2)
#: Together they have every dict that a file can have.
WRAPPED = {
    'one': dict(
        block=dict(BLOCK, trainable='lora', lora=LORA, causal=dict(soft=0.5)),
        mapper=dict(bias=True),
        norm_cfg=dict(type='LN', eps=1e-3),
        lora=LORA,
    ),
    'several': dict(
        after=['blocks.0', 'pair'],
        residual='inner',
        branch=dict(weight=0.5),
        share_block=True,
    ),
    'control': dict(
        block=dict(type='MLPBlock', embed_dims=8),
        init_cfg=dict(type='TruncNormal', layer='Linear'),
    ),
}


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / CONFIG_FILE).read_text())


def write(folder: Path, content: Any) -> None:
    (folder / CONFIG_FILE).write_text(json.dumps(content))


def rename(folder: Path, checkpoint: str) -> None:
    """Let the file of a folder name another language model."""
    content = read(folder)
    content['block']['checkpoint'] = checkpoint
    write(folder, content)


# --------------------------------------------------------------------------- code
@pytest.mark.parametrize('kind', HOSTILE)
@pytest.mark.parametrize('name', WRAPPED)
def test_no_dict_of_the_file_runs_what_it_names(name, kind, tmp_path):
    folder, marker = tmp_path / 'saved', tmp_path / 'RAN'
    lm4ve.save_pretrained(wrapped(**WRAPPED[name]), folder)
    content = read(folder)
    # Older files have it, and MMEngine would build it.
    necks = content['neck']
    for neck in necks if isinstance(necks, list) else [necks]:
        neck['init_cfg'] = dict(type='Constant', layer='Linear')
    for changed in everywhere(content, hostile(kind, marker)):
        write(folder, changed)
        model = Encoder()
        try:
            lm4ve.from_pretrained(model, folder)
        except UserError:
            assert not hasattr(model, 'llm_neck')
        else:
            for module in model.modules():
                if hasattr(module, 'init_weights'):
                    module.init_weights()
        assert not marker.exists()


@pytest.mark.parametrize('kind', HOSTILE)
def test_the_same_dict_from_a_caller_would_run(kind, tmp_path):
    """So the test above finds what it looks for."""
    entries = hostile(kind, tmp_path / 'RAN')
    entries.pop('_delete_', None)  # which is of a config's inheritance
    MODELS.build(entries)
    assert (tmp_path / 'RAN').exists()


@MODELS.register_module()
class BlockOfTestFolderFiles(nn.Module):
    """Somebody's own block."""

    def __init__(self, embed_dims: int, act: Any = None) -> None:
        super().__init__()
        self.embed_dims = embed_dims
        self.linear = nn.Linear(embed_dims, embed_dims)

    def forward(self, x: Tensor, padding_mask: Any = None, queries: Any = None):
        return self.linear(x)


@pytest.mark.bitwise
def test_an_own_block_is_built_for_the_caller_alone(tmp_path):
    block = dict(type='BlockOfTestFolderFiles', embed_dims=8, act=nn.GELU)
    model = wrapped(block=block)
    lm4ve.save_pretrained(model, tmp_path)
    assert read(tmp_path)['block'] == dict(type='BlockOfTestFolderFiles')
    with pytest.raises(UserError, match='BlockOfTestFolderFiles.*give block='):
        lm4ve.from_pretrained(Encoder(), tmp_path)
    loaded = lm4ve.from_pretrained(Encoder(), tmp_path, block=block)
    assert torch.equal(loaded(batch()), model(batch()))


@pytest.mark.bitwise
@pytest.mark.parametrize('kind', ['lm4ve.LLMBlock', LLMBlock])
def test_a_block_of_ours_may_be_given_by_its_class(kind, tmp_path):
    model = wrapped(block=dict(BLOCK, type=kind, layers=range(2)))
    lm4ve.save_pretrained(model, tmp_path)
    loaded = lm4ve.from_pretrained(Encoder(), tmp_path)
    assert torch.equal(loaded(batch()), model(batch()))


@pytest.mark.bitwise
@pytest.mark.parametrize('name', WRAPPED)
def test_what_is_saved_is_loaded_and_saved_alike(name, tmp_path):
    model = wrapped(**WRAPPED[name])
    lm4ve.save_pretrained(model, tmp_path / 'first')
    loaded = lm4ve.from_pretrained(Encoder(), tmp_path / 'first')
    assert torch.equal(loaded.eval()(batch()), model.eval()(batch()))
    lm4ve.save_pretrained(loaded, tmp_path / 'second')
    first, second = read(tmp_path / 'first'), read(tmp_path / 'second')
    assert first == second


def test_loaded_mappers_are_not_initialized_again(tmp_path):
    model = wrapped()
    lm4ve.save_pretrained(model, tmp_path)
    loaded = lm4ve.from_pretrained(Encoder(), tmp_path)
    loaded.llm_neck.init_weights()
    own, saved = loaded.llm_neck.mapper_in.weight, model.llm_neck.mapper_in.weight
    torch.testing.assert_close(own, saved, rtol=0, atol=0)


WRONG = [
    (dict(model=dict()), 'model='),
    (dict(evil=1), 'evil is unknown'),
    (dict(after=[dict(type='os.system')]), 'after='),
    (dict(mask=dict(valid=dict())), 'mask='),
    (dict(neck=dict(in_channels=C, norms=1)), 'neck.norms is unknown'),
    (dict(neck=dict(in_channels=C, block=BLOCK)), 'neck.block is unknown'),
    (dict(neck=dict(in_channels=C, mapper=dict(bias=dict()))), 'neck.mapper'),
    (
        dict(neck=dict(in_channels=C, compile=dict(backend='evil'))),
        'neck.compile.*since',
    ),
    (dict(block=dict(type='LLMBlock', archs=1)), "block.archs is unknown.*'arch'"),
    (dict(block=dict(type=['LLMBlock'])), 'block.type'),
    (dict(block=dict(checkpoint='x')), 'block.type'),
]


@pytest.mark.parametrize('changes, message', WRONG)
def test_a_field_that_a_file_cannot_have_is_named(changes, message, tmp_path):
    lm4ve.save_pretrained(wrapped(), tmp_path)
    write(tmp_path, {**read(tmp_path), **changes})
    with pytest.raises(CheckpointError, match=message) as error:
        lm4ve.from_pretrained(Encoder(), tmp_path)
    assert CONFIG_FILE in str(error.value)


# ------------------------------------------------------------ the language model
@pytest.fixture
def llama(tmp_path) -> Path:
    return write_huggingface(tmp_path / 'llama', 'llama', num_hidden_layers=2)


@pytest.fixture
def saved(llama, tmp_path) -> Path:
    """A folder whose block was of :func:`llama`."""
    lm4ve.save_pretrained(wrapped(block=str(llama)), tmp_path / 'saved')
    return tmp_path / 'saved'


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """The hosts whose address was asked for. No address is known."""
    hosts: list[str] = []

    def look_up(host, *args, **kwargs):
        hosts.append(str(host))
        raise socket.gaierror('no network')

    monkeypatch.setattr(socket, 'getaddrinfo', look_up)
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
    return hosts


def refused(folder: Path, checkpoint: str, **options) -> str:
    """Load a folder that names a language model; return the refusal."""
    rename(folder, checkpoint)
    model = Encoder()
    with pytest.raises(CheckpointError) as error:
        lm4ve.from_pretrained(model, folder, **options)
    assert not hasattr(model, 'llm_neck')
    return str(error.value)


def test_the_round_trip_is_one_line_from_any_working_directory(
    llama, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    model = wrapped(block='llama')
    lm4ve.save_pretrained(model, 'saved')
    (tmp_path / 'elsewhere').mkdir()
    monkeypatch.chdir(tmp_path / 'elsewhere')
    loaded = lm4ve.from_pretrained(Encoder(), '../saved')
    torch.testing.assert_close(loaded(batch()), model(batch()))


def test_a_language_model_in_the_folder_moves_with_it(tmp_path):
    write_huggingface(tmp_path / 'a' / 'llm', 'llama', num_hidden_layers=2)
    model = wrapped(block=str(tmp_path / 'a' / 'llm'))
    lm4ve.save_pretrained(model, tmp_path / 'a')
    assert read(tmp_path / 'a')['block']['checkpoint'] == 'llm'
    (tmp_path / 'a').rename(tmp_path / 'b')
    loaded = lm4ve.from_pretrained(Encoder(), tmp_path / 'b')
    torch.testing.assert_close(loaded(batch()), model(batch()))
    # And from there into a third place.
    lm4ve.save_pretrained(loaded, tmp_path / 'c')
    again = lm4ve.from_pretrained(Encoder(), tmp_path / 'c')
    torch.testing.assert_close(again(batch()), model(batch()))


def test_a_language_model_of_a_package_or_without_files_needs_no_word(tmp_path):
    for name, block in dict(
        package='package:all-MiniLM-L6-v2', arch=dict(BLOCK, seed=3)
    ).items():
        model = wrapped(block=block)
        lm4ve.save_pretrained(model, tmp_path / name)
        loaded = lm4ve.from_pretrained(Encoder(), tmp_path / name)
        torch.testing.assert_close(loaded(batch()), model(batch()))


def test_files_outside_that_are_not_the_recorded_ones_show_nothing(saved, tmp_path):
    other = write_huggingface(tmp_path / 'other', 'llama', seed=1, num_hidden_layers=2)
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'secret.txt').write_text('secret')
    os.mkfifo(tmp_path / 'pipe')
    os.mkfifo(tmp_path / 'empty' / 'config.json')
    (tmp_path / 'piped').mkdir()
    os.mkfifo(tmp_path / 'piped' / 'x.gguf')
    (saved / 'link').symlink_to(other)
    places = [
        str(other),
        str(tmp_path / 'empty'),
        str(tmp_path / 'piped'),
        str(tmp_path / 'secret.txt'),
        str(tmp_path / 'pipe'),
        str(tmp_path / 'nowhere'),
        '../other',
        'link',
        '/etc',
        '/dev/zero',
        '~nobody-of-this-name/llama',
        'a' * 5000,
        'null\0byte',
    ]
    said = set()
    for place in places:
        message = refused(saved, place)
        said.add(message.partition('names the language model')[0])
        said.add(message.partition(', which is ')[2])
    assert len(said) == 2, said


def test_a_package_that_is_missing_is_named_with_the_command(saved, monkeypatch):
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, 'distribution', missing)
    assert 'pip install' in refused(saved, 'package:all-MiniLM-L6-v2')
    with pytest.raises(UserError, match="'package:of-nobody' must be one of"):
        rename(saved, 'package:of-nobody')
        lm4ve.from_pretrained(Encoder(), saved)


def test_files_outside_are_taken_by_their_fingerprint(saved, llama, tmp_path):
    copied = write_huggingface(tmp_path / 'copied', 'llama', num_hidden_layers=2)
    rename(saved, str(copied))
    lm4ve.from_pretrained(Encoder(), saved)
    content = read(saved)
    content['record']['fingerprint'] = '0' * 64
    write(saved, content)
    assert 'another one than it was' in refused(saved, str(copied))
    content['record'] = None
    write(saved, content)
    assert 'another one than it was' in refused(saved, str(copied))


def test_a_block_that_trains_is_no_way_around_the_fingerprint(llama, tmp_path):
    folder = tmp_path / 'saved'
    lm4ve.save_pretrained(
        wrapped(block=dict(checkpoint=str(llama), trainable='all')), folder
    )
    other = write_huggingface(tmp_path / 'other', 'llama', seed=1, num_hidden_layers=2)
    assert 'another one than it was' in refused(folder, str(other))


@pytest.mark.parametrize('name', ['acme/llama', 'acme/llama@v1'])
def test_a_hub_id_is_read_from_the_cache_without_a_network(
    name, tmp_path, monkeypatch, asked
):
    cache = tmp_path / 'cache'
    hub.use_cache(monkeypatch, cache)
    revision = name.partition('@')[2] or 'main'

    def files(folder: Path) -> None:
        write_huggingface(folder, 'llama', num_hidden_layers=2)

    there = hub.add_repository(cache, 'acme/llama', files, revision)
    model = wrapped(block=str(there))
    lm4ve.save_pretrained(model, tmp_path / 'saved')
    rename(tmp_path / 'saved', name)
    loaded = lm4ve.from_pretrained(Encoder(), tmp_path / 'saved')
    torch.testing.assert_close(loaded(batch()), model(batch()))
    assert not asked
    # What is saved of it is found in the same way.
    lm4ve.save_pretrained(loaded, tmp_path / 'again')
    assert read(tmp_path / 'again')['block']['checkpoint'] == name
    lm4ve.from_pretrained(Encoder(), tmp_path / 'again')
    assert not asked


def test_a_download_needs_the_callers_word(saved, llama, tmp_path, monkeypatch, asked):
    hub.use_cache(monkeypatch, tmp_path / 'cache')
    downloaded = []

    def answer(name: str, filename: str, revision: str | None = None) -> str:
        downloaded.append((name, filename))
        if not (llama / filename).exists():
            raise huggingface_hub.errors.EntryNotFoundError(filename)
        return str(llama / filename)

    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', answer)
    assert 'download=True' in refused(saved, 'acme/llama')
    assert not downloaded and not asked
    lm4ve.from_pretrained(Encoder(), saved, download=True)
    assert ('acme/llama', 'config.json') in downloaded


def test_a_file_of_the_folder_that_is_a_pipe_is_not_waited_for(saved):
    for file in (CONFIG_FILE, WEIGHTS_FILE):
        content = (saved / file).read_bytes()
        (saved / file).unlink()
        os.mkfifo(saved / file)
        with pytest.raises(CheckpointError, match=f'{file}.*missing'):
            lm4ve.from_pretrained(Encoder(), saved)
        (saved / file).unlink()
        (saved / file).write_bytes(content)


def test_a_link_in_the_folder_leads_to_the_recorded_files(saved, tmp_path):
    """The cache of the hub holds links to files elsewhere."""
    blob = write_huggingface(tmp_path / 'blobs', 'llama', num_hidden_layers=2)
    (saved / 'lm').symlink_to(blob)
    rename(saved, 'lm')
    lm4ve.from_pretrained(Encoder(), saved)


def test_every_argument_of_neck_and_block_has_a_type_in_the_tables():
    neck = inspect.signature(LLMBlockNeck).parameters
    assert neck.keys() - folder_config._NECK_FIELDS.keys() == {'block', 'init_cfg'}
    assert not folder_config._NECK_FIELDS.keys() - neck.keys()
    for name, block in folder_config.BLOCKS.items():
        arguments = inspect.signature(block).parameters
        assert arguments.keys() == folder_config._BLOCK_FIELDS[name].keys()
