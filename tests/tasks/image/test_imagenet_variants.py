"""Variants of ImageNet: their labels, their metrics, and the configs that test models on them."""

from importlib import resources
from pathlib import Path

import pytest

pytest.importorskip('mmpretrain')
pytest.importorskip('timm')

import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES
from mmpretrain.structures import DataSample
from torch import nn

from lm4ve.errors import UserError
from lm4ve.runner.command_line import build_runner
from lm4ve.tasks.image import (
    CorruptionAccuracy,
    ImageNetC,
    ImageNetVariant,
    SubsetAccuracy,
)
from lm4ve.tasks.image.datasets.imagenet_variants import CORRUPTIONS, SEVERITIES
from lm4ve.tasks.image.datasets.synsets import class_indices
from lm4ve.tasks.image.metrics import ALEXNET_ERRORS
from tests.helpers.image.images import fill, write
from tests.helpers.shrink import shrink_images
from tests.helpers.tasks import FOLDERS

META_KEYS = ('img_path', 'corruption', 'severity')
PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='PackInputs', meta_keys=META_KEYS),
]


def timm_indices(variant: str) -> list:
    folder = resources.files('timm') / 'data' / '_info'
    text = (folder / f'imagenet_{variant}_indices.txt').read_text()
    return sorted(int(i) for i in text.split())


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """All variants in the layouts of their archives, one image a class."""
    root = tmp_path_factory.mktemp('data')
    for variant in 'ar':
        folder, wnids = root / f'imagenet-{variant}', [*class_indices(variant)]
        fill(folder, wnids, 1)
        (folder / '__MACOSX').mkdir()
        write(folder / 'README.txt', b'read me')
        write(folder / wnids[3] / 'zero.jpg', b'')
    fill(root / 'imagenet-sketch/sketch', class_indices('sketch'), 1)
    (root / 'imagenet-c/fog').mkdir(parents=True)
    for severity in '12':
        (root / 'imagenet-c/fog' / severity).symlink_to(root / 'imagenet-sketch/sketch')
    return root


def test_class_order_is_mmpretrains():
    from timm.data import ImageNetInfo

    info, wnids = ImageNetInfo(), class_indices('sketch')
    assert list(wnids) == sorted(wnids) == info.label_names()
    assert list(wnids.values()) == list(range(1000))
    names = [info.index_to_description(i) for i in range(1000)]
    # A few names are spelled otherwise in one of the two lists.
    pairs = zip(names, IMAGENET_CATEGORIES, strict=True)
    assert (
        sum(a.split(',')[0].lower() == b.split(',')[0].lower() for a, b in pairs) > 980
    )
    with pytest.raises(UserError, match='a, r, sketch, c'):
        class_indices('v2')


@pytest.mark.parametrize('variant', ['a', 'r'])
def test_labels_are_indices_among_1000_classes(variant, data):
    wnids = class_indices(variant)
    root = str(data / f'imagenet-{variant}')
    with pytest.raises(UserError, match='1 of 201 images are corrupt.*zero.jpg'):
        ImageNetVariant(variant, data_root=root)
    dataset = ImageNetVariant(variant, data_root=root, on_corrupt='skip')
    assert len(dataset) == 200 and dataset.num_corrupt == 1
    assert dataset.get_gt_labels().tolist() == timm_indices(variant)
    for i in (0, 77, 199):
        info = dataset.get_data_info(i)
        assert info['gt_label'] == wnids[info['img_path'].split('/')[-2]]
    assert dataset.metainfo['subset'] == timm_indices(variant)
    assert len(dataset.metainfo['classes']) == 1000


def test_wrong_class_folders_are_refused(data, tmp_path):
    with pytest.raises(UserError, match='not ImageNet-A: .* 800 are of other classes'):
        ImageNetVariant('a', data_root=str(data / 'imagenet-sketch/sketch'))
    wnids = list(class_indices('r'))
    fill(tmp_path, wnids[1:], 1)
    with pytest.raises(UserError, match=f'1 are missing .{wnids[0]}'):
        ImageNetVariant('r', data_root=str(tmp_path))
    (tmp_path / wnids[0]).mkdir()
    with pytest.raises(UserError, match=f'hold no image: {wnids[0]}'):
        ImageNetVariant('r', data_root=str(tmp_path))


def test_imagenet_c_samples_have_their_group(data, tmp_path):
    groups = [('fog', 2), ('fog', 5), ('snow', 2), ('snow', 5)]
    for corruption, severity in groups:
        (tmp_path / corruption).mkdir(exist_ok=True)
        (tmp_path / corruption / str(severity)).symlink_to(
            data / 'imagenet-sketch/sketch'
        )
    options = dict(corruptions=['fog', 'snow'], pipeline=PIPELINE, verify=False)
    dataset = ImageNetC(str(tmp_path), severities=[2, 5], **options)
    assert len(dataset) == 4000
    for i in (0, 1500, 2500, 3999):
        sample = dataset[i]['data_samples']
        assert (sample.corruption, sample.severity) == groups[i // 1000]
        assert f'/{sample.corruption}/{sample.severity}/' in sample.img_path
        assert sample.gt_label.item() == i % 1000
    assert dataset.metainfo['corruptions'] == ('fog', 'snow')
    with pytest.raises(UserError, match='fog/3'):
        ImageNetC(str(tmp_path), severities=[2, 3], **options)


def scored(label: int, scores, **meta) -> DataSample:
    sample = DataSample(metainfo=meta).set_gt_label(label)
    return sample.set_pred_score(torch.tensor(scores))


def answered(corruption: str, severity: int, right: bool) -> DataSample:
    return scored(
        1, [0.1, 0.9] if right else [0.9, 0.1], corruption=corruption, severity=severity
    )


def evaluate(metric, samples, meta=None) -> dict:
    evaluator = Evaluator([metric])
    evaluator.dataset_meta = meta or {}
    return evaluator.offline_evaluate(samples, chunk_size=2)


# --------------------------------------------------------------------- subset
# Classes 1, 3 and 4 of six.
SUBSET = [
    scored(1, [0.50, 0.20, 0.20, 0.05, 0.04, 0.01]),  # 0 is best, 1 of the subset
    scored(3, [0.00, 0.30, 0.10, 0.25, 0.05, 0.30]),  # second of the subset
    scored(4, [0.40, 0.20, 0.30, 0.06, 0.04, 0.00]),  # last of the subset
    scored(3, [0.00, 1e-9, 0.50, 3e-9, 2e-9, 0.50]),  # best of tiny scores
]


def test_subset_excludes_other_classes():
    metrics = evaluate(SubsetAccuracy(topk=(1, 2)), SUBSET, dict(subset=[1, 3, 4]))
    assert metrics['accuracy/top1'] == pytest.approx(50.0)
    assert metrics['accuracy/top2'] == pytest.approx(75.0)


@pytest.mark.parametrize(
    'indices, error',
    [(None, UserError), ([1, 3, 4, 9], IndexError), ([0, 2], UserError)],
)
def test_unsuitable_subset_raises(indices, error):
    with pytest.raises(error):
        evaluate(SubsetAccuracy(indices=indices), SUBSET)


# ----------------------------------------------------------------- corruption
def test_groups_have_equal_weight():
    # fog: 100 % of one image and 25 % of four; snow: 50 % of two, 0 of one.
    right = {
        ('fog', 1): [1],
        ('fog', 2): [1, 0, 0, 0],
        ('snow', 1): [1, 0],
        ('snow', 2): [0],
    }
    samples = [
        answered(*group, bool(x)) for group, images in right.items() for x in images
    ]
    meta = dict(corruptions=('fog', 'snow'), severities=(1, 2))
    metrics = evaluate(CorruptionAccuracy(), samples, meta)
    with pytest.raises(UserError, match='snow/2'):
        evaluate(CorruptionAccuracy(), samples[:-1], meta)
    assert metrics == {
        'accuracy/fog': pytest.approx((100 + 25) / 2),
        'accuracy/snow': pytest.approx((50 + 0) / 2),
        'accuracy/top1': pytest.approx((100 + 25 + 50 + 0) / 4),
    }


def test_mce_needs_the_whole_benchmark():
    # Severities 1 to 4 are right, 5 is wrong: an error of 20 % everywhere.
    samples = [answered(c, s, s < 5) for c in CORRUPTIONS for s in SEVERITIES]
    metrics = evaluate(CorruptionAccuracy(), samples)
    assert metrics['accuracy/top1'] == pytest.approx(80.0)
    expected = sum(20 / e for e in ALEXNET_ERRORS.values()) / 15 * 100
    assert metrics['accuracy/mCE'] == pytest.approx(expected)
    assert 'accuracy/mCE' not in evaluate(CorruptionAccuracy(), samples[1:])


ARCH = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)


VARIANTS = [
    ('a', 200, 'SubsetAccuracy'),
    ('r', 200, 'SubsetAccuracy'),
    ('sketch', 1000, 'Accuracy'),
    ('c', 2000, 'CorruptionAccuracy'),
]


@pytest.mark.parametrize('variant, count, evaluator', VARIANTS)
def test_config_tests_a_model(variant, count, evaluator, data, tmp_path):
    cfg = Config.fromfile(FOLDERS['image'] / f'robustness/vit-t_imagenet-{variant}.py')
    cfg.work_dir = str(tmp_path)
    cfg.model.backbone.update(arch=ARCH, img_size=32)
    cfg.model.head.in_channels = 16
    cfg.test_dataloader.update(num_workers=0, batch_size=250)
    tested = cfg.test_dataloader.dataset
    shrink_images(tested.pipeline)
    tested.data_root = str(data / Path(tested.data_root).name)
    tested.on_corrupt = 'skip'
    if variant == 'c':
        tested.update(corruptions=['fog'], severities=[1, 2])
    cfg.optim_wrapper.update(type='OptimWrapper', loss_scale=None)
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
    assert dataset.num_corrupt == (variant in 'ar')
    if variant in 'ar':
        numbers = metrics['samples/scored'], metrics['samples/total']
        assert numbers == (200, 201)
    assert type(runner.test_evaluator.metrics[0]).__name__ == evaluator
    expected = 100 / (200 if variant in 'ar' else 1000)
    assert metrics['accuracy/top1'] == pytest.approx(expected)
    if variant == 'c':
        assert metrics['accuracy/fog'] == pytest.approx(expected)
        assert 'accuracy/mCE' not in metrics
    else:
        assert metrics['accuracy/top5'] == pytest.approx(5 * expected)
