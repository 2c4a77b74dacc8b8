"""A damaged file of any kind is read, or refused with a message; a long run: tools/dev/fuzz.py."""

import importlib
import random
import sys

import numpy as np
import pytest
import torch

from tests.helpers.tasks import ROOT


@pytest.fixture(scope='module')
def fuzz():
    sys.path.insert(0, str(ROOT / 'tools/dev'))
    try:
        import fuzz

        # Readers run in forks of this process, which would import their data sets each anew.
        for name in FORKED:
            importlib.import_module(f'lm4ve.tasks.{name}')
        yield fuzz
    finally:
        sys.path.remove(str(ROOT / 'tools/dev'))


FORKED = (
    *('motion.demo.traffic_files', 'motion.models.regions', 'motion.datasets.cache'),
    *('motion.datasets.argoverse1', 'motion.datasets.argoverse2', 'video.datasets.list_conversion'),
    *('vision_language.datasets.retrieval', 'vision_language.datasets.visual_genome'),
    *('vision_language.datasets.vqa', 'vision_language.sqa3d.datasets.sqa3d'),
)
READERS = (
    *('safetensors', 'torch', 'hf-config', 'weight-index', 'checkpoint', 'gguf'),
    *('meta', 'meta-weights', 'meta-weights-part'),
    *('ply', 'ply-binary', 'off', 'obj', 'stl', 'stl-binary', 'pcd', 'pcd-binary'),
    *('npy', 'xyz', 'txt', 'h5', 'points-cache', 'shape-list'),
    *('argoverse1-csv', 'argoverse1-map', 'argoverse1-boxes', 'argoverse1-lanes'),
    *('argoverse2-parquet', 'argoverse2-map', 'motion-cache', 'regions'),
    *('image-jpg', 'image-png', 'image-webp', 'image-bmp', 'image-mask'),
    *('image-tree', 'image-list'),
    *('video-mp4-decord', 'video-mp4-pyav', 'video-webm-decord', 'video-avi-pyav'),
    *('video-list', 'video-list-videomae', 'video-list-ssv2'),
    *('video-json-ssv2', 'video-labels-ssv2'),
    *('vqa-questions', 'vqa-annotations', 'vqa-csv', 'vqa-jsonl', 'visual-genome'),
    *('karpathy', 'captions-csv', 'captions-jsonl', 'vocabulary'),
    *('scannet-mesh', 'scannet-segments', 'scannet-objects', 'scannet-alignment'),
    'scannet-labels',
    *('sqa3d-list', 'sqa3d-questions', 'sqa3d-annotations', 'answer-counter'),
    *('scene-points', 'scene-labels', 'scene-boxes', 'scene-alignment'),
    *('objects-npy', 'objects-npz', 'word-vectors-npz', 'word-vectors-txt', 'mean-sizes'),
)


def test_every_reader_is_fuzzed(fuzz):
    assert set(READERS) == set(fuzz.fuzz_readers.READERS)


@pytest.mark.parametrize('name', READERS)
def test_damaged_files_end_in_no_traceback_crash_or_hang(name, fuzz):
    found = fuzz.fuzz(name, mutations=20, seed=3)
    assert len(found) == 20
    assert not [f for f in found if f[2] not in fuzz.GOOD]


def test_crashes_tracebacks_and_hangs_are_counted(fuzz, monkeypatch, tmp_path):
    import faulthandler
    import os
    import signal
    import time

    def make(folder):
        path = folder / 'file'
        path.write_bytes(bytes(64))

        def read():
            data = path.read_bytes()
            if data == bytes(64):  # the whole file
                return 0
            number = len(list(tmp_path.iterdir()))
            (tmp_path / str(number)).touch()  # outlives the process
            if number == 0:
                faulthandler.disable()  # whose report would look like one of the tests'
                os.kill(os.getpid(), signal.SIGSEGV)
            if number == 1:
                raise LookupError('a bug')
            if number == 2:
                time.sleep(9)
            return data

        return path, read

    monkeypatch.setitem(fuzz.fuzz_readers.READERS, 'toy', make)
    monkeypatch.setattr(fuzz, 'PATIENCE', 1)
    monkeypatch.setattr(fuzz, 'mutate', lambda data, rng: ('flip', bytes([1]) + data[1:]))
    outcomes = [outcome for _, _, outcome, _ in fuzz.fuzz('toy', 4, 0)]
    assert outcomes == ['crash', 'traceback', 'hang', 'other']


def test_a_seed_gives_the_same_mutations(fuzz):
    data = bytes(range(200))
    once, again = ([fuzz.mutate(data, random.Random(i)) for i in range(50)] for _ in range(2))
    assert once == again and len({kind for kind, _ in once}) == 6


@pytest.mark.parametrize(
    'kept, counts, outcome',
    [(b'a 1\nb', True, 'cut'), (b'a 1\n', True, 'record'), (b'a 1\n', False, 'cut')],
    ids=['within a line', 'at its end', 'in a format with a count'],
)
def test_what_is_left_of_a_file_must_not_pass_for_whole(kept, counts, outcome, fuzz, monkeypatch):
    def make(folder):
        path = folder / 'file'
        path.write_bytes(b'a 1\nb 2\nc 3\n')
        return path, path.read_bytes

    monkeypatch.setitem(fuzz.fuzz_readers.READERS, 'toy', make)
    if counts:
        monkeypatch.setitem(fuzz.fuzz_readers.LINES_WITHOUT_COUNT, 'toy', 'no count')
    monkeypatch.setattr(fuzz, 'mutate', lambda data, rng: ('cut', kept))
    assert [f[2] for f in fuzz.fuzz('toy', 1, 0)] == [outcome]


def test_the_same_content_and_other_content_are_told_apart(fuzz):
    array = np.arange(3.0)
    whole = fuzz.digest([dict(a=array, b=torch.ones(2)), 'name'])
    assert whole == fuzz.digest([dict(a=array.copy(), b=torch.ones(2)), 'name'])
    for other in (array.astype(np.float32), array[:2], array + [0, 0, 1]):
        assert whole != fuzz.digest([dict(a=other, b=torch.ones(2)), 'name'])
