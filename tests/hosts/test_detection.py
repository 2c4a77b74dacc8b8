"""mmdetection: each config trains, validates, saves and tests on COCO's layout."""

import pytest
import torch

pytest.importorskip('mmdet')
from lm4ve.errors import UserError  # noqa: E402
from lm4ve.runner.config import read_config  # noqa: E402
from tests.helpers.tasks import CONFIGS, configs_of  # noqa: E402
from tests.hosts.small import shrink, train_and_test, write_coco  # noqa: E402

RESNET = dict(depth=18, base_channels=4, stem_channels=4, frozen_stages=-1, init_cfg=None)


def small(name, work_dir, data):
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
def test_config_trains_validates_saves_and_tests(name, tmp_path):
    from mmdet.datasets import CocoDataset

    data = tmp_path / 'data'
    for split in ('train', 'val'):
        write_coco(data, split, 4, CocoDataset.METAINFO['classes'])
    train_and_test(small(name, tmp_path / 'run', data), 'coco/bbox_mAP')


def test_nms_beside_mmcv_lite_is_torchvisions_and_other_operators_are_refused():
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
