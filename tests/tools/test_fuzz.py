"""Damaged files of every format are read or refused; a long run: tools/dev/fuzz.py."""

import os
import signal
import time

import pytest

from tests.helpers.tasks import ROOT

for package in (
    'gguf',
    'h5py',
    'mmaction',
    'mmpretrain',
    'pandas',
    'plyfile',
    'pypcd4',
):
    pytest.importorskip(package)


@pytest.fixture(scope='module')
def fuzz():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / 'tools/dev'))
        import fuzz

        yield fuzz


def test_damaged_files_are_read_or_refused(fuzz):
    found = {name: fuzz.fuzz(name, 8, seed=3) for name in fuzz.fuzz_readers.READERS}
    bad = {
        (name, *f)
        for name, results in found.items()
        for f in results
        if f[1] in fuzz.BAD
    }
    assert not bad
    assert all(len(results) == 8 for results in found.values()) and len(found) >= 30


def refuse(data):
    raise LookupError


ACTS = [
    (lambda _: os.kill(os.getpid(), signal.SIGKILL), 'crash'),
    (lambda _: time.sleep(9), 'hang'),
    (refuse, 'refused'),
    (lambda data: data, 'other'),
]


@pytest.mark.parametrize(
    'act, outcome', ACTS, ids=['crash', 'hang', 'refused', 'other']
)
def test_crashes_and_hangs_are_counted(act, outcome, fuzz, monkeypatch):
    def make(name):
        path = fuzz.fuzz_readers.HERE / name
        path.write_bytes(bytes(64))
        return path, lambda: act(data) if any(data := path.read_bytes()) else 0

    monkeypatch.setitem(fuzz.fuzz_readers.READERS, 'toy', make)
    monkeypatch.setattr(fuzz, 'PATIENCE', 1)
    monkeypatch.setattr(fuzz, 'mutate', lambda data, rng: ('flip', bytes([1]) * 64))
    assert [found for _, found in fuzz.fuzz('toy', 1, 0)] == [outcome]
