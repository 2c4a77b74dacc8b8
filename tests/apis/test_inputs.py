"""Files that are named, and those that folders and patterns stand for."""

from pathlib import Path

import numpy as np
import pytest

from lm4ve.errors import UserError
from lm4ve.tasks import get_task
from lm4ve.tasks.base.inputs import find_inputs
from tests.helpers.logs import record_logs


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The current folder, with two pictures and a damaged one in ``d``."""
    (tmp_path / 'd/deep').mkdir(parents=True)
    for name in ('a.png', 'deep/b.png'):
        (tmp_path / 'd' / name).write_text('whole')
    (tmp_path / 'd/bad.jpg').write_text('')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read_all(*inputs) -> list[str]:
    """Return the sources that can be read, as text."""
    found = find_inputs(inputs, get_task('image'))

    def read(source):
        if isinstance(source, Path) and not source.read_text():
            raise UserError(f"'{source}' is empty.")
        return str(source)

    return [content for _, content in found.read_each(read)]


@pytest.mark.parametrize(
    'inputs',
    [
        ['d/bad.jpg', 'd'],
        ['d', 'd/bad.jpg'],
        ['d/*', './d/../d/bad.jpg'],
        ['d', 'link.jpg'],
        ['d/bad.jpg', '{root}/d'],
    ],
    ids=str,
)
def test_a_damaged_file_that_is_named_is_an_error_also_in_a_folder(inputs, folder):
    (folder / 'link.jpg').symlink_to('d/bad.jpg')
    inputs = [item.format(root=folder) for item in inputs]
    with pytest.raises(UserError, match='is empty'):
        read_all(*inputs)


@pytest.mark.parametrize(
    'inputs, expected',
    [
        (['d', 'd'], ['d/a.png', 'd/deep/b.png']),
        (['d/*.png', 'd'], ['d/a.png', 'd/deep/b.png']),
        (['d/deep', 'd/**/*'], ['d/deep/b.png', 'd/a.png']),
        (['d/**/*.png', 'd/../d'], ['d/a.png', 'd/deep/b.png']),
        (['d', 'd/deep/b.png'], ['d/a.png', 'd/deep/b.png']),
        (['d/deep/b.png', 'd'], ['d/deep/b.png', 'd/a.png']),
        # Who names a file twice asks for two results.
        (['d/a.png', 'd/a.png'], ['d/a.png', 'd/a.png']),
    ],
    ids=str,
)
def test_overlapping_folders_and_patterns_give_each_file_once(inputs, expected, folder):
    assert read_all(*inputs) == expected


def test_damaged_files_are_counted_once(folder, monkeypatch):
    warnings = record_logs(monkeypatch, 'lm4ve.tasks.base.inputs')
    array = np.zeros((2, 2, 3), np.uint8)
    assert len(read_all('d', 'd/*', array)) == 3
    (warning,) = warnings
    assert warning.startswith("Skipped: 1 of 4 files cannot be read: 'd/bad.jpg'")
    for inputs in (['d/*.jpg'], ['d/*.jpg', 'd/b*']):
        with pytest.raises(UserError, match='1 of 1 files cannot be read'):
            read_all(*inputs)


@pytest.mark.parametrize(
    'pattern, words',
    [
        ('d/de*', 'stands for folders only: d/deep. Fix: name a folder'),
        ('d/x*', "'d/x.*' does not exist"),
        ('*.txt', 'stands for no file for the config, .*: 1 .txt .notes.txt.'),
    ],
)
def test_a_pattern_without_inputs_says_what_it_stands_for(pattern, words, folder):
    (folder / 'notes.txt').touch()
    with pytest.raises(UserError, match=words):
        read_all(pattern)
