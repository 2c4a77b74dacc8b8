"""Shards hold what was put into them, are read in any order, and say what is wrong with them."""

import json
import pickle
import tarfile
from pathlib import Path

import pytest
from mmengine import fileio

from lm4ve.errors import UserError
from lm4ve.tasks.base.shard_writing import Entry, verify_shards, write_shards
from lm4ve.tasks.base.shards import parse_address, read_samples

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


def test_samples_come_back_whole_in_an_order_of_the_seed(write, entries):
    index, path = write(seed=1, workers=2, quiet=True)
    assert [s['samples'] for s in index['shards']] == [3, 3, 1]
    samples = read_samples(path, ['.jpg'], 'refuse')
    found = [(fileio.get(s.address), s.label) for s in reversed(samples)][::-1]
    wanted = [(Path(e.path).read_bytes(), e.label) for e in entries]
    assert sorted(found) == sorted(wanted) and found != wanted
    assert verify_shards(path) == 3


def test_webdataset_reads_the_same_samples(write, entries):
    index, path = write(quiet=True)
    names = [str(Path(path).parent / s['name']) for s in index['shards']]
    stream = webdataset.WebDataset(names, shardshuffle=False)
    found = [(s['jpg'], int(s['cls'])) for s in stream]
    assert found == [(Path(e.path).read_bytes(), e.label) for e in entries]


def test_a_killed_run_goes_on_and_other_files_are_refused(write, tmp_path, entries):
    first, _ = write(seed=0, quiet=True)
    folder = tmp_path / 'shards'
    kept, gone = folder / 'train-000000.tar', folder / 'train-000001'
    before = kept.stat().st_mtime_ns
    # As a kill leaves it: one shard has no list yet, and there is no index.
    gone.with_suffix('.json').unlink()
    (folder / 'train.index.json').unlink()
    assert write(seed=0, quiet=True)[0] == first
    assert kept.stat().st_mtime_ns == before
    with pytest.raises(UserError, match='made of other files, or with another seed'):
        write(seed=5, quiet=True)


def test_corrupt_files_are_left_out_and_counted_or_refused(write, entries):
    Path(entries[2].path).write_bytes(b'')
    with pytest.raises(UserError, match=r"2.jpg' is empty"):
        write(on_corrupt='refuse', quiet=True)
    assert write(quiet=True)[0]['samples'] == 6


def damage(folder: Path, how: str) -> str:
    """Damage the second shard; return what is said of it."""
    shard = folder / 'train-000001.tar'
    if how == 'missing':
        shard.unlink()
        return 'does not exist'
    if how == 'no list':
        shard.with_suffix('.json').unlink()
        return "lacks 'train-000001.json'"
    if how == 'cut':
        shard.write_bytes(shard.read_bytes()[:-600])
        return 'bytes, expected'
    note = json.loads(shard.with_suffix('.json').read_text())
    row = note['samples'][0]
    if how == 'pickled':
        row[0] = 'a.pyd'
    elif how == 'outside':
        row[1] = 10**9
    else:
        row[3] = 'n01'
    shard.with_suffix('.json').write_text(json.dumps(note))
    return 'only files ending in .jpg' if how == 'pickled' else 'damaged entry'


@pytest.mark.parametrize('how', ['missing', 'no list', 'cut', 'pickled', 'outside', 'label'])
def test_a_damaged_shard_follows_the_policy_in_one_message(write, how, monkeypatch):
    _, path = write(quiet=True)
    said = damage(Path(path).parent, how)
    with pytest.raises(UserError, match='1 of 3 shards cannot be used') as e:
        read_samples(path, ['.jpg'], 'refuse')
    assert "'train-000001.tar' " in str(e.value) and said in str(e.value)
    lines = []
    monkeypatch.setattr('lm4ve.tasks.base.shards.print_log', lambda text, **_: lines.append(text))
    assert len(read_samples(path, ['.jpg'], 'skip')) == 4
    (line,) = lines
    assert '4 of 7 samples remain' in line and said in line
    # Another process may have the shard, and would wait for this one at the end of the epoch.
    monkeypatch.setattr('lm4ve.tasks.base.shards.get_world_size', lambda: 2)
    with pytest.raises(UserError, match='all must have the same samples'):
        read_samples(path, ['.jpg'], 'skip')


def test_an_exchanged_shard_is_noticed_when_it_is_read(write):
    _, path = write(quiet=True)
    shard, offset, size = parse_address(read_samples(path, ['.jpg'], 'refuse')[4].address)
    data = bytearray(Path(shard).read_bytes())
    data[offset - 512 : offset] = bytes(512)
    Path(shard).write_bytes(data)
    with pytest.raises(OSError, match='no file of this size'):
        fileio.get(read_samples(path, ['.jpg'], 'refuse')[4].address)
    with pytest.raises(UserError, match="1 of 3 .* 'train-000001.tar' has another SHA-256"):
        verify_shards(path)


def test_nothing_in_a_shard_is_unpickled_or_run(write, tmp_path):
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
    with pytest.raises(UserError, match='is no index of shards'):
        read_samples(path, ['.jpg'], 'skip')
    assert not (tmp_path / 'trapped').exists()


@pytest.mark.parametrize(
    'index, message',
    [
        ('https://host/train.index.json', 'from local files, not from'),
        ('pipe:touch trapped.index.json', 'does not exist'),
        ('none.index.json', "'none.index.json' does not exist"),
    ],
)
def test_an_index_is_a_local_file(index, message):
    with pytest.raises(UserError, match=message):
        read_samples(index, ['.jpg'], 'skip')
