"""Hosts that train the neck by themselves: each config trains, validates, saves and tests."""

from functools import partial

import pytest
import torch

from lm4ve.errors import UserError
from tests.helpers.hosts import (
    SIDE,
    HostShrinker,
    train_and_test,
    write_coco,
    write_picture,
)
from tests.helpers.tasks import configs_of

RESNET = dict(depth=18, base_channels=4, stem_channels=4)


def small_detector(shrinker, model):
    backbone = model.backbone.backbone
    backbone.update(RESNET)
    shrinker.pretrained(backbone.init_cfg.checkpoint, backbone)
    model.neck.update(in_channels=[4, 8, 16, 32], out_channels=8)
    if 'rpn_head' in model:
        model.rpn_head.update(in_channels=8, feat_channels=8)
        model.roi_head.bbox_roi_extractor.out_channels = 8
        model.roi_head.bbox_head.update(in_channels=8, fc_out_channels=16)
        model.test_cfg.rcnn.score_thr = 0.0  # so that there is something to evaluate
    else:
        model.bbox_head.update(in_channels=8, feat_channels=8, stacked_convs=1)
        model.test_cfg.score_thr = 0.0
    return 32


def boxes(shrinker, dataset):
    from mmdet.datasets import CocoDataset

    for split in ('train', 'val'):
        listed = f'{dataset.data_root}annotations/instances_{split}2017.json'
        shrinker.provide(
            listed,
            lambda path, split=split: write_coco(
                path.parents[1], split, 4, CocoDataset.METAINFO['classes']
            ),
        )


@pytest.mark.slow
@pytest.mark.parametrize('name', configs_of('detection'))
def test_detector_trains_validates_saves_and_tests(
    name, tiny_files, tmp_path, monkeypatch
):
    pytest.importorskip('mmdet.datasets')
    steps = dict(max_epochs=1, val_interval=1)
    shrinker = HostShrinker(tiny_files, 'detection', small_detector, boxes, **steps)
    shrinker.enter(monkeypatch)
    train_and_test(shrinker, shrinker.load(name, tmp_path), 'coco/bbox_mAP')


def test_nms_beside_mmcv_lite_is_torchvisions_and_other_operators_are_refused():
    pytest.importorskip('mmdet')
    from mmcv import _ext
    from mmcv.ops import batched_nms, nms, roi_align

    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]])
    scores = torch.tensor([0.5, 0.9, 0.3])
    kept, indices = nms(boxes, scores, iou_threshold=0.5)
    assert indices.tolist() == [1, 2] and kept[:, 4].tolist() == pytest.approx(
        [0.9, 0.3]
    )
    cfg = dict(type='nms', iou_threshold=0.5)
    assert len(batched_nms(boxes, scores, torch.tensor([0, 1, 0]), cfg)[1]) == 3
    if getattr(_ext, '__file__', None):
        pytest.skip('a full mmcv')
    with pytest.raises(UserError, match='roi_align_forward'):
        roi_align(torch.randn(1, 1, 8, 8), torch.zeros(1, 5), 2, 1.0)
    with pytest.raises(UserError, match='nms.offset=0'):
        _ext.nms(boxes, scores, 0.5, offset=1)


SWIN = dict(embed_dims=8, depths=[1] * 4, num_heads=[1, 1, 2, 2], window_size=2)
VIT = dict(
    img_size=(SIDE, SIDE), patch_size=16, embed_dims=16, num_heads=2, num_layers=12
)


def small_segmentor(shrinker, model):
    backbone = model.backbone.backbone
    is_swin = backbone.type.endswith('SwinTransformer')
    backbone.update(dict(SWIN, pretrain_img_size=SIDE) if is_swin else VIT)
    address = backbone.init_cfg.checkpoint if is_swin else backbone.pretrained
    shrinker.pretrained(address, backbone)
    model.data_preprocessor.update(size=(SIDE, SIDE))
    for part in ('decode_head', 'auxiliary_head'):
        if part in model:
            model[part].channels = 8
    if is_swin:
        model.decode_head.in_channels = [8, 16, 32, 64]
        model.auxiliary_head.in_channels = 32
        return 64
    model.decode_head.in_channels = model.decode_head.channels = 16
    model.test_cfg.update(crop_size=(SIDE, SIDE), stride=(SIDE, SIDE))
    return 16


def masks(shrinker, dataset):
    own = dataset.data_root == 'data/masks'  # else ADE20K's folders
    kinds = dict(dataset.data_prefix)
    for i in range(3):
        picture = f'{dataset.data_root}/{kinds["img_path"]}/{i}.jpg'
        mask = f'{dataset.data_root}/{kinds["seg_map_path"]}/{i}.png'
        shrinker.provide(picture, partial(write_picture, seed=i))
        most = 2 if own else 151
        shrinker.provide(mask, partial(write_picture, seed=i, most=most, channels=()))


@pytest.mark.slow
@pytest.mark.parametrize('name', configs_of('segmentation'))
def test_segmentor_trains_validates_saves_and_tests(
    name, tiny_files, tmp_path, monkeypatch
):
    pytest.importorskip('mmseg')
    steps = dict(max_iters=2, val_interval=2)
    shrinker = HostShrinker(tiny_files, 'segmentation', small_segmentor, masks, **steps)
    shrinker.enter(monkeypatch)
    train_and_test(shrinker, shrinker.load(name, tmp_path), 'mIoU')
