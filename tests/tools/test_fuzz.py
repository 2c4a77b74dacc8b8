"""A damaged file of any kind is read, or refused with a message; a long run: tools/dev/fuzz.py."""

import random
import sys

import pytest

from tests.helpers.tasks import ROOT


@pytest.fixture(scope='module')
def fuzz():
    sys.path.insert(0, str(ROOT / 'tools/dev'))
    try:
        import fuzz

        yield fuzz
    finally:
        sys.path.remove(str(ROOT / 'tools/dev'))


READERS = (
    *('safetensors', 'torch', 'hf-config', 'meta'),
    *('ply', 'off', 'obj', 'pcd', 'npy', 'xyz', 'h5'),
    *('argoverse1-csv', 'argoverse1-map', 'argoverse1-boxes', 'argoverse1-lanes'),
    *('argoverse2-parquet', 'argoverse2-map', 'video-list', 'image'),
    *('vqa-questions', 'vqa-annotations', 'vqa-csv', 'vqa-jsonl', 'visual-genome'),
    *('karpathy', 'captions-csv', 'captions-jsonl', 'vocabulary'),
)


def test_every_reader_is_fuzzed(fuzz):
    assert set(READERS) == set(fuzz.fuzz_readers.READERS)


@pytest.mark.parametrize('name', READERS)
def test_damaged_files_end_in_no_traceback_crash_or_hang(name, fuzz):
    found = fuzz.fuzz(name, mutations=20, seed=3)
    assert len(found) == 20
    assert not [f for f in found if f[2] not in ('accepted', 'refused')]


def test_crashes_tracebacks_and_hangs_are_counted(fuzz, monkeypatch, tmp_path):
    import os
    import signal
    import time

    def make(folder):
        path = folder / 'file'
        path.write_bytes(bytes(64))

        def read():
            data = path.read_bytes()
            if data == bytes(64):  # the whole file
                return
            number = len(list(tmp_path.iterdir()))
            (tmp_path / str(number)).touch()  # outlives the process
            if number == 0:
                os.kill(os.getpid(), signal.SIGSEGV)
            if number == 1:
                raise LookupError('a bug')
            if number == 2:
                time.sleep(9)

        return path, read

    monkeypatch.setitem(fuzz.fuzz_readers.READERS, 'toy', make)
    monkeypatch.setattr(fuzz, 'PATIENCE', 1)
    monkeypatch.setattr(fuzz, 'mutate', lambda data, rng: ('flip', bytes([1]) + data[1:]))
    outcomes = [outcome for _, _, outcome, _ in fuzz.fuzz('toy', 4, 0)]
    assert outcomes == ['crash', 'traceback', 'hang', 'accepted']


def test_a_seed_gives_the_same_mutations(fuzz):
    data = bytes(range(200))
    once, again = ([fuzz.mutate(data, random.Random(i)) for i in range(50)] for _ in range(2))
    assert once == again and len({kind for kind, _ in once}) == 6
