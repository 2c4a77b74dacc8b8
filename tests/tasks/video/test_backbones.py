"""The tables of mmaction2's backbones: each entry trains a step, each refusal is one."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

pytest.importorskip('mmaction')
from mmaction.models import backbones as host_backbones  # noqa: E402
from mmaction.models.backbones import ResNet  # noqa: E402
from mmaction.models.backbones.resnet import BasicBlock, Bottleneck  # noqa: E402
from mmaction.registry import MODELS as HOST_MODELS  # noqa: E402
from mmaction.structures import ActionDataSample  # noqa: E402
from mmengine.registry import MODELS, DefaultScope  # noqa: E402

from lm4ve.tasks.video.models.neck import RecognizerNeck  # noqa: E402
from tests.helpers import backbones as walk  # noqa: E402
from tools.dev.write_tables import VIDEO, VIDEO_REFUSED  # noqa: E402

HOST = 'mmaction'
SIZES = yaml.safe_load(Path(__file__).with_name('tiny_backbones.yml').read_text())
#: How the host's residual networks of a depth are made shallow.
SHALLOW = {18: (BasicBlock, (1, 1, 1, 1)), 50: (Bottleneck, (1, 1, 1, 1))}

_HEADS = dict(
    SlowFastHead=dict(in_channels=96),
    RGBPoseHead=dict(in_channels=(256, 64)),
    OmniHead=dict(image_classes=3, video_classes=3),
    TSMHead=dict(num_segments=4),
)


def inputs_of(name: str, model: str) -> tuple[Any, tuple]:
    """What a recognizer takes, two samples of it, and what its backbone takes."""
    if model in ('RecognizerGCN', 'RecognizerAudio'):
        x = torch.randn(
            2, 1, *((2, 8, 17, 3) if model == 'RecognizerGCN' else (1, 32, 32))
        )
        return x, (x[:, 0],)
    if model == 'MMRecognizer3D':
        x = dict(
            imgs=torch.randn(2, 1, 3, 2, 32, 32),
            heatmap_imgs=torch.randn(2, 1, 5, 8, 8, 8),
        )
        return x, (x['imgs'][:, 0], x['heatmap_imgs'][:, 0])
    frames = dict(C3D=16, ResNet3dSlowFast=16, UniFormer=8).get(name, 4)
    side = dict(C3D=16, X3D=64, SwinTransformer3D=64).get(name, 32)
    if model == 'lm4ve.Recognizer2D':
        x = torch.randn(2, frames, 3, side, side)
        return x, (x.flatten(0, 1),)
    x = torch.randn(2, 1, 3, frames, side, side)
    return x, (x[:, 0],)


@pytest.mark.slow
@pytest.mark.parametrize('entry', VIDEO, ids=lambda e: e.type)
def test_every_entry_trains_with_the_block(entry, monkeypatch):
    monkeypatch.setattr(ResNet, 'arch_settings', ResNet.arch_settings | SHALLOW)
    encoder = walk.build_encoder(entry, HOST, SIZES.get(entry.type, {}))
    inputs, own = inputs_of(entry.type, entry.model)
    encoder, neck, width = walk.with_block(entry, encoder, own, RecognizerNeck)
    head = dict(type=entry.head, num_classes=3, in_channels=width) | _HEADS.get(
        entry.head, {}
    )
    if entry.type == 'C3D':  # its linear layers make vectors
        head |= dict(in_channels=4096, spatial_type=None)
    if entry.head == 'OmniHead':
        del head['num_classes']
    samples = [ActionDataSample().set_gt_label(i) for i in range(2)]
    batch = (inputs, samples)
    backbone = dict(type='lm4ve.WithoutNorms', backbone=encoder, norms=())
    parts = dict(backbone=backbone, cls_head=head)
    if entry.model == 'RecognizerOmni':
        kind = 'mmaction.MultiModalDataPreprocessor'
        parts['data_preprocessor'] = dict(type=kind, preprocessors={})
        sources = (own[0], own[0][:, :, 0])  # clips and pictures
        batch = tuple(dict(inputs=x, data_samples=samples) for x in sources)
    elif neck:
        parts['neck'] = neck
    with DefaultScope.overwrite_default_scope(HOST):
        model = MODELS.build(dict(type=entry.model, **parts))
    model.train()
    walk.check_a_step(entry, model, *batch)


@pytest.mark.slow
@pytest.mark.parametrize('entry', VIDEO, ids=lambda e: e.type)
def test_around_the_block_every_entry_computes_as_its_host(entry, monkeypatch):
    monkeypatch.setattr(ResNet, 'arch_settings', ResNet.arch_settings | SHALLOW)
    own = inputs_of(entry.type, entry.model)[1]
    walk.check_bypass(entry, HOST, SIZES.get(entry.type, {}), own)


@pytest.mark.parametrize('refused', VIDEO_REFUSED, ids=lambda r: r.type)
def test_a_refused_backbone_fails_as_its_reason_says(refused):
    clips = torch.randn(2, 3, 4, 32, 32)
    if refused.type == 'ResNetTIN':
        clips = clips[0].transpose(0, 1)
    walk.check_refusal(refused, HOST_MODELS, HOST, SIZES[refused.type], clips)


def test_every_backbone_of_the_host_is_in_a_table():
    walk.check_listed(HOST_MODELS, host_backbones, [*VIDEO, *VIDEO_REFUSED])
