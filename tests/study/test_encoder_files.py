"""Files of encoders: whole or refused, and never a way to another place."""

import json
import shutil
import socket

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers import (
    Swinv2Config,
    Swinv2ForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTModel,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from lm4ve.errors import CheckpointError, UserError
from lm4ve.llm.foreign_config import build_foreign_config
from lm4ve.study.tokens.encoders import load_encoder
from tests.helpers.hostile import edit

#: Equal weights give equal bits, which decide what features read.
pytestmark = pytest.mark.bitwise
SIZES = dict(image_size=32, hidden_size=16, intermediate_size=24, num_attention_heads=2)


@pytest.fixture(scope='module')
def released(tmp_path_factory):
    """Return a folder with a ViT of two layers."""
    folder = tmp_path_factory.mktemp('released')
    torch.manual_seed(0)
    ViTModel(ViTConfig(num_hidden_layers=2, **SIZES)).save_pretrained(folder)
    ViTImageProcessor(size=dict(height=32, width=32)).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(released, tmp_path):
    return shutil.copytree(released, tmp_path / 'encoder')


@pytest.fixture
def requests(monkeypatch):
    """Let the hub be online, but without a network; return the hosts that were asked for."""
    asked = []

    def refuse(host, *_, **__):
        asked.append(host)
        raise OSError('no network')

    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
    monkeypatch.setattr(socket, 'getaddrinfo', refuse)
    monkeypatch.setattr(socket.socket, 'connect', lambda self, address: refuse(address))
    return asked


def change_weights(folder, change):
    state = {n: t.clone() for n, t in load_file(folder / 'model.safetensors').items()}
    change(state)
    save_file(state, folder / 'model.safetensors', metadata=dict(format='pt'))


def rename(old, new):
    return lambda state: state.update({new: state.pop(old)})


def features(encoder):
    return encoder.module(torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32))


# ------------------------------------------------------------------------- weights
@pytest.mark.parametrize(
    'change, match',
    [
        (lambda state: state.clear(), 'lacks .* of the encoder: embeddings'),
        (lambda state: state.pop('layernorm.bias'), 'lacks 1 .*: layernorm.bias'),
        (rename('layernorm.bias', 'norm.bias'), '1 tensor.* does not have: norm.bias'),
        (lambda state: state.update(more=torch.ones(1)), 'does not have: more'),
        (
            lambda state: state.update({'layernorm.bias': torch.ones(8)}),
            r'layernorm.bias \[8\], expected \[16\]',
        ),
    ],
)
def test_weights_that_differ_from_the_configuration_are_named(change, match, folder):
    change_weights(folder, change)
    with pytest.raises(CheckpointError, match=match):
        load_encoder(str(folder))


@pytest.mark.parametrize('layers, match', [(1, 'does not have: .*1'), (3, 'lacks 16')])
def test_another_depth_is_refused(layers, match, folder):
    edit(folder / 'config.json', lambda c: c.update(num_hidden_layers=layers))
    with pytest.raises(CheckpointError, match=match):
        load_encoder(str(folder))


def test_each_tensor_is_needed_but_the_poolers(released, folder):
    whole = load_file(released / 'model.safetensors')
    for name in whole:
        save_file(
            {n: t for n, t in whole.items() if n != name}, folder / 'model.safetensors'
        )
        if name.startswith('pooler.'):
            load_encoder(str(folder))
            continue
        with pytest.raises(CheckpointError, match='lacks 1 tensor.* of the encoder: '):
            load_encoder(str(folder))


def test_a_folder_without_weights_is_refused(folder):
    (folder / 'model.safetensors').unlink()
    with pytest.raises(
        CheckpointError, match=r'ENCODER=.* has a config but none of model'
    ):
        load_encoder(str(folder))
    load_encoder(str(folder), 'none')


def test_classifiers_are_left_out_where_the_configuration_names_them(folder):
    model = ViTForImageClassification(ViTConfig(num_hidden_layers=2, **SIZES)).eval()
    model.save_pretrained(folder)
    encoder = load_encoder(str(folder))
    picture = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    assert torch.equal(features(encoder), model.vit(picture).last_hidden_state)
    # The pooler, which no file holds, has the same values again.
    assert load_encoder(str(folder)).fingerprint == encoder.fingerprint
    edit(folder / 'config.json', lambda c: c.pop('architectures'))
    with pytest.raises(CheckpointError, match='does not have: classifier'):
        load_encoder(str(folder))


def test_tables_that_a_constructor_computes_may_be_missing(folder):
    sizes = dict(
        image_size=32, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4
    )
    Swinv2ForImageClassification(Swinv2Config(**sizes)).save_pretrained(folder)
    before = load_encoder(str(folder))
    change_weights(
        folder,
        lambda s: [s.pop(n) for n in [*s] if n.endswith('relative_position_index')],
    )
    assert torch.equal(features(load_encoder(str(folder))), features(before))


def test_checkpoints_of_timm_may_have_another_classifier_and_nothing_else(tmp_path):
    name, file = 'vit_tiny_patch16_224', str(tmp_path / 'vit.pth')

    def load(**changes):
        kept = {n: t for n, t in (state | changes).items() if t is not None}
        torch.save(kept, file)
        return load_encoder(f'timm/{name}', file, size=32)

    state = timm.create_model(name, img_size=32).state_dict()
    whole = load()
    for head in (torch.ones(5, 192), None):
        found = load(**{'head.weight': head})
        assert torch.equal(features(found), features(whole))
    for change, match in (
        ({'norm.weight': None}, 'lacks 1 .*norm.weight'),
        ({'pos_embed': torch.ones(1, 10, 192)}, r'pos_embed \[1, 10, 192\], expected'),
        ({'fc_norm.weight': torch.ones(192)}, 'does not have: fc_norm.weight'),
    ):
        with pytest.raises(CheckpointError, match=match):
            load(**change)


def test_untrained_encoders_are_the_same_each_time():
    first, second = (load_encoder('timm/resnet18', 'none', size=32) for _ in range(2))
    assert first.fingerprint == second.fingerprint


# ------------------------------------------------------------------------- other places
@pytest.mark.parametrize('place', ['../secret', '{parent}/secret'])
def test_an_index_that_leads_outside_is_refused(place, folder):
    secret = folder.with_name('secret')
    secret.mkdir()
    (folder / 'model.safetensors').rename(secret / 'w.safetensors')
    shard = f'{place.format(parent=folder.parent)}/w.safetensors'
    names = load_file(secret / 'w.safetensors')
    index = dict(weight_map=dict.fromkeys(names, shard))
    (folder / 'model.safetensors.index.json').write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match='names a shard outside'):
        load_encoder(str(folder))


@pytest.mark.parametrize('is_timm', [True, False])
def test_no_configuration_of_any_family_asks_the_hub(is_timm, requests):
    named = 0
    fields = dict(
        backbone='org/model', use_pretrained_backbone=True, use_timm_backbone=is_timm
    )
    for kind in CONFIG_MAPPING:
        try:
            build_foreign_config(dict(fields, model_type=kind), 'config.json')
        except CheckpointError as e:
            named += 'names another repository' in str(e)
        assert not requests, kind
    assert named > 10


@pytest.mark.parametrize(
    'field',
    [
        dict(attn_implementation='org/kernel'),
        dict(_attn_implementation='org/kernel'),
        dict(use_kernels=True, kernel_config={'Linear': 'org/kernel:Linear'}),
        dict(auto_map={'AutoModel': 'org/code--modeling.Model'}),
        dict(transformers_weights='../secret/w.safetensors'),
        dict(experts_implementation='org/kernel'),
    ],
)
def test_fields_that_name_code_or_files_change_nothing(field, folder, requests):
    expected = features(load_encoder(str(folder)))
    edit(folder / 'config.json', lambda c: c.update(field))
    assert torch.equal(features(load_encoder(str(folder))), expected)
    assert not requests


def test_a_folder_that_names_a_backbone_of_the_hub_is_refused(folder, requests):
    named = dict(model_type='dpt', backbone='org/model', use_pretrained_backbone=True)
    (folder / 'config.json').write_text(json.dumps(named))
    with pytest.raises(UserError, match='config.json names another repository'):
        load_encoder(str(folder))
    assert not requests


def test_quantized_encoders_are_refused(folder, requests):
    field = dict(
        quantization_config=dict(quant_method='bitsandbytes', load_in_8bit=True)
    )
    edit(folder / 'config.json', lambda c: c.update(field))
    with pytest.raises(CheckpointError, match='is quantized'):
        load_encoder(str(folder))
