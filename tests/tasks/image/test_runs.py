"""The robustness configs test a model; checked data sets train one."""

import pytest

pytest.importorskip('mmpretrain')
pytest.importorskip('timm')

import torch
from mmengine.config import Config
from torch import nn

from lm4ve.runner.command_line import build_runner
from lm4ve.tasks.image.datasets.synsets import class_indices
from tests.helpers.tasks import FOLDERS
from tests.tasks.image.images import broken_files, fill_once, write

ARCH = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """All variants in the layouts of their archives, one image a class."""
    root = tmp_path_factory.mktemp('data')
    fill_once(root / 'imagenet-a', class_indices('a'))
    fill_once(root / 'imagenet-r', class_indices('r'))
    fill_once(root / 'imagenet-sketch' / 'sketch', class_indices('sketch'))
    (root / 'imagenet-c/fog').mkdir(parents=True)
    for severity in '12':
        (root / 'imagenet-c/fog' / severity).symlink_to(root / 'imagenet-sketch/sketch')
    write(root / 'imagenet-a' / 'n01498041' / 'half.jpg', broken_files()['half.jpg'])
    return root


def load(name: str, data, work_dir) -> Config:
    cfg = Config.fromfile(FOLDERS['image'] / name)
    for transform in cfg.test_dataloader.dataset.pipeline:
        for key in {'scale', 'crop_size'} & {*transform}:
            transform[key] //= 7
    folder = cfg.test_dataloader.dataset.data_root.rpartition('/')[2]
    cfg.work_dir = str(work_dir)
    cfg.model.backbone.update(arch=ARCH, img_size=32)
    cfg.model.head.in_channels = 16
    cfg.test_dataloader.update(num_workers=0, batch_size=250)
    cfg.test_dataloader.dataset.data_root = str(data / folder)
    cfg.optim_wrapper.update(type='OptimWrapper', loss_scale=None)
    if name.endswith('imagenet-c.py'):
        cfg.test_dataloader.dataset.update(corruptions=['fog'], severities=[1, 2])
    return cfg


VARIANTS = [
    ('a', 200, 'SubsetAccuracy'),
    ('r', 200, 'SubsetAccuracy'),
    ('sketch', 1000, 'Accuracy'),
    ('c', 2000, 'CorruptionAccuracy'),
]


@pytest.mark.parametrize('variant, count, evaluator', VARIANTS)
def test_config_tests_a_model(variant, count, evaluator, data, tmp_path):
    cfg = load(f'robustness/vit-t_imagenet-{variant}.py', data, tmp_path)
    runner = build_runner(cfg)
    # Always the same answer, class 6, which is of ImageNet-A but not of -R:
    # there another class, the first of the subset, is left to be the best.
    fc = runner.model.head.layers.head
    nn.init.zeros_(fc.weight)
    with torch.no_grad():
        fc.bias.copy_(-torch.arange(1000.0) / 100)
        fc.bias[6] = 5.0
    metrics = runner.test()
    dataset = runner.test_loop.dataloader.dataset
    assert len(dataset) == count
    assert dataset.num_corrupt == (variant == 'a')
    assert type(runner.test_evaluator.metrics[0]).__name__ == evaluator
    expected = 100 / (200 if variant in 'ar' else 1000)
    assert metrics['accuracy/top1'] == pytest.approx(expected)
    if variant == 'c':
        assert metrics['accuracy/fog'] == pytest.approx(expected)
        assert 'accuracy/mCE' not in metrics
    else:
        assert metrics['accuracy/top5'] == pytest.approx(5 * expected)
