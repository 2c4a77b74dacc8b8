"""Sizes at which a backbone of mmaction2 trains a step in a fraction of a second."""

import inspect
from typing import Any

import torch
from mmaction.models.backbones import RGBPoseConv3D
from mmaction.models.backbones.resnet import BasicBlock, Bottleneck

_RESNET = dict(depth=18, pretrained=None)
_R3D = dict(_RESNET, base_channels=4, pretrained2d=False)
_FRAMES = dict(_RESNET, num_segments=4)
_GRAPH = dict(graph_cfg=dict(layout='coco', mode='stgcn_spatial'), base_channels=4)

_PATHS = inspect.signature(RGBPoseConv3D).parameters
_RGB, _POSE = (_PATHS[f'{name}_pathway'].default for name in ('rgb', 'pose'))

#: Fields of a backbone. One that is not here is small as it is.
SIZES: dict[str, dict[str, Any]] = dict(
    VisionTransformer=dict(
        img_size=32, patch_size=16, embed_dims=16, depth=2, num_heads=2, num_frames=4
    ),
    SwinTransformer3D=dict(
        arch=dict(embed_dims=8, depths=[1] * 4, num_heads=[1, 1, 2, 2]),
        window_size=(2, 2, 2),
        pretrained2d=False,
    ),
    MViT=dict(
        arch=dict(embed_dims=8, num_layers=4, num_heads=1, downscale_indices=[1, 2, 3]),
        spatial_size=32,
        temporal_size=4,
    ),
    TimeSformer=dict(num_frames=4, img_size=32, patch_size=16, embed_dims=16, num_heads=2),
    UniFormerV2=dict(
        input_resolution=32,
        patch_size=16,
        width=16,
        heads=2,
        t_size=4,
        temporal_downsample=False,
        n_dim=16,
        n_head=2,
        clip_pretrained=False,
        pretrained=None,
    ),
    UniFormer=dict(
        depth=[1] * 4, embed_dim=[8, 8, 16, 16], head_dim=8, img_size=32, pretrained2d=False
    ),
    ResNet3d=_R3D,
    C2D=_RESNET,
    ResNet3dSlowOnly=_R3D,
    ResNet3dCSN=dict(_R3D, depth=50),
    ResNet2Plus1d=dict(_R3D, conv_cfg=dict(type='Conv2plus1d')),
    ResNet3dSlowFast=dict(
        pretrained=None,
        resample_rate=2,
        speed_ratio=2,
        channel_ratio=2,
        slow_pathway=dict(
            type='resnet3d',
            depth=18,
            pretrained=None,
            lateral=True,
            base_channels=8,
            conv1_kernel=(1, 3, 3),
            inflate=(0, 0, 0, 0),
        ),
        fast_pathway=dict(
            type='resnet3d',
            depth=18,
            pretrained=None,
            lateral=False,
            base_channels=4,
            conv1_kernel=(1, 3, 3),
        ),
    ),
    C3D=dict(out_dim=512, pretrained=None),
    ResNet=_RESNET,
    ResNetTSM=_FRAMES,
    ResNetTIN=_FRAMES,
    TANet=dict(_FRAMES, depth=50),
    MobileNetV2=dict(widen_factor=0.1),
    MobileNetV2TSM=dict(widen_factor=0.1, num_segments=4, pretrained2d=False),
    MobileOneTSM=dict(
        arch=dict(
            num_blocks=[1] * 4,
            width_factor=[0.25] * 4,
            num_conv_branches=[2] * 4,
            num_se_blocks=[0] * 4,
        ),
        num_segments=4,
        pretrained2d=False,
    ),
    OmniResNet=dict(layers=[1] * 4),
    RGBPoseConv3D=dict(
        rgb_pathway=dict(_RGB, base_channels=8),
        pose_pathway=dict(_POSE, base_channels=4, stage_blocks=(1, 1, 1), in_channels=5),
    ),
    STGCN=_GRAPH,
    AAGCN=_GRAPH,
    ResNetAudio=dict(depth=50, base_channels=4, pretrained=None),
    ResNet3dLayer=dict(depth=18, pretrained=None, pretrained2d=False),
)

#: How the host's residual networks of a depth are made shallow.
SHALLOW = {18: (BasicBlock, (1, 1, 1, 1)), 50: (Bottleneck, (1, 1, 1, 1))}


def inputs_of(name: str, model: str) -> tuple[Any, tuple]:
    """What a recognizer takes, two samples of it, and what its backbone takes."""
    if model == 'RecognizerGCN':
        x = torch.randn(2, 1, 2, 8, 17, 3)
        return x, (x[:, 0],)
    if model == 'RecognizerAudio':
        x = torch.randn(2, 1, 1, 32, 32)
        return x, (x[:, 0],)
    if model == 'MMRecognizer3D':
        x = dict(imgs=torch.randn(2, 1, 3, 2, 32, 32), heatmap_imgs=torch.randn(2, 1, 5, 8, 8, 8))
        return x, (x['imgs'][:, 0], x['heatmap_imgs'][:, 0])
    frames = dict(C3D=16, ResNet3dSlowFast=16, UniFormer=8).get(name, 4)
    side = dict(C3D=16, X3D=64, SwinTransformer3D=64).get(name, 32)
    if model == 'lm4ve.Recognizer2D':
        x = torch.randn(2, frames, 3, side, side)
        return x, (x.flatten(0, 1),)
    x = torch.randn(2, 1, 3, frames, side, side)
    return x, (x[:, 0],)
