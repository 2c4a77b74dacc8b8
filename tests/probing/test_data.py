"""Labels and splits of folders, tables and configs, and how pictures are read."""

import shutil

import mmcv
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lm4ve.errors import UserError
from lm4ve.probing.data import read_data, read_picture

rng = np.random.default_rng(0)


def write_folder(root, counts, **splits):
    """Write pictures of noise; splits hold the counts of folders above the classes."""
    for split, count in (splits or {'.': counts}).items():
        for label, number in (
            count if isinstance(count, dict) else dict.fromkeys('ab', count)
        ).items():
            folder = root / split / label
            folder.mkdir(parents=True)
            for i in range(number):
                noise = rng.integers(256, size=(9, 12, 3), dtype=np.uint8)
                Image.fromarray(noise).save(folder / f'{i}.png')
    return root


def counts(data):
    return {
        name: np.bincount(data.labels[indices], minlength=len(data.classes)).tolist()
        for name, indices in data.splits.items()
    }


def test_each_class_is_split_in_60_20_20(tmp_path):
    data = read_data(str(write_folder(tmp_path, dict(cat=20, dog=10))))
    assert data.classes == ('cat', 'dog') and len(data) == 30
    assert counts(data) == dict(train=[12, 6], val=[4, 2], test=[4, 2])
    assert sorted(np.concatenate([*data.splits.values()])) == list(range(30))
    again, other = read_data(str(tmp_path)), read_data(str(tmp_path), seed=1)
    assert again.fingerprint == data.fingerprint != other.fingerprint
    assert all(np.array_equal(again.splits[s], data.splits[s]) for s in data.splits)


@pytest.mark.parametrize(
    'given, expected',
    [
        (dict(train=5, val=2, test=3), dict(train=[5, 5], val=[2, 2], test=[3, 3])),
        (dict(train=10, test=3), dict(train=[8, 8], val=[2, 2], test=[3, 3])),
        (dict(train=10, val=3), dict(train=[8, 8], val=[2, 2], test=[3, 3])),
        (dict(train=10), dict(train=[6, 6], val=[2, 2], test=[2, 2])),
    ],
    ids=str,
)
def test_folders_of_splits_are_kept(given, expected, tmp_path):
    assert counts(read_data(str(write_folder(tmp_path, {}, **given)))) == expected


def test_a_limit_keeps_the_shares_of_classes(tmp_path):
    data = read_data(str(write_folder(tmp_path, dict(a=40, b=20))), limit=30)
    assert np.bincount(data.labels).tolist() == [20, 10]


def test_groups_and_equal_files_stay_together(tmp_path):
    write_folder(tmp_path, dict(a=30, b=30))
    for label in 'ab':
        for i in range(10):
            shutil.copy(tmp_path / label / f'{i}.png', tmp_path / label / f'copy{i}.png')
    data = read_data(str(tmp_path))
    side = {i: s for s, indices in data.splits.items() for i in indices}
    by_content = {}
    for i in range(len(data)):
        by_content.setdefault(data.items[i].read_bytes(), set()).add(side[i])
    assert all(len(sides) == 1 for sides in by_content.values())
    rows = [(f'{label}/{i}.png', label, f'{label}{i // 3}') for label in 'ab' for i in range(30)]
    pd.DataFrame(rows, columns=['path', 'label', 'group']).to_csv(tmp_path / 'd.csv', index=False)
    data = read_data(str(tmp_path / 'd.csv'))
    for split, others in (('train', ('val', 'test')), ('val', ('test',))):
        groups = [{rows[i][2] for i in data.splits[s]} for s in (split, *others)]
        assert not groups[0] & set.union(*groups[1:])


def damage(path):
    path.write_bytes(path.read_bytes()[:100])


def test_bad_data_is_refused_by_name(tmp_path):
    def refused(match, path):
        with pytest.raises(UserError, match=match):
            read_data(str(path))

    refused('number of classes', write_folder(tmp_path / 'one', dict(a=9)))
    (tmp_path / 'empty').mkdir()
    refused('no pictures in class folders', tmp_path / 'empty')
    refused('no folder, no CSV', tmp_path / 'missing')
    damage(write_folder(tmp_path / 'bad', {}, train=5, test=5) / 'test/b/3.png')
    refused('1 damaged pictures in val or test: .*b/3.png', tmp_path / 'bad')
    refused(
        'without a training picture: c', write_folder(tmp_path / 'u', {}, train=5, test=dict(c=2))
    )
    table = pd.DataFrame(
        dict(path='one/a/0.png', label=['x', 'y'], split=['train', 'test'], group='g')
    )
    table.to_csv(tmp_path / 'd.csv', index=False)
    refused('groups in several splits: g', tmp_path / 'd.csv')
    table.rename(columns=dict(label='lable')).to_csv(tmp_path / 'd.csv', index=False)
    refused("'label' must be one of path, lable, .* Did you mean 'lable'", tmp_path / 'd.csv')


def test_rare_classes_and_damaged_training_pictures_are_left_out(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr('lm4ve.probing.data._warn', said.append)
    whole = read_data(str(write_folder(tmp_path, dict(a=10, b=10, rare=4))))
    assert whole.classes == ('a', 'b') and said.pop().endswith('fewer than 5 pictures: rare.')
    path = whole.items[whole.splits['train'][0]]
    damage(path)
    data = read_data(str(tmp_path))
    assert len(data) == len(whole) - 1 and f'1 damaged pictures left out: {path}.' in said[-1]
    assert data.fingerprint != whole.fingerprint and path not in data.items


def test_pictures_are_read_as_configs_read_them(tmp_path):
    noise = rng.integers(256, size=(16, 24, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    cases = {
        'gray.png': (Image.fromarray(noise[..., 0]), {}),
        'palette.png': (Image.fromarray(noise).quantize(16), {}),
        'deep.png': (Image.fromarray(noise[..., 0].astype(np.uint16) * 257), {}),
        'turned.png': (Image.fromarray(noise), dict(exif=exif)),
        'plain.webp': (Image.fromarray(noise), dict(lossless=True)),
    }
    for name, (picture, options) in cases.items():
        picture.save(tmp_path / name, **options)
        ours = np.asarray(read_picture(tmp_path / name))
        assert np.array_equal(ours, mmcv.imread(str(tmp_path / name), channel_order='rgb')), name
    Image.fromarray(noise).convert('CMYK').save(tmp_path / 'c.jpg', quality=100)
    theirs = mmcv.imread(str(tmp_path / 'c.jpg'), channel_order='rgb')
    assert np.abs(np.asarray(read_picture(tmp_path / 'c.jpg')) - theirs.astype(int)).max() <= 3
    Image.new('RGBA', (2, 2), (9, 9, 9, 0)).save(tmp_path / 'clear.png')
    assert (np.asarray(read_picture(tmp_path / 'clear.png')) == 255).all()
    Image.new('F', (2, 2)).save(tmp_path / 'float.tif')
    with pytest.raises(UserError, match='32 bits'):
        read_picture(tmp_path / 'float.tif')
