"""Shards return the files written into them, in any order, and report damage."""

import json
import pickle
import tarfile
from pathlib import Path

import pytest
from mmengine import fileio

from lm4ve.errors import UserError
from lm4ve.tasks.base.shards import parse_address, read_samples
from tools.dataset_converters.shards import Entry, verify_shards, write_shards

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
        index = write_shards(entries, tmp_path / 'shards', 'train', 3, defect, **options)
        return index, str(tmp_path / 'shards/train.index.json')

    return run


def test_samples_are_written_in_a_seeded_order(write, entries):
    index, path = write(seed=1, workers=2, quiet=True)
    assert [s['samples'] for s in index['shards']] == [3, 3, 1]
    samples = read_samples(path, ['.jpg'], 'refuse')
    found = [(fileio.get(address), label) for address, label in reversed(samples)][::-1]
    wanted = [(Path(e.path).read_bytes(), e.label) for e in entries]
    assert sorted(found) == sorted(wanted) and found != wanted
    assert verify_shards(path) == 3


def test_webdataset_reads_the_same_samples(write, entries):
    index, path = write(quiet=True)
    names = [str(Path(path).parent / s['name']) for s in index['shards']]
    stream = webdataset.WebDataset(names, shardshuffle=False)
    found = [(s['jpg'], int(s['cls'])) for s in stream]
    assert found == [(Path(e.path).read_bytes(), e.label) for e in entries]


def test_killed_run_continues_with_the_missing_shard(write, tmp_path, entries):
    first, _ = write(seed=0, quiet=True)
    folder = tmp_path / 'shards'
    kept, gone = folder / 'train-000000.tar', folder / 'train-000001'
    before = kept.stat().st_mtime_ns
    # As a kill leaves it: one shard has no list yet, and there is no index.
    gone.with_suffix('.json').unlink()
    (folder / 'train.index.json').unlink()
    assert write(seed=0, quiet=True)[0] == first
    assert kept.stat().st_mtime_ns == before
    with pytest.raises(UserError, match='are of other samples'):
        write(seed=5, quiet=True)


def test_corrupt_files_are_skipped_or_refused(write, entries):
    Path(entries[2].path).write_bytes(b'')
    with pytest.raises(UserError, match=r"2.jpg' is empty"):
        write(on_corrupt='refuse', quiet=True)
    assert write(quiet=True)[0]['samples'] == 6


def damage(folder: Path, how: str) -> None:
    """Damage the second shard or its list."""
    shard = folder / 'train-000001.tar'
    if how in ('missing', 'no list'):
        (shard if how == 'missing' else shard.with_suffix('.json')).unlink()
        return
    if how == 'cut':
        shard.write_bytes(shard.read_bytes()[:-600])
        return
    note = json.loads(shard.with_suffix('.json').read_text())
    column, value = {'pickled': (0, 'a.pyd'), 'outside': (1, 10**9), 'label': (3, 'n01')}[how]
    note['samples'][0][column] = value
    shard.with_suffix('.json').write_text(json.dumps(note))


@pytest.mark.parametrize('how', ['missing', 'no list', 'cut', 'pickled', 'outside', 'label'])
def test_damaged_shard_is_skipped_or_refused(write, how, monkeypatch):
    _, path = write(quiet=True)
    damage(Path(path).parent, how)
    with pytest.raises(UserError, match="1 of 3 shards cannot be used.*'train-000001.tar'"):
        read_samples(path, ['.jpg'], 'refuse')
    lines = []
    monkeypatch.setattr('lm4ve.tasks.base.shards.print_log', lambda text, **_: lines.append(text))
    assert len(read_samples(path, ['.jpg'], 'skip')) == 4
    assert '4 of 7 samples remain' in lines[0]
    # Another process may have the shard, and would wait for this one at the end of the epoch.
    monkeypatch.setattr('lm4ve.tasks.base.shards.get_world_size', lambda: 2)
    with pytest.raises(UserError, match='cannot be used'):
        read_samples(path, ['.jpg'], 'skip')


def test_changed_shard_is_detected_when_read(write):
    _, path = write(quiet=True)
    shard, offset, size = parse_address(read_samples(path, ['.jpg'], 'refuse')[4][0])
    data = bytearray(Path(shard).read_bytes())
    data[offset - 512 : offset] = bytes(512)
    Path(shard).write_bytes(data)
    with pytest.raises(OSError, match='no file of this size'):
        fileio.get(read_samples(path, ['.jpg'], 'refuse')[4][0])
    with pytest.raises(UserError, match='1 shards have another SHA-256: train-000001.tar'):
        verify_shards(path)


def test_no_part_of_a_shard_is_unpickled(write, tmp_path):
    """Neither a pickle in the tar file nor one in the place of the lists."""

    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / 'trapped',)

    _, path = write(quiet=True)
    folder = Path(path).parent
    (folder / 'trap.pyd').write_bytes(pickle.dumps(Trap()))
    with tarfile.open(folder / 'train-000000.tar', 'a:') as tar:
        tar.add(folder / 'trap.pyd', 'trap.pyd')
    (folder / 'train-000001.json').write_bytes(pickle.dumps(Trap()))
    assert len(read_samples(path, ['.jpg'], 'skip')) == 4  # of two shards
    Path(path).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UserError, match='is no index'):
        read_samples(path, ['.jpg'], 'skip')
    assert not (tmp_path / 'trapped').exists()
