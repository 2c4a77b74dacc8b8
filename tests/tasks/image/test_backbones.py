"""The table of backbones: each entry trains a step at tiny size, with the block in it."""

import pytest
import torch

pytest.importorskip('mmpretrain')
from mmengine.registry import MODELS, DefaultScope  # noqa: E402

import lm4ve  # noqa: E402, F401
from lm4ve.necks import guard  # noqa: E402
from lm4ve.tasks.image.backbones import BACKBONES, Entry, config_lines  # noqa: E402
from tests.helpers.models import BLOCK  # noqa: E402
from tests.helpers.tasks import ROOT  # noqa: E402

_VIT = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
_TINY_VIT = dict(arch=_VIT, img_size=32, patch_size=8)
_LIKE_VIT = ('DistilledVisionTransformer', 'RevVisionTransformer')
_TINY_RESNET = dict(depth=50, base_channels=4, stem_channels=4)
_BUILT_IN = dict(RegNet='regnetx_400mf', MobileNetV3='small_050', EfficientNet='b0')
_BUILT_IN |= dict(EfficientNetV2='b0', RepVGG='A0', MobileOne='s0', DenseNet='121')
_DEPTH = dict(ResNeXt=50, SEResNet=50, SEResNeXt=50, Res2Net=50, ResNeSt=50, VGG=11)
_DEPTH |= dict(CSPDarkNet=53, CSPResNet=50, CSPResNeXt=50)


_FOUR = dict(depths=[1] * 4, num_heads=[1] * 4)
_SIZES = dict(
    T2T_ViT=dict(
        img_size=64,
        embed_dims=16,
        num_layers=2,
        layer_cfgs=dict(num_heads=2, feedforward_channels=32),
        t2t_cfg=dict(token_dims=16, use_performer=False),
    ),
    SwinTransformerV2=dict(
        arch=dict(
            embed_dims=8, extra_norm_every_n_blocks=0, **{**_FOUR, 'num_heads': [1, 1, 2, 2]}
        ),
        img_size=64,
        window_size=2,
    ),
    PCPVT=dict(
        arch=dict(
            embed_dims=[4, 4, 8, 16],
            patch_sizes=[4, 2, 2, 2],
            strides=[4, 2, 2, 2],
            mlp_ratios=[2] * 4,
            sr_ratios=[8, 4, 2, 1],
            **_FOUR,
        )
    ),
    SVT=dict(
        arch=dict(
            embed_dims=[4, 4, 8, 16],
            patch_sizes=[4, 2, 2, 2],
            strides=[4, 2, 2, 2],
            mlp_ratios=[2] * 4,
            sr_ratios=[8, 4, 2, 1],
            window_sizes=[2] * 4,
            **_FOUR,
        )
    ),
    VAN=dict(arch=dict(embed_dims=[4, 4, 8, 16], depths=[1] * 4, ffn_ratios=[2] * 4)),
    HorNet=dict(arch='tiny'),
    EdgeNeXt=dict(arch='xxsmall'),
    TinyViT=dict(arch='5m', img_size=(64, 64)),
    DaViT=dict(arch=dict(embed_dims=8, depths=[1] * 4, num_heads=[1] * 4), window_size=2),
    PoolFormer=dict(arch='s12'),
    RIFormer=dict(arch='s12'),
    MViT=dict(
        arch=dict(embed_dims=8, num_layers=4, num_heads=1, downscale_indices=[1, 2, 3]), img_size=64
    ),
    LeViT=dict(arch='128s', img_size=64),
    MobileViT=dict(arch='xx_small'),
    RepLKNet=dict(arch='31B'),
    ViTSAM=dict(
        arch=dict(
            embed_dims=16,
            num_layers=2,
            num_heads=2,
            feedforward_channels=32,
            global_attn_indexes=[1],
        ),
        img_size=32,
        patch_size=8,
        window_size=2,
    ),
    HiViT=dict(arch='tiny', img_size=64),
)


def tiny(entry: Entry) -> dict:
    """Sizes of an entry's backbone that train in a second."""
    name = entry.type.removeprefix('lm4ve.')
    if name in ('VisionTransformer', 'DeiT3', 'BEiTViT', 'ViTEVA02', *_LIKE_VIT):
        return _TINY_VIT
    if name in ('ResNet', 'ResNetV1c', 'ResNetV1d'):
        return _TINY_RESNET
    if name == 'ResNet_CIFAR':
        return dict(depth=18, base_channels=4, stem_channels=4)
    if name == 'SwinTransformer':
        arch = dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2])
        return dict(arch=arch, img_size=64, window_size=2)
    if name == 'RawConvNeXt':
        return dict(arch=dict(depths=[1, 1, 1, 1], channels=[4, 8, 8, 16]))
    if name == 'ConvMixer':
        return dict(arch=dict(embed_dims=16, depth=2, patch_size=7, kernel_size=3))
    if name in _SIZES:
        return _SIZES[name]
    if name in _DEPTH:
        return dict(depth=_DEPTH[name])
    return dict(arch=_BUILT_IN[name]) if name in _BUILT_IN else {}


def build(entry: Entry):
    scope = '' if entry.type.startswith('lm4ve.') else 'mmpretrain.'
    backbone = dict(type=f'{scope}{entry.type}', **entry.backbone, **tiny(entry))
    if entry.norms:
        backbone = dict(type='lm4ve.WithoutNorms', norms=entry.norms, backbone=backbone)
    size = tiny(entry).get('img_size', 64)
    images = torch.randn(2, 3, *[size if isinstance(size, int) else size[0]] * 2)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        encoder = MODELS.build(backbone)
        encoder.eval()
        with torch.no_grad():
            x = encoder(images)[-1]
        width = x.shape[(entry.neck.get('layout') or {3: 'BNC', 4: 'BCHW'}[x.dim()]).index('C')]
        neck = dict(type='LLMBlockNeck', in_channels=width, block=BLOCK, **entry.neck)
        if entry.pools:
            neck = [neck, dict(type='GlobalAveragePooling')]
        head = dict(type='LinearClsHead', num_classes=3, in_channels=width)
        model = MODELS.build(dict(type='ImageClassifier', backbone=backbone, neck=neck, head=head))
    return model, images


def train_a_step(entry: Entry) -> list[str]:
    """Return the warnings of a step; raise if a parameter has no part in it."""
    from mmpretrain.structures import DataSample

    said: list[str] = []
    torch.manual_seed(0)
    model, images = build(entry)
    model.train()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guard, 'print_log', lambda text, **_: said.append(text))
        losses = model(images, [DataSample().set_gt_label(i) for i in range(2)], mode='loss')
    losses['loss'].backward()
    unused = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    unused = [n for n in unused if not entry.unused or entry.unused not in n]
    assert not unused, unused[:3]
    mapper = next(p for n, p in model.named_parameters() if n.endswith('mapper_in.weight'))
    assert mapper.grad.abs().sum() > 0
    return said


@pytest.mark.slow
@pytest.mark.parametrize('entry', BACKBONES, ids=lambda e: e.type)
def test_every_entry_trains_with_the_block_before_the_final_norm(entry):
    assert not train_a_step(entry)


def test_the_page_shows_the_table():
    page = (ROOT / 'docs/guides/backbones.md').read_text(encoding='utf-8')
    for entry in BACKBONES:
        backbone, neck = config_lines(entry)
        assert f'| `{backbone}` | {neck} |' in page
