"""The tables of mmpretrain's backbones: each entry trains a step, each refusal is one."""

from pathlib import Path

import pytest
import torch
import yaml

pytest.importorskip('mmpretrain')
from mmengine.registry import MODELS, DefaultScope  # noqa: E402
from mmpretrain.models import backbones as host_backbones  # noqa: E402
from mmpretrain.registry import MODELS as HOST_MODELS  # noqa: E402
from mmpretrain.structures import DataSample  # noqa: E402
from torch import nn  # noqa: E402

from lm4ve.convert.packaged_encoders import PACKAGED_ENCODERS  # noqa: E402
from lm4ve.errors import UserError  # noqa: E402
from lm4ve.runner.command_line import build_runner  # noqa: E402
from lm4ve.study.tokens.encoders import load_encoder  # noqa: E402
from tests.helpers import backbones as walk  # noqa: E402
from tests.helpers.necks.initial_values import assert_normal  # noqa: E402
from tests.helpers.shrink import require_package  # noqa: E402
from tools.dev.write_tables import IMAGE, IMAGE_REFUSED  # noqa: E402

#: The scope in which MMEngine looks names up.
HOST = 'mmpretrain'
#: Sizes at which each backbone trains a step in a fraction of a second: fields of
#: backbones (``sizes``) and heads, sides of images, and tables of architectures.
TINY = yaml.safe_load(Path(__file__).with_name('tiny_backbones.yml').read_text())
#: Backbone -> side of its images, for those that do not take 64 pixels.
SIDES = {name: side for side, names in TINY['pixels'].items() for name in names}


@pytest.fixture
def small(entry, monkeypatch):
    """Return the name of an entry's backbone, its fields at tiny size, and two images."""
    name = entry.type.rpartition('.')[2]
    for table, entries in TINY['tables'].get(name, {}).items():
        own = getattr(getattr(host_backbones, name), table)
        for key, value in entries.items():
            is_part = key in own and isinstance(value, dict)
            monkeypatch.setitem(own, key, own[key] | value if is_part else value)
    images = torch.randn(2, 1 if name == 'LeNet5' else 3, *[SIDES.get(name, 64)] * 2)
    return name, TINY['sizes'].get(name, {}), images


RELEASED_VITS = ['vit-s_in1k', 'vit-s_llama_in1k', 'vit-s_llama-middle_in1k']


@pytest.mark.parametrize('name', RELEASED_VITS)
def test_vit_begins_as_released(name, shrinker, tmp_path):
    model = build_runner(shrinker.load(f'{name}.py', tmp_path)).model
    model.init_weights()
    parts = [*model.backbone.layers, model.head]
    layers = [m for part in parts for m in part.modules() if isinstance(m, nn.Linear)]
    assert len(layers) == 4 * len(model.backbone.layers) + 1
    for i, layer in enumerate(layers):
        assert_normal(str(i), layer.weight, 0.02)
        assert layer.bias.eq(0).all()
    assert 0 < model.backbone.cls_token.abs().max() < 1e-5
    assert_normal('positions', model.backbone.pos_embed, 0.02)


def test_released_vit_keeps_the_weights_of_a_file(tmp_path):
    fields = dict(TINY['sizes']['VisionTransformer'], type='lm4ve.ReleasedViT')
    first = MODELS.build(fields)
    torch.save(first.state_dict(), tmp_path / 'vit.pth')
    file = dict(type='Pretrained', checkpoint=str(tmp_path / 'vit.pth'))
    second = MODELS.build(dict(fields, init_cfg=file))
    second.init_weights()
    for name, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name


@pytest.mark.slow
@pytest.mark.parametrize('entry', IMAGE, ids=lambda e: e.type)
def test_every_entry_trains_with_the_block_before_the_final_norm(entry, small):
    name, sizes, images = small
    encoder = walk.build_encoder(entry, HOST, sizes)
    encoder, neck, width = walk.with_block(entry, encoder, (images,))
    head = dict(type=entry.head or 'LinearClsHead')
    if entry.head != 'ClsHead':
        head |= dict(num_classes=3, in_channels=width) | TINY['heads'].get(name, {})
    with DefaultScope.overwrite_default_scope(HOST):
        necks = [neck, *entry.then] if neck else None
        model = MODELS.build(
            dict(type='ImageClassifier', backbone=encoder, neck=necks, head=head)
        )
    model.train()
    walk.check_a_step(
        entry, model, images, [DataSample().set_gt_label(i) for i in range(2)]
    )


@pytest.mark.slow
@pytest.mark.parametrize('entry', IMAGE, ids=lambda e: e.type)
def test_around_the_block_every_entry_computes_as_its_host(entry, small):
    walk.check_bypass(entry, HOST, small[1], (small[2],))


@pytest.mark.parametrize('refused', IMAGE_REFUSED, ids=lambda r: r.type)
def test_a_refused_backbone_fails_with_the_error_of_its_entry(refused):
    sizes = TINY['sizes'].get(refused.type, {})
    images = torch.randn(2, 3, 64, 64)
    walk.check_refusal(
        refused, registry=HOST_MODELS, host=HOST, sizes=sizes, inputs=images
    )


def test_every_backbone_of_the_host_is_in_a_table():
    walk.check_listed(HOST_MODELS, host_backbones, [*IMAGE, *IMAGE_REFUSED])


def test_packaged_encoder_starts_with_the_features_of_lm4ve_try():
    """The backbone's maps are the features that ``lm4ve try`` computes of the same weights."""
    require_package('package:efficientnet-lite0', PACKAGED_ENCODERS)
    node = dict(type='lm4ve.PackagedEncoder', encoder='package:efficientnet-lite0')
    with DefaultScope.overwrite_default_scope(HOST):
        backbone = MODELS.build(node)
    backbone.init_weights()
    backbone.eval()
    pictures = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        (own,) = backbone(pictures)
        expected = load_encoder('package:efficientnet-lite0').module(pictures)
    torch.testing.assert_close(own, expected, rtol=0, atol=0)


def test_unknown_packaged_encoder_is_named():
    node = dict(type='lm4ve.PackagedEncoder', encoder='package:resnet')
    with pytest.raises(
        UserError, match="encoder='package:resnet' .* package:efficient"
    ):
        MODELS.build(node)
