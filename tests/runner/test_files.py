"""Result files are whole or as they were; nothing is left beside them."""

import os

import pytest

from lm4ve.errors import UserError
from lm4ve.files import replacing, write_atomically


@pytest.mark.parametrize('error, raised', [(OSError(5, 'I/O'), UserError), (KeyError(), KeyError)])
def test_failed_writing_leaves_the_old_file(tmp_path, monkeypatch, error, raised):
    path = tmp_path / 'file'
    write_atomically(b'old', path)

    def broken(*args):
        raise error

    monkeypatch.setattr(os, 'replace', broken)
    with pytest.raises(raised):
        write_atomically(b'new', path)
    assert path.read_bytes() == b'old' and [*tmp_path.iterdir()] == [path]


def test_writers_have_temporary_names_of_their_own(tmp_path):
    path = tmp_path / 'new' / 'picture.png'
    with replacing(path) as one, replacing(path) as two:
        assert one != two and {one.parent, two.parent} == {path.parent}
        assert one.suffix == '.png' and not path.exists()
        one.write_text('first')
        two.write_text('second')
    assert path.read_text() == 'first' and [*path.parent.iterdir()] == [path]
