"""The neck in mmaction2's recognizers: protocol, views, groups, repairs."""

import pytest
import torch
from mmengine.config import Config

pytest.importorskip('mmaction')

from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope

from lm4ve.errors import UserError
from tests.helpers.models import BLOCK, neck
from tests.helpers.tasks import FOLDERS

VIT = dict(type='VisionTransformer', img_size=32, patch_size=16, embed_dims=16, depth=2)
VIT.update(num_heads=2, num_frames=4, return_feat_map=True)
VIT_HEAD = dict(type='TimeSformerHead', num_classes=5, in_channels=16)
SWIN = dict(type='lm4ve.RawSwinTransformer3D', window_size=(2, 2, 2), pretrained2d=False)
SWIN['arch'] = dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2])
R3D = dict(type='ResNet3d', depth=18, base_channels=4, conv1_kernel=(1, 3, 3))
R3D.update(inflate=(0, 0, 0, 0), pretrained=None, pretrained2d=False)
I3D_HEAD = dict(type='I3DHead', num_classes=5, average_clips='prob')
RESNET = dict(type='mmpretrain.ResNet', depth=18, base_channels=4, stem_channels=4)
TSN_HEAD = dict(type='TSNHead', num_classes=5, in_channels=32, average_clips='prob')
HOSTS = dict(
    vit=(VIT, neck(16, out_type='avg_featmap'), VIT_HEAD),
    swin=(SWIN, neck(64), dict(I3D_HEAD, in_channels=64)),
    resnet3d=(R3D, neck(32, norm_cfg=None), dict(I3D_HEAD, in_channels=32)),
)


def recognizer(backbone, neck, head, type='mmaction.Recognizer3D', **kwargs):
    torch.manual_seed(0)
    model = MODELS.build(dict(type=type, backbone=backbone, neck=neck, cls_head=head, **kwargs))
    return model.eval()


def clips(views: int = 1, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, views, 3, 4, 32, 32, generator=generator)


@pytest.mark.parametrize('host', HOSTS)
def test_views_in_parts_equal_all_at_once(host):
    """max_testing_views, of which the last part is smaller."""
    x = clips(views=5, batch=1)
    whole, parts = (
        recognizer(*HOSTS[host], test_cfg=cfg).extract_feat(x, test_mode=True)[0]
        for cfg in (None, dict(max_testing_views=2))
    )
    torch.testing.assert_close(parts, whole)


def test_raw_video_swin_omits_only_the_final_norm():
    head = dict(I3D_HEAD, in_channels=64)
    plain = recognizer(dict(SWIN, type='SwinTransformer3D'), None, head).backbone
    bare = recognizer(SWIN, None, head).backbone
    torch.nn.init.normal_(plain.norm3.weight)
    own = plain.state_dict()
    bare.load_state_dict({k: own[k] for k in bare.state_dict()})
    x = clips()[:, 0]
    normed = plain.norm3(bare(x).permute(0, 2, 3, 4, 1))
    torch.testing.assert_close(normed.permute(0, 4, 1, 2, 3), plain(x))


# ---------------------------------------------------------------- Recognizer2D
def frames(views: int, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, views, 3, 32, 32, generator=generator)


def tsn(frames_per_clip: int = 4, **kwargs):
    sizes = dict(type='lm4ve.Recognizer2D', frames_per_clip=frames_per_clip)
    return recognizer(RESNET, neck(32, norm_cfg=None), TSN_HEAD, **sizes, **kwargs)


def logits2d(model, x):
    with torch.no_grad():
        return model.extract_feat(x, stage='head', test_mode=True)[0]


def test_recognizer2d_equals_the_computation_by_hand():
    model = tsn(2)
    x = frames(4)
    maps = model.backbone(x.flatten(0, 1))[-1]
    tokens = maps.unflatten(0, (4, 2)).permute(0, 1, 3, 4, 2).flatten(1, 3)
    out = model.neck.mapper_out(model.neck.block(model.neck.mapper_in(tokens)))
    expected = model.cls_head.fc_cls(out.unflatten(0, (2, 2)).mean((1, 2)))
    torch.testing.assert_close(logits2d(model, x), expected, atol=1e-5, rtol=1e-4)
    parts = tsn(2, test_cfg=dict(max_testing_views=2))
    torch.testing.assert_close(logits2d(parts, x), logits2d(model, x))


def test_incomplete_clips_are_refused():
    with pytest.raises(UserError, match='frames_per_clip=4'):
        tsn(4).extract_feat(frames(6))
    with pytest.raises(UserError, match='max_testing_views'):
        logits2d(tsn(4, test_cfg=dict(max_testing_views=2)), frames(8))


def test_hosts_2d_recognizer_equals_ours():
    ours = recognizer(RESNET, neck(32), TSN_HEAD, 'lm4ve.Recognizer2D')
    for test_cfg in (None, dict(max_testing_views=2)):
        host = dict(type='mmaction.Recognizer2D', test_cfg=test_cfg)
        theirs = recognizer(RESNET, neck(32), TSN_HEAD, **host)
        torch.testing.assert_close(logits2d(theirs, frames(6)), logits2d(ours, frames(6)))


# ------------------------------------------------------------------ layer decay
def test_layer_decay_gives_mappers_the_heads_rate():
    cfg = Config.fromfile(FOLDERS['video'] / 'videomae-s_llama_ssv2.py')
    cfg.model.neck.block = BLOCK
    # The depth stays: the groups are of its layers.
    cfg.model.backbone.update(embed_dims=24, num_heads=2, img_size=32, init_cfg=None)
    cfg.model.neck.in_channels = cfg.model.cls_head.in_channels = 24
    cfg.optim_wrapper.type = 'OptimWrapper'
    cfg.optim_wrapper.pop('loss_scale')
    with DefaultScope.overwrite_default_scope('mmaction'):
        model = MODELS.build(cfg.model)
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    rates = {}
    for group in wrapper.optimizer.param_groups:
        rates.update(dict.fromkeys(group['param_names'], group['lr'] / 1e-3))
    assert set(rates) == {n for n, _ in model.named_parameters()}
    assert not [n for n in rates if '.block.' in n]
    expected = dict.fromkeys(('neck.mapper_in', 'neck.mapper_out', 'cls_head.fc_cls'), 1.0)
    expected |= {f'backbone.blocks.{i}.attn.qkv': 0.7 ** (12 - i) for i in range(12)}
    expected['backbone.patch_embed.projection'] = 0.7**13
    assert {n: rates[f'{n}.weight'] for n in expected} == pytest.approx(expected)
