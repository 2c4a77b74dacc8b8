"""Damaged files of every format are read or refused; a long run: tools/dev/fuzz.py."""

import os
import signal
import time

import pytest

from tests.helpers.tasks import ROOT

NEEDED = ('gguf', 'h5py', 'mmaction', 'mmpretrain', 'pandas', 'plyfile', 'pypcd4')
for package in NEEDED:
    pytest.importorskip(package)


@pytest.fixture(scope='module')
def fuzz():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / 'tools/dev'))
        import fuzz

        yield fuzz


def test_damaged_files_are_read_or_refused(fuzz):
    readers = fuzz.fuzz_readers.READERS
    assert len(readers) >= 30
    for name in readers:
        results = fuzz.fuzz(name, 8, seed=3)
        assert len(results) == 8
        bad = [result for result in results if result[1] in fuzz.BAD]
        assert not bad, name


def crash(data):
    os.kill(os.getpid(), signal.SIGKILL)


def hang(data):
    time.sleep(9)


def refuse(data):
    raise LookupError


def read_something_else(data):
    return data


OUTCOMES = {
    'crash': crash,
    'hang': hang,
    'refused': refuse,
    'other': read_something_else,
}


@pytest.mark.parametrize('outcome', OUTCOMES)
def test_crashes_and_hangs_are_counted(outcome, fuzz, monkeypatch):
    def make(name):
        path = fuzz.fuzz_readers.HERE / name
        path.write_bytes(bytes(64))

        def read():
            data = path.read_bytes()
            is_damaged = any(data)
            if is_damaged:
                return OUTCOMES[outcome](data)
            return 0

        return path, read

    monkeypatch.setitem(fuzz.fuzz_readers.READERS, 'toy', make)
    monkeypatch.setattr(fuzz, 'PATIENCE', 1)
    monkeypatch.setattr(fuzz, 'mutate', lambda data, rng: ('flip', bytes([1]) * 64))
    ((_, found),) = fuzz.fuzz('toy', 1, 0)
    assert found == outcome
