"""Variants of ImageNet: folders become indices among the 1,000 classes."""

from importlib import resources

import pytest

pytest.importorskip('mmpretrain')
pytest.importorskip('timm')

from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

from lm4ve.errors import UserError
from lm4ve.tasks.image import ImageNetC, ImageNetVariant
from lm4ve.tasks.image.datasets.imagenet_variants import CORRUPTIONS
from lm4ve.tasks.image.datasets.synsets import class_indices
from tests.tasks.image.images import fill_once, write

META_KEYS = ('img_path', 'corruption', 'severity')
PIPELINE = [dict(type='LoadImageFromFile'), dict(type='PackInputs', meta_keys=META_KEYS)]


def timm_indices(variant: str) -> list:
    folder = resources.files('timm') / 'data' / '_info'
    text = (folder / f'imagenet_{variant}_indices.txt').read_text()
    return [int(i) for i in text.split()]


@pytest.fixture(scope='module')
def thousand(tmp_path_factory):
    """A folder with one image for each of the 1,000 wnids."""
    root = tmp_path_factory.mktemp('thousand')
    fill_once(root, class_indices('c'))
    return root


# -------------------------------------------------------------------- mapping
@pytest.mark.parametrize('variant', ['a', 'r'])
def test_200_wnids_map_to_the_indices_that_timm_lists(variant):
    indices = class_indices(variant)
    assert len(indices) == 200
    assert sorted(indices.values()) == sorted(timm_indices(variant))
    assert all(0 <= i < 1000 for i in indices.values())
    # Folders in sorted order have increasing indices.
    assert sorted(indices) == sorted(indices, key=indices.get)


def test_class_order_is_that_of_mmpretrain():
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    wnids = class_indices('sketch')
    assert list(wnids) == sorted(wnids) == info.label_names()
    assert list(wnids.values()) == list(range(1000))
    names = [info.index_to_description(i) for i in range(1000)]
    # A few names are spelled otherwise in one of the two lists.
    same = sum(
        a.split(',')[0].lower() == b.split(',')[0].lower()
        for a, b in zip(names, IMAGENET_CATEGORIES, strict=True)
    )
    assert same > 980


def test_a_and_r_share_some_classes_only():
    a, r = class_indices('a'), class_indices('r')
    shared = set(a) & set(r)
    assert 0 < len(shared) < 200
    assert all(a[w] == r[w] for w in shared)


def test_unknown_variant_is_refused():
    with pytest.raises(UserError, match='a, r, sketch, c'):
        class_indices('v2')


# ------------------------------------------------------------------- variants
@pytest.mark.parametrize('variant', ['a', 'r'])
def test_labels_are_indices_among_the_1000_classes(variant, tmp_path):
    wnids = class_indices(variant)
    fill_once(tmp_path, wnids)
    write(tmp_path / 'README.txt', b'read me')
    (tmp_path / '__MACOSX').mkdir()
    dataset = ImageNetVariant(variant, data_root=str(tmp_path))
    assert len(dataset) == 200
    assert dataset.get_gt_labels().tolist() == sorted(timm_indices(variant))
    for i in (0, 77, 199):
        info = dataset.get_data_info(i)
        wnid = info['img_path'].split('/')[-2]
        assert info['gt_label'] == wnids[wnid]
    assert dataset.metainfo['subset'] == sorted(timm_indices(variant))
    assert len(dataset.metainfo['classes']) == 1000


def test_corrupt_images_of_a_variant_are_left_out(tmp_path):
    wnids = list(class_indices('a'))
    fill_once(tmp_path, wnids)
    write(tmp_path / wnids[3] / 'zero.jpg', b'')
    dataset = ImageNetVariant('a', data_root=str(tmp_path))
    assert len(dataset) == 200 and dataset.num_corrupt == 1


def test_sketch_is_read_from_the_folder_of_its_archive(thousand, tmp_path):
    (tmp_path / 'sketch').symlink_to(thousand)
    dataset = ImageNetVariant('sketch', data_root=str(tmp_path), data_prefix='sketch', verify=False)
    assert dataset.get_gt_labels().tolist() == list(range(1000))


def test_another_data_set_is_refused_with_what_is_foreign(thousand):
    with pytest.raises(UserError, match='800 are of other classes') as e:
        ImageNetVariant('a', data_root=str(thousand))
    assert 'not ImageNet-A' in str(e.value)


def test_missing_class_folders_are_named(tmp_path):
    wnids = list(class_indices('r'))
    fill_once(tmp_path, wnids[1:])
    with pytest.raises(UserError, match=f'1 are missing .{wnids[0]}'):
        ImageNetVariant('r', data_root=str(tmp_path))


def test_empty_class_folder_of_a_variant_is_named(tmp_path):
    wnids = list(class_indices('r'))
    fill_once(tmp_path, wnids[1:])
    (tmp_path / wnids[0]).mkdir()
    with pytest.raises(UserError, match=f'hold no image: {wnids[0]}'):
        ImageNetVariant('r', data_root=str(tmp_path))


def test_missing_root_of_a_variant_is_named(tmp_path):
    with pytest.raises(UserError, match='nowhere'):
        ImageNetVariant('a', data_root=str(tmp_path / 'nowhere'))


# ----------------------------------------------------------------- ImageNet-C
def corrupted(root, thousand, groups) -> str:
    for corruption, severity in groups:
        folder = root / corruption
        folder.mkdir(exist_ok=True)
        (folder / str(severity)).symlink_to(thousand)
    return str(root)


def test_samples_of_imagenet_c_carry_their_group(thousand, tmp_path):
    groups = [('fog', 2), ('fog', 5), ('snow', 2), ('snow', 5)]
    dataset = ImageNetC(
        corrupted(tmp_path, thousand, groups),
        corruptions=['fog', 'snow'],
        severities=[2, 5],
        pipeline=PIPELINE,
        verify=False,
    )
    assert len(dataset) == 4000
    for i in (0, 1500, 2500, 3999):
        sample = dataset[i]['data_samples']
        assert (sample.corruption, sample.severity) == groups[i // 1000]
        assert f'/{sample.corruption}/{sample.severity}/' in sample.img_path
        assert sample.gt_label.item() == i % 1000
    assert dataset.metainfo['corruptions'] == ('fog', 'snow')


def test_missing_corruptions_are_named(thousand, tmp_path):
    root = corrupted(tmp_path, thousand, [(c, 1) for c in CORRUPTIONS if c != 'frost'])
    with pytest.raises(UserError, match=': frost. Fix'):
        ImageNetC(root, severities=[1])
    with pytest.raises(UserError, match=': fog/2. Fix'):
        ImageNetC(root, corruptions=['fog'], severities=[1, 2])


@pytest.mark.parametrize(
    'fields',
    [dict(corruptions='fog'), dict(severities=3), dict(corruptions=[]), dict(severities=[])],
)
def test_fields_that_name_no_list_are_refused(fields, tmp_path):
    with pytest.raises(UserError, match='dataset.corruptions'):
        ImageNetC(str(tmp_path), **fields)
