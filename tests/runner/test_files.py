"""Result files are whole or as they were; nothing is left beside them."""

import errno
import json
import os

import pytest

from lm4ve.errors import UserError
from lm4ve.files import replacing, write_atomically, write_json


def names(folder) -> list:
    return sorted(p.name for p in folder.iterdir())


def test_writing_is_atomic(tmp_path, monkeypatch):
    path = tmp_path / 'file'
    write_atomically(b'old', path)

    def broken(*args):
        raise OSError(errno.EIO, 'Input/output error')

    monkeypatch.setattr(os, 'replace', broken)
    with pytest.raises(UserError, match='file.*Input/output error'):
        write_atomically(b'new', path)
    assert path.read_bytes() == b'old'
    assert names(tmp_path) == ['file']


def test_temporary_path_keeps_suffix(tmp_path):
    path = tmp_path / 'new' / 'picture.png'
    with replacing(path) as beside:
        assert beside.parent == path.parent and beside.suffix == '.png'
        beside.write_text('drawn')
        assert not path.exists()
    assert path.read_text() == 'drawn'
    assert names(path.parent) == ['picture.png']


def test_failed_writer_leaves_old_file(tmp_path):
    path = tmp_path / 'a.json'
    write_json([1], path)
    with pytest.raises(KeyError), replacing(path) as beside:
        beside.write_text('half')
        raise KeyError
    assert json.loads(path.read_text()) == [1]
    assert names(tmp_path) == ['a.json']


def test_two_writers_never_share_a_temporary_name(tmp_path):
    with replacing(tmp_path / 'a') as one, replacing(tmp_path / 'a') as two:
        assert one != two
        one.touch()
        two.touch()
