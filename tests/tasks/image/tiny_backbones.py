"""Sizes at which a backbone of mmpretrain trains a step in a fraction of a second."""

from typing import Any

from mmpretrain.models.backbones import cspnet

_VIT = dict(
    arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32),
    img_size=32,
    patch_size=8,
)
_ONES = [1] * 4
_WIDTHS = [4, 4, 8, 16]
_RESNET = dict(depth=50, base_channels=4, stem_channels=4)
_GROUPS = dict(depth=50, groups=2, width_per_group=2, base_channels=4, stem_channels=4)
_TWINS = dict(
    embed_dims=_WIDTHS,
    depths=_ONES,
    num_heads=_ONES,
    patch_sizes=[4, 2, 2, 2],
    strides=[4, 2, 2, 2],
    mlp_ratios=[2] * 4,
    sr_ratios=[8, 4, 2, 1],
)
_POOL = dict(
    layers=_ONES, embed_dims=[4, 8, 12, 16], mlp_ratios=[2] * 4, layer_scale_init_value=1e-5
)
_CSP = dict(
    in_channels=(64, 64, 64, 64),
    out_channels=(64, 64, 64, 64),
    num_blocks=_ONES,
    expand_ratio=2,
    bottle_ratio=1,
    has_downsampler=True,
    down_growth=False,
)
_CSP5 = dict(_CSP, in_channels=(32, 8, 8, 8, 8), out_channels=(8, 8, 8, 8, 8), num_blocks=[1] * 5)
_REP = dict(num_blocks=_ONES, width_factor=[0.1] * 4)

#: Fields of a backbone. One that is not here is small as it is.
SIZES: dict[str, dict[str, Any]] = dict(
    **dict.fromkeys(['VisionTransformer', 'DeiT3', 'BEiTViT', 'ViTEVA02'], _VIT),
    **dict.fromkeys(['DistilledVisionTransformer', 'RevVisionTransformer'], _VIT),
    **dict.fromkeys(['ResNet', 'ResNetV1c', 'ResNetV1d', 'SEResNet', 'SparseResNet'], _RESNET),
    **dict.fromkeys(['ResNeXt', 'SEResNeXt'], _GROUPS),
    **dict.fromkeys(['PoolFormer', 'RIFormer'], dict(arch=_POOL)),
    T2T_ViT=dict(
        img_size=32,
        embed_dims=16,
        num_layers=2,
        layer_cfgs=dict(num_heads=2, feedforward_channels=32),
        t2t_cfg=dict(token_dims=16, use_performer=False),
    ),
    XCiT=dict(img_size=32, patch_size=8, embed_dims=16, depth=1, num_heads=2),
    TIMMBackbone=dict(embed_dim=16, depth=1, num_heads=2, img_size=32),
    SwinTransformer=dict(
        arch=dict(embed_dims=8, depths=_ONES, num_heads=[1, 1, 2, 2]), img_size=64, window_size=2
    ),
    SwinTransformerV2=dict(
        arch=dict(embed_dims=8, depths=_ONES, num_heads=[1, 1, 2, 2], extra_norm_every_n_blocks=0),
        img_size=64,
        window_size=2,
    ),
    MixMIMTransformer=dict(
        arch=dict(embed_dims=8, depths=_ONES, num_heads=_ONES),
        img_size=64,
        window_size=[2, 2, 2, 2],
    ),
    TNT=dict(
        arch=dict(
            embed_dims_outer=16,
            embed_dims_inner=4,
            num_layers=12,
            num_heads_inner=2,
            num_heads_outer=2,
        ),
        img_size=32,
        patch_size=16,
    ),
    Conformer=dict(
        arch=dict(embed_dims=16, depths=12, num_heads=2, channel_ratio=1), base_channels=8
    ),
    PCPVT=dict(arch=_TWINS),
    SVT=dict(arch=dict(_TWINS, window_sizes=[2] * 4)),
    RawConvNeXt=dict(arch=dict(depths=_ONES, channels=_WIDTHS)),
    ConvNeXt=dict(arch=dict(depths=_ONES, channels=_WIDTHS)),
    SparseConvNeXt=dict(arch=dict(depths=_ONES, channels=_WIDTHS)),
    HorNet=dict(
        arch=dict(
            base_dim=16,
            depths=_ONES,
            orders=[2, 2, 2, 2],
            dw_cfg=[dict(type='DW', kernel_size=7)] * 4,
        )
    ),
    EdgeNeXt=dict(arch=dict(channels=[16, 24, 32, 48], depths=[2] * 4, num_heads=[2] * 4)),
    TinyViT=dict(
        arch=dict(channels=[8, 8, 16, 16], num_heads=[1, 1, 2, 2], depths=_ONES),
        img_size=(64, 64),
        window_size=[2, 2, 2, 2],
    ),
    DaViT=dict(arch=dict(embed_dims=8, depths=_ONES, num_heads=_ONES), window_size=2),
    VAN=dict(arch=dict(embed_dims=_WIDTHS, depths=_ONES, ffn_ratios=[2] * 4)),
    MViT=dict(
        arch=dict(embed_dims=8, num_layers=4, num_heads=1, downscale_indices=[1, 2, 3]), img_size=64
    ),
    EfficientFormer=dict(
        arch=dict(
            layers=_ONES,
            embed_dims=[4, 8, 12, 16],
            downsamples=[False, True, True, True],
            vit_num=1,
        )
    ),
    MlpMixer=dict(
        arch=dict(embed_dims=16, num_layers=2, tokens_mlp_dims=8, channels_mlp_dims=16),
        img_size=32,
        patch_size=8,
    ),
    RepMLPNet=dict(arch=dict(channels=[4, 8, 8, 16], depths=_ONES, sharesets_nums=_ONES)),
    LeViT=dict(img_size=64, arch='tiny'),
    MobileViT=dict(arch='xx_small'),
    RepLKNet=dict(
        arch=dict(
            large_kernel_sizes=[7, 7, 5, 3],
            layers=_ONES,
            channels=_WIDTHS,
            small_kernel=3,
            dw_ratio=1,
        )
    ),
    ViTSAM=dict(_VIT, arch=dict(_VIT['arch'], global_attn_indexes=[1]), window_size=2),
    HiViT=dict(arch=dict(embed_dims=64, depths=[1, 1, 7], num_heads=2), img_size=64),
    Vig=dict(arch='tiny', k=2),
    PyramidVig=dict(arch='tiny', k=2),
    Res2Net=dict(depth=50, scales=2, base_width=8, base_channels=8, stem_channels=8),
    ResNeSt=dict(depth=50, base_channels=8, stem_channels=8, radix=2, reduction_factor=2),
    RegNet=dict(arch=dict(w0=8, wa=24, wm=2.0, group_w=8, depth=6, bot_mul=1.0)),
    ResNet_CIFAR=dict(depth=18, base_channels=4, stem_channels=4),
    MobileNetV3=dict(arch='small_050'),
    EfficientNet=dict(arch='b0'),
    EfficientNetV2=dict(arch='b0'),
    RepVGG=dict(arch=dict(_REP, group_layer_map=None, se_cfg=None)),
    MobileOne=dict(arch=dict(_REP, num_conv_branches=[2] * 4, num_se_blocks=[0] * 4)),
    ConvMixer=dict(arch=dict(embed_dims=16, depth=2, patch_size=7, kernel_size=3)),
    CSPDarkNet=dict(depth=53),
    CSPResNet=dict(depth=50),
    CSPResNeXt=dict(depth=50),
    DenseNet=dict(arch=dict(growth_rate=4, depths=[2, 2, 2, 2], init_channels=8)),
    VGG=dict(depth=11),
    MobileNetV2=dict(widen_factor=0.1),
    ShuffleNetV2=dict(widen_factor=0.5),
    HRNet=dict(
        extra={
            f'stage{i + 1}': dict(
                num_modules=1,
                num_branches=i + 1,
                block='BASIC' if i else 'BOTTLENECK',
                num_blocks=[1] * (i + 1),
                num_channels=[32, 64, 128, 256][: i + 1] if i else [16],
            )
            for i in range(4)
        }
    ),
)

#: How the host's table of a name is made small where no field does: class -> its new tables.
ARCHS: dict[str, dict[str, Any]] = dict(
    Vig=dict(arch_settings=dict(tiny=dict(num_blocks=2, channels=16))),
    PyramidVig=dict(arch_settings=dict(tiny=dict(blocks=_ONES, channels=[8, 8, 16, 16]))),
    LeViT=dict(
        arch_zoo=dict(
            tiny=dict(embed_dims=[8, 16, 32], num_heads=[1] * 3, depths=[1] * 3, key_dims=[8] * 3)
        )
    ),
    EfficientNet=dict(
        layer_settings=dict(
            b=[
                [[3, 8, 0, 2, 0, -1]],
                *([[3, 8, 4, 2, 2, 0]] for _ in range(5)),
                [[1, 16, 0, 1, 0, -1]],
            ]
        )
    ),
    EfficientNetV2=dict(
        arch_settings=dict(
            b0=[
                [1, 3, 1, 1, 8, 8, 0.0, -1],
                [1, 3, 2, 2, 8, 8, 0.25, 1],
                [1, 1, 1, 1, 8, 16, 0.0, -2],
            ]
        )
    ),
    CSPDarkNet=dict(arch_settings={53: _CSP5 | dict(block_fn=cspnet.DarknetBottleneck)}),
    CSPResNet=dict(arch_settings={50: _CSP | dict(block_fn=cspnet.ResNetBottleneck)}),
    CSPResNeXt=dict(arch_settings={50: _CSP | dict(block_fn=cspnet.ResNeXtBottleneck)}),
)

_LARGE = ('RepMLPNet', 'EfficientFormer', 'Vig', 'PyramidVig')
_SMALL = ('T2T_ViT', 'XCiT', 'TIMMBackbone', 'TNT', 'MlpMixer', 'ViTSAM', 'DeiT3', 'BEiTViT')
_SMALL += ('VisionTransformer', 'ViTEVA02', 'DistilledVisionTransformer', 'RevVisionTransformer')
#: Pixels of a side; 64 where a backbone is not here.
PIXELS = dict.fromkeys(_LARGE, 224) | dict.fromkeys(_SMALL, 32) | dict(InceptionV3=80)

#: Fields of a head, where the neck's width is not its own.
HEADS = dict(Conformer=dict(in_channels=[32, 16]), HRNet=dict(in_channels=2048), InceptionV3=dict())
