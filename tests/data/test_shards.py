"""Shards return the files written into them, in any order, and report damage."""

import json
import pickle
from pathlib import Path

import pytest
from mmengine import fileio

from lm4ve.data.shard_writing import Entry, verify_shards, write_shards
from lm4ve.data.shards import read_samples
from lm4ve.errors import UserError
from tests.helpers.hostile import Payload

webdataset = pytest.importorskip('webdataset')


def defect(path: str) -> str | None:
    return None if Path(path).read_bytes() else 'is empty (0 bytes)'


@pytest.fixture
def entries(tmp_path):
    """Seven files of different sizes, one with a name that addresses have to escape."""
    found = []
    for i in range(7):
        name = f'n0{i % 2}/é ? {i}%20:x.jpg' if i == 3 else f'n0{i % 2}/{i}.jpg'
        path = tmp_path / 'files' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([i]) * (300 * i + 1))
        found.append(Entry(str(path), name, i % 2))
    return found


@pytest.fixture
def write(tmp_path, entries):
    def run(**options):
        shards = write_shards(
            entries, tmp_path / 'shards', 'train', 3, defect, **options
        )
        return shards, tmp_path / 'shards/train.index.json'

    return run


def test_samples_are_written_in_a_seeded_order(write, entries):
    shards, path = write(seed=1, workers=2)
    assert [len(shard['samples']) for shard in shards] == [3, 3, 1]
    samples = [(fileio.get(address), label) for address, label in read_samples(path)]
    expected = contents_of(entries)
    assert sorted(samples) == sorted(expected)
    assert samples != expected
    assert verify_shards(path) == 3


def contents_of(entries):
    """Return the bytes and the label of each entry."""
    return [(Path(entry.path).read_bytes(), entry.label) for entry in entries]


def test_webdataset_reads_the_same_samples(write, entries):
    shards, path = write()
    files = [str(path.with_name(shard['name'])) for shard in shards]
    stream = webdataset.WebDataset(files, shardshuffle=False)
    samples = [(sample['jpg'], int(sample['cls'])) for sample in stream]
    assert samples == contents_of(entries)


def test_killed_run_continues_with_the_missing_shard(write):
    shards, path = write(seed=0)
    first_shard = path.with_name('train-000000.tar')
    written_at = first_shard.stat().st_mtime_ns
    # As a kill leaves it: one shard has no list yet.
    path.with_name('train-000001.json').unlink()
    again, _ = write(seed=0)
    assert again == shards
    assert first_shard.stat().st_mtime_ns == written_at


def test_shards_of_another_order_are_written_anew(write):
    shards, path = write(seed=0)
    others, _ = write(seed=5)
    assert others != shards
    assert verify_shards(path) == 3


def test_corrupt_files_are_skipped_or_refused(write, entries):
    Path(entries[2].path).write_bytes(b'')
    with pytest.raises(UserError, match=r"2.jpg' is empty"):
        write(on_corrupt='refuse')
    shards, _ = write()
    assert len(shards[0]['samples']) == 2


@pytest.mark.parametrize('how', ['missing', 'cut'])
def test_damaged_shard_is_refused(write, how):
    _, path = write()
    shard = path.with_name('train-000001.tar')
    content = shard.read_bytes()
    shard.unlink()
    if how == 'cut':
        shard.write_bytes(content[:-600])
    with pytest.raises(
        UserError, match='1 of 3 shards are missing or cut: train-000001.tar'
    ):
        read_samples(path)


@pytest.mark.parametrize('label', [-1, -100, '1', 1.0, None, [0, -1]])
def test_labels_of_no_class_are_refused(write, label):
    shards, path = write()
    shards[0]['samples'][0][3] = label
    path.write_text(json.dumps(dict(shards=shards)))
    with pytest.raises(UserError, match='labels that are no class'):
        read_samples(path)


def test_changed_shard_is_detected_when_read(write):
    shards, path = write()
    shard = path.with_name('train-000001.tar')
    data = bytearray(shard.read_bytes())
    offset = shards[1]['samples'][1][1]
    data[offset - 512 : offset] = bytes(512)
    shard.write_bytes(data)
    with pytest.raises(OSError, match='no file of this size'):
        fileio.get(read_samples(path)[4][0])
    with pytest.raises(
        UserError, match='1 shards have another SHA-256: train-000001.tar'
    ):
        verify_shards(path)


def test_index_leads_to_no_other_folder_and_no_pickle(write, tmp_path):
    shards, path = write()
    shards[0]['name'] = '../train-000000.tar'
    path.write_text(json.dumps(dict(shards=shards)))
    with pytest.raises(ValueError, match='Invalid name'):
        read_samples(path)
    path.write_bytes(pickle.dumps(Payload(tmp_path / 'trapped')))
    with pytest.raises(ValueError):
        read_samples(path)
    assert not (tmp_path / 'trapped').exists()
