"""Folders of pictures: each real file once, nothing hidden, nothing dropped without a word."""

import os
from pathlib import Path

import numpy as np
import pytest

from lm4ve.data.folder_listing import by_folder, list_files


def is_wanted(path):
    return path.endswith('.png')


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b'x')
    return path


def grow(root, outside, rng):
    """Make random folders with pictures, other files and links to anything."""
    folders = [root, outside]
    for number in range(30):
        parent = folders[rng.integers(len(folders))]
        name = f'{"." if rng.random() < 0.2 else ""}{number}'
        kind = rng.integers(4)
        if kind == 0:
            folder = parent / name
            folder.mkdir()
            folders.append(folder)
        elif kind == 1:
            write(parent / f'{name}{rng.choice([".png", ".gif", ""])}')
        else:
            known = [*folders, *outside.rglob('*'), *root.rglob('*'), root / 'nowhere']
            ending = rng.choice(['', '.png'])
            (parent / f'{name}{ending}').symlink_to(known[rng.integers(len(known))])


def is_visible(path, root):
    return not any(part.startswith('.') for part in path.relative_to(root).parts)


@pytest.mark.parametrize('seed', range(40))
def test_each_real_file_is_read_once(seed, tmp_path):
    root = tmp_path / 'data/root'
    outside = tmp_path / 'other'
    root.mkdir(parents=True)
    outside.mkdir()
    grow(root, outside, np.random.default_rng(seed))
    found = list_files(root, is_wanted)
    listed = [root / name for name in found.files]
    real = [path.resolve() for path in listed if path.exists()]
    assert len(set(real)) == len(real)
    assert all(is_visible(path, root) for path in listed)
    left_out = set()
    for names in found.left_out.values():
        left_out.update(root / name for name in names)
    # Whatever stands in the root under its own name is read, or named, under that name.
    for path in own_files(root):
        if is_wanted(path.name):
            assert path in listed
        else:
            assert path in left_out


def own_files(root):
    """Return the visible files below a folder that are no links."""
    paths = []
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            if not path.is_symlink() and is_visible(path, root):
                paths.append(path)
    return paths


def test_links_back_and_up_add_nothing(tmp_path):
    root = tmp_path / 'data'
    write(tmp_path / 'secret/0.png')
    for name in ('a/0.png', 'b/1.png'):
        write(root / name)
    (root / 'c').symlink_to(root)
    (root / 'a/up').symlink_to('..')
    (root / 'a/above').symlink_to(tmp_path)
    (root / 'b/again.png').symlink_to('1.png')
    found = list_files(root, is_wanted)
    assert found.files == ['a/0.png', 'b/1.png'] and found.folders == {'a', 'b'}
    assert found.describe_left_out() == (
        '4 links to what is read already, or to a folder above (a/above, a/up, b/again.png '
        'and 1 more)'
    )


def test_links_out_of_the_folder_are_followed_and_dead_ones_kept(tmp_path):
    root = tmp_path / 'data'
    write(tmp_path / 'pool/x/0.png')
    (root / 'b').mkdir(parents=True)
    (root / 'a').symlink_to(tmp_path / 'pool/x')
    (root / 'b/1.png').symlink_to('gone.png')
    os.mkfifo(root / 'b/2.png')
    write(root / '3.png')
    found = list_files(root, is_wanted)
    # The policy for damaged files names the last two.
    assert by_folder(found) == {'a': ['a/0.png'], 'b': ['b/1.png', 'b/2.png']}
    assert '1 outside of the folders of classes (3.png)' in found.describe_left_out()
