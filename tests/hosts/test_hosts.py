"""Hosts that train the neck by themselves: each config trains, validates, saves and tests."""

import itertools

import pytest
import torch

from lm4ve.errors import UserError
from lm4ve.runner.config import read_config
from tests.helpers.tasks import CONFIGS, configs_of
from tests.hosts.small import SIDE, shrink, train_and_test, write_coco, write_picture

RESNET = dict(depth=18, base_channels=4, stem_channels=4, frozen_stages=-1, init_cfg=None)


def detector(name, work_dir, data):
    cfg = read_config(CONFIGS / 'detection' / name)
    model = cfg.model
    model.backbone.backbone.update(RESNET, norm_eval=False)
    model.neck.update(in_channels=[4, 8, 16, 32], out_channels=8)
    if 'rpn_head' in model:
        model.rpn_head.update(in_channels=8, feat_channels=8)
        model.roi_head.bbox_roi_extractor.out_channels = 8
        model.roi_head.bbox_head.update(in_channels=8, fc_out_channels=16)
        model.test_cfg.rcnn.score_thr = 0.0  # so that there is something to evaluate
    else:
        model.bbox_head.update(in_channels=8, feat_channels=8, stacked_convs=1)
        model.test_cfg.score_thr = 0.0
    shrink(cfg, work_dir, data, 32, max_epochs=1, val_interval=1)
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        evaluator.ann_file = str(data / 'annotations/instances_val2017.json')
    return cfg


@pytest.mark.slow
@pytest.mark.parametrize('name', configs_of('detection'))
def test_detector_trains_validates_saves_and_tests(name, tmp_path):
    classes = pytest.importorskip('mmdet.datasets').CocoDataset.METAINFO['classes']
    data = tmp_path / 'data'
    for split in ('train', 'val'):
        write_coco(data, split, 4, classes)
    train_and_test(detector(name, tmp_path / 'run', data), 'coco/bbox_mAP')


def test_nms_beside_mmcv_lite_is_torchvisions_and_other_operators_are_refused():
    pytest.importorskip('mmdet')
    from mmcv import _ext
    from mmcv.ops import batched_nms, nms, roi_align

    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]])
    scores = torch.tensor([0.5, 0.9, 0.3])
    kept, indices = nms(boxes, scores, iou_threshold=0.5)
    assert indices.tolist() == [1, 2] and kept[:, 4].tolist() == pytest.approx([0.9, 0.3])
    cfg = dict(type='nms', iou_threshold=0.5)
    assert len(batched_nms(boxes, scores, torch.tensor([0, 1, 0]), cfg)[1]) == 3
    if getattr(_ext, '__file__', None):
        pytest.skip('a full mmcv')
    with pytest.raises(UserError, match='roi_align_forward'):
        roi_align(torch.randn(1, 1, 8, 8), torch.zeros(1, 5), 2, 1.0)
    with pytest.raises(UserError, match='nms.offset=0'):
        _ext.nms(boxes, scores, 0.5, offset=1)


SWIN = dict(embed_dims=8, depths=[1] * 4, num_heads=[1, 1, 2, 2], window_size=2, init_cfg=None)
BN = dict(type='BN', requires_grad=True)
VIT = dict(img_size=(SIDE, SIDE), patch_size=16, embed_dims=16, num_heads=2, num_layers=12)


def segmentor(name, work_dir, data):
    cfg = read_config(CONFIGS / 'segmentation' / name)
    model = cfg.model
    is_swin = 'swin' in name
    sizes = dict(SWIN, pretrain_img_size=SIDE) if is_swin else dict(VIT, pretrained=None)
    model.backbone.backbone.update(sizes)
    model.data_preprocessor.update(size=(SIDE, SIDE))
    for part in ('decode_head', 'auxiliary_head'):
        if part in model:
            model[part].channels = 8
    if is_swin:
        model.decode_head.update(in_channels=[8, 16, 32, 64], norm_cfg=BN)
        model.auxiliary_head.update(in_channels=32, norm_cfg=BN)
    else:
        model.decode_head.in_channels = model.decode_head.channels = 16
        model.test_cfg = dict(mode='slide', crop_size=(SIDE, SIDE), stride=(SIDE, SIDE))
    shrink(cfg, work_dir, data, 64 if is_swin else 16, max_iters=2, val_interval=2)
    return cfg


@pytest.mark.slow
@pytest.mark.parametrize('name', configs_of('segmentation'))
def test_segmentor_trains_validates_saves_and_tests(name, tmp_path):
    pytest.importorskip('mmseg')
    own = 'folder' in name  # else ADE20K's folders
    splits = ('train', 'val') if own else ('training', 'validation')
    data, masks = tmp_path / 'data', 'masks' if own else 'annotations'
    for split, i in itertools.product(splits, range(3)):
        write_picture(data / 'images' / split / f'{i}.jpg', i)
        write_picture(data / masks / split / f'{i}.png', i, most=2 if own else 151, channels=())
    train_and_test(segmentor(name, tmp_path / 'run', data), 'mIoU')
