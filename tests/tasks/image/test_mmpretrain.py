"""mmpretrain's encoders without their final norm, so that the block comes before it."""

import pytest
import torch

from lm4ve.errors import UserError
from tests.helpers import models

pytest.importorskip('mmpretrain')
from mmengine.runner import load_checkpoint  # noqa: E402
from mmpretrain.registry import MODELS  # noqa: E402

ARCH = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
VIT = dict(type='VisionTransformer', arch=ARCH, img_size=32, patch_size=16)


@pytest.mark.parametrize('way', ['load', 'backbone'])
def test_a_plain_encoders_final_norm_becomes_the_necks(way, tmp_path):
    plain = models.image(block=False)[0]
    plain.backbone.ln1.weight.data.fill_(3)
    torch.save(plain.state_dict(), tmp_path / 'plain.pth')
    model = models.image()[0]
    if way == 'load':
        load_checkpoint(model, str(tmp_path / 'plain.pth'))
    else:
        init = dict(type='Pretrained', checkpoint=str(tmp_path / 'plain.pth'), prefix='backbone.')
        model.backbone.init_cfg = init
        model.init_weights()
    assert model.neck.norm.weight.eq(3).all()
    assert torch.equal(model.backbone.layers[0].ln1.bias, plain.backbone.layers[0].ln1.bias)


def test_a_host_without_class_token_is_refused():
    backbone = dict(VIT, with_cls_token=False, out_type='raw', final_norm=False)
    neck = models.neck(16, out_type='cls_token')
    with pytest.raises(UserError, match='class token'):
        MODELS.build(dict(type='mmpretrain.ImageClassifier', backbone=backbone, neck=neck))
