"""Variants of ImageNet: folders become indices among the 1,000 classes."""

from importlib import resources

import pytest

pytest.importorskip('mmpretrain')
pytest.importorskip('timm')

from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

from lm4ve.errors import UserError
from lm4ve.tasks.image import ImageNetC, ImageNetVariant
from lm4ve.tasks.image.datasets.synsets import class_indices
from tests.tasks.image.images import fill_once, write

META_KEYS = ('img_path', 'corruption', 'severity')
PIPELINE = [dict(type='LoadImageFromFile'), dict(type='PackInputs', meta_keys=META_KEYS)]


def timm_indices(variant: str) -> list:
    folder = resources.files('timm') / 'data' / '_info'
    text = (folder / f'imagenet_{variant}_indices.txt').read_text()
    return sorted(int(i) for i in text.split())


@pytest.fixture(scope='module')
def thousand(tmp_path_factory):
    """A folder with one image for each of the 1,000 wnids."""
    root = tmp_path_factory.mktemp('thousand')
    fill_once(root, class_indices('c'))
    return root


def test_class_order_is_mmpretrains():
    from timm.data import ImageNetInfo

    info, wnids = ImageNetInfo(), class_indices('sketch')
    assert list(wnids) == sorted(wnids) == info.label_names()
    assert list(wnids.values()) == list(range(1000))
    names = [info.index_to_description(i) for i in range(1000)]
    # A few names are spelled otherwise in one of the two lists.
    pairs = zip(names, IMAGENET_CATEGORIES, strict=True)
    assert sum(a.split(',')[0].lower() == b.split(',')[0].lower() for a, b in pairs) > 980
    with pytest.raises(UserError, match='a, r, sketch, c'):
        class_indices('v2')


@pytest.mark.parametrize('variant', ['a', 'r'])
def test_labels_are_indices_among_1000_classes(variant, tmp_path):
    wnids = class_indices(variant)
    fill_once(tmp_path, wnids)
    write(tmp_path / 'README.txt', b'read me')
    (tmp_path / '__MACOSX').mkdir()
    write(tmp_path / list(wnids)[3] / 'zero.jpg', b'')
    dataset = ImageNetVariant(variant, data_root=str(tmp_path))
    assert len(dataset) == 200 and dataset.num_corrupt == 1
    assert dataset.get_gt_labels().tolist() == timm_indices(variant)
    for i in (0, 77, 199):
        info = dataset.get_data_info(i)
        assert info['gt_label'] == wnids[info['img_path'].split('/')[-2]]
    assert dataset.metainfo['subset'] == timm_indices(variant)
    assert len(dataset.metainfo['classes']) == 1000


def test_wrong_class_folders_are_refused(thousand, tmp_path):
    with pytest.raises(UserError, match='not ImageNet-A: .* 800 are of other classes'):
        ImageNetVariant('a', data_root=str(thousand))
    wnids = list(class_indices('r'))
    fill_once(tmp_path, wnids[1:])
    with pytest.raises(UserError, match=f'1 are missing .{wnids[0]}'):
        ImageNetVariant('r', data_root=str(tmp_path))
    (tmp_path / wnids[0]).mkdir()
    with pytest.raises(UserError, match=f'hold no image: {wnids[0]}'):
        ImageNetVariant('r', data_root=str(tmp_path))


def test_imagenet_c_samples_have_their_group(thousand, tmp_path):
    groups = [('fog', 2), ('fog', 5), ('snow', 2), ('snow', 5)]
    for corruption, severity in groups:
        (tmp_path / corruption).mkdir(exist_ok=True)
        (tmp_path / corruption / str(severity)).symlink_to(thousand)
    options = dict(corruptions=['fog', 'snow'], pipeline=PIPELINE, verify=False)
    dataset = ImageNetC(str(tmp_path), severities=[2, 5], **options)
    assert len(dataset) == 4000
    for i in (0, 1500, 2500, 3999):
        sample = dataset[i]['data_samples']
        assert (sample.corruption, sample.severity) == groups[i // 1000]
        assert f'/{sample.corruption}/{sample.severity}/' in sample.img_path
        assert sample.gt_label.item() == i % 1000
    assert dataset.metainfo['corruptions'] == ('fog', 'snow')
    with pytest.raises(FileNotFoundError, match='fog/3'):
        ImageNetC(str(tmp_path), severities=[2, 3], **options)
