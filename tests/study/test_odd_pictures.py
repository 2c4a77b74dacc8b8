"""Damaged and odd pictures of a user: what is left out, what is refused, and in which words."""

import os
from pathlib import Path

import numpy as np
import pytest
from mmengine.logging import MMLogger
from PIL import Image

from lm4ve.errors import UserError
from lm4ve.study.pictures.data import read_data, write_left_out
from lm4ve.study.pictures.reading import find_damage_in_file, read_picture
from tests.helpers.pictures import break_tables, write_folder

#: How a picture of a phone begins.
HEIC = b'\0\0\0\x18ftypheic\0\0\0\0mif1heic'
rng = np.random.default_rng(0)


@pytest.fixture
def said(monkeypatch):
    """Return a list that collects all warnings."""
    texts = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, text: texts.append(text))
    return texts


def noise(*shape, dtype=np.uint8):
    return rng.integers(256, size=shape).astype(dtype)


def write_sound(folder):
    """Write pictures that are odd, but have pixels; return how many."""
    Image.fromarray(noise(8, 9, 4)).save(folder / 'transparent.png')
    Image.fromarray(noise(1, 1, 3)).save(folder / 'dot.png')
    Image.fromarray(noise(8, 9, dtype=np.uint16) * 257).save(folder / 'deep.png')
    Image.fromarray(noise(8, 9, 4), 'CMYK').save(folder / 'ink.jpg')
    frames = [Image.fromarray(noise(8, 9)) for _ in range(3)]
    frames[0].save(folder / 'moving.gif', save_all=True, append_images=frames[1:])
    return 5


def write_damaged(folder):
    """Write files without pixels under names of pictures; return their names."""
    picture = Image.fromarray(noise(40, 40, 3))
    whole = folder / 'whole.tmp'
    picture.save(whole, 'JPEG')
    data = whole.read_bytes()
    whole.unlink()
    (folder / 'empty.jpg').touch()
    (folder / 'text.jpg').write_text('Dear diary')
    (folder / 'phone.jpg').write_bytes(HEIC)
    (folder / 'cut.jpg').write_bytes(data[: len(data) // 2])
    Image.fromarray(noise(8, 9).astype(np.float32)).save(folder / 'float.tif')
    (folder / 'gone.png').symlink_to('nowhere.png')
    return ['cut.jpg', 'empty.jpg', 'float.tif', 'gone.png', 'phone.jpg', 'text.jpg']


def test_odd_pictures_count_and_damaged_ones_are_listed_once(tmp_path, said):
    write_folder(tmp_path, _=dict(cat=10, dog=10))
    odd = write_sound(tmp_path / 'cat')
    sound = read_data(str(tmp_path))
    assert len(sound) == 20 + odd
    for index in range(len(sound)):
        assert sound[index].mode == 'RGB'

    said.clear()
    names = write_damaged(tmp_path / 'dog')
    (tmp_path / 'dog/1.HEIC').write_bytes(HEIC)
    (tmp_path / 'dog/up').symlink_to('..')
    data = read_data(str(tmp_path))
    assert data.items == sound.items
    # What was computed without the damaged files is still of use.
    assert data.fingerprint == sound.fingerprint
    reasons = {Path(path).name: reason for path, reason in data.left_out}
    assert reasons.keys() == {*names, '1.HEIC', 'up'}
    assert reasons['phone.jpg'].startswith('is a HEIC image')
    assert reasons['empty.jpg'].startswith('is empty')
    assert reasons['float.tif'].startswith('cannot be decoded')
    assert reasons['1.HEIC'] == 'with another ending'
    write_left_out(data, tmp_path / 'left_out.csv')
    assert f'{len(reasons)} file(s) are not used' in said[-1]
    assert len((tmp_path / 'left_out.csv').read_text().splitlines()) == 1 + len(reasons)


def test_luck_does_not_decide_what_damage_means(tmp_path):
    write_folder(tmp_path, _=dict(cat=10, dog=10))
    write_damaged(tmp_path / 'dog')
    for seed in range(10):
        data = read_data(str(tmp_path), seed=seed)
        sizes = {split: len(own) for split, own in data.splits.items()}
        assert sizes == dict(train=12, val=4, test=4)


@pytest.mark.parametrize('seed', range(5))
def test_a_limit_counts_sound_pictures(seed, tmp_path):
    write_folder(tmp_path, _=dict(cat=30, dog=30))
    sound = read_data(str(tmp_path), seed=seed, limit=10)
    for number in range(10):
        (tmp_path / f'dog/{number}.png').write_bytes(b'')
    data = read_data(str(tmp_path), seed=seed, limit=10)
    assert np.bincount(data.labels).tolist() == [5, 5]
    # The other class is drawn as before.
    assert data.items[:5] == sound.items[:5]


@pytest.mark.parametrize('splits', [('_',), ('train', 'test')])
def test_a_class_that_vanishes_is_named(splits, tmp_path):
    layout = {split: dict(cat=6, dog=6) for split in splits}
    root = write_folder(tmp_path, **layout)
    part = splits[-1].strip('_')
    for number in range(3):
        heic = root / part / f'bird/{number}.heic'
        heic.parent.mkdir(exist_ok=True)
        heic.touch()
    where = f'{part}/bird'.strip('/')
    match = rf'classes without a picture that can be read: {where}'
    with pytest.raises(UserError, match=match):
        read_data(str(root))


def test_a_class_of_damaged_pictures_is_named(tmp_path):
    write_folder(tmp_path, _=dict(cat=6, dog=6))
    (tmp_path / 'bird').mkdir()
    write_damaged(tmp_path / 'bird')
    with pytest.raises(UserError, match='all pictures of a class are damaged: bird'):
        read_data(str(tmp_path))


def test_damage_in_a_users_own_test_is_refused_with_all_names(tmp_path, said):
    two = dict(cat=8, dog=8)
    write_folder(tmp_path, train=two, test=two)
    write_damaged(tmp_path / 'train/dog')
    data = read_data(str(tmp_path))
    assert data.drawn == {'val'} and len(data.left_out) == 6
    names = write_damaged(tmp_path / 'test/cat')
    with pytest.raises(UserError, match=r'6 damaged picture\(s\) in val or test') as e:
        read_data(str(tmp_path))
    assert all(f'test/cat/{name}' in str(e.value) for name in names)


def test_a_picture_under_two_labels_is_named_with_both_paths(tmp_path, said):
    write_folder(tmp_path, _=dict(cat=10, dog=10))
    fingerprint = read_data(str(tmp_path)).fingerprint
    assert not said
    (tmp_path / 'dog/copy.png').write_bytes((tmp_path / 'cat/3.png').read_bytes())
    data = read_data(str(tmp_path))
    assert data.fingerprint != fingerprint
    cat, dog = tmp_path / 'cat/3.png', tmp_path / 'dog/copy.png'
    assert f'1 picture(s) have several labels: {cat} (cat) = {dog} (dog).' in said[-1]
    split_of = {}
    for split, own in data.splits.items():
        split_of.update(dict.fromkeys(own.tolist(), split))
    assert split_of[data.items.index(cat)] == split_of[data.items.index(dog)]


def test_equal_pictures_in_a_users_own_splits_are_named(tmp_path, said):
    two = dict(cat=8, dog=8)
    write_folder(tmp_path, train=two, test=two)
    source, copy = tmp_path / 'train/cat/3.png', tmp_path / 'test/cat/copy.png'
    copy.write_bytes(source.read_bytes())
    read_data(str(tmp_path))
    assert said[-1].endswith(f'too high: {copy} (test) = {source} (train).')


@pytest.mark.parametrize('ending', ['jpg', 'png', 'webp', 'bmp'])
def test_a_file_that_was_cut_anywhere_is_damaged(ending, tmp_path):
    path = tmp_path / f'x.{ending}'
    Image.fromarray(noise(40, 50, 3)).save(path)
    assert find_damage_in_file(str(path)) is None
    data = path.read_bytes()
    for length in rng.integers(len(data), size=20).tolist():
        path.write_bytes(data[:length])
        assert find_damage_in_file(str(path)) is not None
        with pytest.raises(UserError):
            read_picture(path)


def test_changed_bytes_of_a_png_are_found_without_decoding(tmp_path):
    path = tmp_path / 'x.png'
    Image.fromarray(noise(40, 50, 3)).save(path)
    data = path.read_bytes()
    for place in rng.integers(40, len(data) - 12, size=10).tolist():
        changed = bytearray(data)
        changed[place] ^= 1
        path.write_bytes(changed)
        assert find_damage_in_file(str(path)) is not None


def test_damage_that_only_decoding_finds_passes_here(tmp_path):
    path = tmp_path / 'x.jpg'
    Image.fromarray(noise(40, 50, 3)).save(path)
    break_tables(path)
    assert find_damage_in_file(str(path)) is None
    with pytest.raises(UserError, match='cannot be decoded'):
        read_picture(path)


def test_a_class_whose_name_is_no_text_is_named(tmp_path):
    for name in (b'a\xff', b'b'):
        folder = os.fsencode(tmp_path) + b'/' + name
        os.mkdir(folder)
        Image.new('RGB', (8, 8)).save(Path(os.fsdecode(folder), 'x.png'))
    with pytest.raises(UserError, match=r"the class 'a\\udcff' is not named in UTF-8"):
        read_data(str(tmp_path))
