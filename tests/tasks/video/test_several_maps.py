"""mmaction2's own necks, heads and 2D recognizer around the block."""

import pytest
import torch

pytest.importorskip('mmaction')

import lm4ve  # noqa: E402, F401
from tests.tasks.video.test_mmaction import (  # noqa: E402
    I3D_HEAD,
    R3D,
    RESNET,
    TSN_HEAD,
    clips,
    frames,
    labels,
    logits2d,
    neck,
    recognizer,
)


def insert(backbone: dict, after: str, channels: int) -> dict:
    return dict(type='LLMBlockInsert', after=after, backbone=backbone, neck=neck(channels))


def check_training(model, x) -> None:
    """Every parameter gets a gradient, the block's mappers not only zeros."""
    losses = model(x, labels(), mode='loss')
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None]
    assert not missing
    mappers = [p for n, p in model.named_parameters() if 'mapper_in' in n]
    assert mappers and all(p.grad.abs().sum() > 0 for p in mappers)


R50 = dict(type='ResNetTSM', depth=50, num_segments=4, pretrained=None)


@pytest.mark.parametrize(
    'host, backbone, head, x',
    [
        (
            'mmaction.Recognizer3D',
            insert(R3D, 'layer2', 8),
            dict(I3D_HEAD, in_channels=32),
            clips(),
        ),
        *(
            (host, insert(R50, 'layer2', 512), dict(TSN_HEAD, in_channels=2048), frames(4))
            for host in ('mmaction.Recognizer2D', 'lm4ve.Recognizer2D')
        ),
    ],
)
def test_inserted_neck_trains_and_predicts(host, backbone, head, x):
    model = recognizer(backbone, None, head, host)
    check_training(model.train(), x)
    with torch.no_grad():
        first, _ = model.eval()(x, labels(), mode='predict')
    assert first.pred_score.shape[-1] == 5


def test_hosts_2d_recognizer_equals_ours():
    ours = recognizer(RESNET, neck(32), TSN_HEAD, 'lm4ve.Recognizer2D')
    for test_cfg in (None, dict(max_testing_views=2)):
        host = dict(type='mmaction.Recognizer2D', test_cfg=test_cfg)
        theirs = recognizer(RESNET, neck(32), TSN_HEAD, **host)
        theirs.load_state_dict(ours.state_dict())
        torch.testing.assert_close(logits2d(theirs, frames(6)), logits2d(ours, frames(6)))
    check_training(theirs.train(), frames(4))


def test_slow_fast_keeps_its_fast_pathway():
    pathway = dict(type='resnet3d', depth=18, pretrained=None, conv1_kernel=(1, 3, 3))
    pathway.update(dilations=(1, 1, 1, 1), conv1_stride_t=1, pool1_stride_t=1)
    pathway.update(inflate=(0, 0, 0, 0), norm_eval=False)
    backbone = dict(
        type='ResNet3dSlowFast',
        pretrained=None,
        resample_rate=2,
        speed_ratio=2,
        channel_ratio=2,
        slow_pathway=dict(pathway, lateral=True, fusion_kernel=3, base_channels=8),
        fast_pathway=dict(pathway, lateral=False, base_channels=4),
    )
    head = dict(type='SlowFastHead', num_classes=5, in_channels=96, dropout_ratio=0.0)
    model = recognizer(backbone, neck(64, norm_cfg=None, index=0, keep_others=True), head)
    x = clips()
    slow, fast = model.backbone(x[:, 0])
    out = model.extract_feat(x)[0]
    torch.testing.assert_close(out[1], fast)
    assert out[0].shape == slow.shape and not torch.allclose(out[0], slow)
    check_training(model.train(), x)
