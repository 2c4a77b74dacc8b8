"""mmsegmentation: each config trains, validates, saves and tests on the data's own layout."""

import itertools

import pytest

pytest.importorskip('mmseg')

from lm4ve.runner.config import read_config  # noqa: E402
from tests.helpers.tasks import CONFIGS, configs_of  # noqa: E402
from tests.hosts.small import SIDE, shrink, train_and_test, write_picture  # noqa: E402

SWIN = dict(embed_dims=8, depths=[1] * 4, num_heads=[1, 1, 2, 2], window_size=2, init_cfg=None)
BN = dict(type='BN', requires_grad=True)
VIT = dict(img_size=(SIDE, SIDE), patch_size=16, embed_dims=16, num_heads=2, num_layers=12)


def small(name, work_dir, data):
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
def test_config_trains_validates_saves_and_tests(name, tmp_path):
    own = 'folder' in name  # else ADE20K's folders
    splits = ('train', 'val') if own else ('training', 'validation')
    data, masks = tmp_path / 'data', 'masks' if own else 'annotations'
    for split, i in itertools.product(splits, range(3)):
        write_picture(data / 'images' / split / f'{i}.jpg', i)
        write_picture(data / masks / split / f'{i}.png', i, most=2 if own else 151, channels=())
    train_and_test(small(name, tmp_path / 'run', data), 'mIoU')
