"""The neck in mmpretrain's classifiers: the paper's place, names, inference."""

import pytest
import torch
from mmengine.config import Config

import lm4ve  # noqa: F401
from tests.helpers.tasks import FOLDERS

pytest.importorskip('mmpretrain')
from mmpretrain.registry import MODELS  # noqa: E402

ARCH = dict(
    model_type='llama',
    hidden_size=24,
    num_attention_heads=4,
    num_hidden_layers=1,
    intermediate_size=32,
    vocab_size=8,
)


def neck(channels: int, **kwargs) -> dict:
    return dict(
        type='LLMBlockNeck', in_channels=channels, block=dict(type='LLMBlock', arch=ARCH), **kwargs
    )


def evaluate(cfg: dict) -> torch.nn.Module:
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    model.eval()
    return model


def twins(cfg: dict, raw: dict):
    """A backbone as it is and in its raw form, with the same weights."""
    plain, bare = evaluate(cfg), evaluate({**cfg, **raw})
    for p in plain.parameters():
        torch.nn.init.normal_(p, std=0.2)
    own = plain.state_dict()
    bare.load_state_dict({k: own[k] for k in bare.state_dict()})
    return plain, bare


VIT = dict(
    type='VisionTransformer',
    arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32),
    img_size=16,
    patch_size=8,
)
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


SWIN = dict(
    type='SwinTransformer',
    arch=dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2]),
    img_size=32,
    window_size=1,
)
CONVNEXT = dict(type='ConvNeXt', arch=dict(depths=[1] * 4, channels=[4, 8, 12, 16]))


@pytest.mark.parametrize(
    'cfg, raw, norm, reduce',
    [
        (VIT, dict(out_type='raw', final_norm=False), 'ln1', lambda x: x[:, 0]),
        (SWIN, dict(norm_cfg=None), 'norm3', lambda x: x),
        (CONVNEXT, dict(type='lm4ve.RawConvNeXt'), 'norm3', lambda x: x),
    ],
    ids=['vit', 'swin', 'convnext'],
)
def test_raw_backbone_omits_only_the_final_norm(cfg, raw, norm, reduce):
    plain, bare = twins(cfg, raw)
    x = IMAGES[..., :16, :16] if cfg is VIT else IMAGES
    out, expected = bare(x)[0], plain(x)[0]
    if cfg is CONVNEXT:
        out = out.mean((-2, -1), keepdim=True)
        torch.testing.assert_close(plain.norm3(out).flatten(1), expected)
        return
    if cfg is SWIN:
        out, expected = (y.flatten(2).transpose(1, 2) for y in (out, expected))
    torch.testing.assert_close(reduce(getattr(plain, norm)(out)), expected)


def test_inserted_neck_keeps_layer_depths():
    cfg = Config.fromfile(FOLDERS['image'] / 'vit-s_llama-middle_in1k.py')
    cfg.model.backbone.neck.block = dict(type='LLMBlock', arch=ARCH)
    model = evaluate(cfg.model)
    depth, total = model.get_layer_depth('backbone.layers.5.ln1.weight')
    assert (depth, total) == (6, 14)
