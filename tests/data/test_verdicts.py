"""Files are read again if they, or what looks at them, have changed, and only then."""

import os

import pytest

from lm4ve.data.verdicts import KnownFiles, WholeFiles, stamp_of, stamps_of
from lm4ve.files import cache_folder


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setenv('LM4VE_CACHE', str(tmp_path / 'cache'))
    paths = []
    for i in range(3):
        path = tmp_path / f'{i}.txt'
        path.write_text('whole')
        paths.append(str(path))
    return paths


def remember(paths, check='test 1'):
    WholeFiles(check).add({path: stamp_of(path) for path in paths})


def test_only_what_was_added_is_remembered(files):
    remember(files[:2])
    stamps = stamps_of(files)
    assert WholeFiles('test 1').unchanged(stamps) == set(files[:2])
    assert WholeFiles('test 2').unchanged(stamps) == set()


def test_more_files_than_fit_one_question_are_remembered(files):
    stamps = {f'/data/{i}': (1, i) for i in range(1200)}
    WholeFiles('test').add(stamps)
    others = {'/data/none': (1, 2), '/data/gone': None}
    assert WholeFiles('test').unchanged(stamps | others) == set(stamps)


@pytest.mark.parametrize('change', ['content', 'time', 'removed'])
def test_a_changed_file_is_not_known(change, files):
    remember(files)
    if change == 'content':
        with open(files[0], 'a') as file:
            file.write(' or not')
    elif change == 'time':
        os.utime(files[0], ns=(0, 1))
    else:
        os.unlink(files[0])
    known = KnownFiles(files, WholeFiles('test 1'))
    assert [path in known for path in files] == [False, True, True]


@pytest.mark.parametrize('damage', [b'', b'no data base' * 100])
def test_a_damaged_memory_remembers_nothing(damage, files):
    remember(files)
    (cache_folder() / 'whole_files.sqlite').write_bytes(damage)
    assert WholeFiles('test 1').unchanged(stamps_of(files)) == set()
    remember(files)


def test_a_memory_that_cannot_be_written_is_no_error(files, tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('LM4VE_CACHE', str(tmp_path / 'file'))
    remember(files)
    assert WholeFiles('test 1').unchanged(stamps_of(files)) == set()


def test_names_that_are_no_unicode_are_read_again(files):
    name = os.fsdecode(b'/data/caf\xe9.png')
    WholeFiles('test').add({name: (1, 2)})
    assert WholeFiles('test').unchanged({name: (1, 2)}) == set()


def test_what_is_found_whole_is_remembered_after_the_exchange(files):
    known = KnownFiles(files, WholeFiles('test 1'))
    known.add(files[1])
    assert files[1] in known
    known.exchange()
    later = KnownFiles(files, WholeFiles('test 1'))
    assert [path in later for path in files] == [False, True, False]
