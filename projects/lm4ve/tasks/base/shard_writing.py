"""Writes the shards that :mod:`lm4ve.tasks.base.shards` reads, by webdataset's own writer.

A shard is written, read back and compared, and only then gets its name; a killed run goes on
with the first shard that is missing.
"""

import hashlib
import json
import tarfile
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lm4ve.errors import UserError, listing
from lm4ve.files import replacing, write_json, write_text
from lm4ve.tasks.base.integrity import SkippedFiles
from lm4ve.tasks.base.preparing import alone, in_processes
from lm4ve.tasks.base.shards import VERSION, index_path, read_index

_BLOCK = 1 << 22


class Entry(NamedTuple):
    """A file that becomes a sample.

    Attributes:
        path (str): Where it is.
        name (str): What it is called in messages from then on.
        label (int or list[int]): Its class, or its classes.
    """

    path: str
    name: str
    label: Any


def write_shards(
    entries: Sequence[Entry],
    folder: str | Path,
    split: str,
    per_shard: int,
    find_defect: Callable[[str], str | None],
    seed: int | None = None,
    on_corrupt: str = 'skip',
    workers: int = 1,
    quiet: bool = False,
) -> dict[str, Any]:
    """Write the shards of a split and their index, unless they are there already.

    Args:
        entries (Sequence[Entry]): The samples.
        folder (str | Path): Where to.
        split (str): What names of shards begin with.
        per_shard (int): Samples of a shard.
        find_defect (callable): Says what is wrong with a file, or None; picklable.
        seed (int, optional): Of the order in which samples are put into shards; default: as
            they come.
        on_corrupt (str): 'skip' leaves corrupt files out and counts them; 'refuse' stops.
        workers (int): Processes; each writes a shard.
        quiet (bool): Show no progress bar.

    Returns:
        dict: The index, see :func:`lm4ve.tasks.base.shards.read_index`.

    Raises:
        UserError: webdataset is missing; another run writes there; shards of other samples
            are there; with 'refuse', the first corrupt file; nothing is left.
    """
    _tar_writer()
    folder = Path(folder)
    order = np.arange(len(entries))
    if seed is not None:
        np.random.default_rng(seed).shuffle(order)
    source = _source(entries, per_shard, seed)
    jobs = []
    for number, start in enumerate(range(0, len(entries), per_shard)):
        chosen = [entries[i] for i in order[start : start + per_shard]]
        jobs.append((folder / f'{split}-{number:06d}.tar', start, chosen))
    index = index_path(folder, split)
    with alone(index) as lock:
        _claim(folder, split, source)
        todo = [job for job in jobs if _done(job[0], source) is None]
        work = partial(_write_shard, find_defect, on_corrupt, source)
        for _ in in_processes(work, todo, f'writing shards of {split}', lock, workers, quiet):
            pass
        notes = [_done(path, source) or {} for path, _, _ in jobs]
        skipped = SkippedFiles(on_corrupt)
        for note in notes:
            skipped.merge(note['skipped'], note['examples'])
        shards = [{k: n[k] for k in ('name', 'bytes', 'sha256')} for n in notes]
        for shard, note in zip(shards, notes, strict=True):
            shard['samples'] = len(note['samples'])
        total = sum(s['samples'] for s in shards)
        if not total:
            raise UserError(f"'{index}': none of {len(entries)} files is whole. Fix: fetch them.")
        skipped.warn('write shards', len(entries))
        write_json(dict(version=VERSION, samples=total, source=source, shards=shards), index)
    return read_index(index)


def verify_shards(index: str | Path) -> int:
    """Read all shards of an index and compare their hashes.

    Returns:
        int: How many shards there are.

    Raises:
        UserError: Shards are missing or have other contents.
    """
    content, wrong = read_index(index), []
    for shard in content['shards']:
        path = Path(index).parent / shard['name']
        try:
            if _hash(path) != shard['sha256']:
                wrong.append(f"'{path.name}' has another SHA-256")
        except OSError as e:
            wrong.append(f"'{path.name}': {e.strerror}")
    if wrong:
        raise UserError(
            f"'{index}': {len(wrong)} of {len(content['shards'])} shards are not as they were "
            f'written: {listing(wrong)}. Fix: write or copy them again.'
        )
    return len(content['shards'])


def _tar_writer() -> Any:
    try:
        from webdataset import TarWriter
    except ImportError as e:
        raise UserError(
            f'Shards are written by webdataset, which cannot be imported ({e}). Fix: pip install '
            '"lm4ve[shards]".'
        ) from e
    return TarWriter


def _source(entries: Sequence[Entry], per_shard: int, seed: int | None) -> str:
    """Return a hash of what goes in: names, labels and their order."""
    digest = hashlib.sha256(f'{VERSION} {per_shard} {seed}'.encode())
    for e in entries:
        digest.update(json.dumps([e.name, e.label]).encode())
    return digest.hexdigest()


def _claim(folder: Path, split: str, source: str) -> None:
    """Refuse a folder with shards of the split that are made of other samples."""
    note = folder / f'{split}.source'
    if note.is_file() and note.read_text(encoding='utf-8') != source:
        raise UserError(
            f"'{folder}' has shards of '{split}' that were made of other files, or with another "
            'seed or number a shard. Fix: remove them, or name another folder.'
        )
    write_text(source, note)


def _done(path: Path, source: str) -> dict[str, Any] | None:
    """Return what the list beside a shard says, if both are there and belong together."""
    try:
        note = json.loads(path.with_suffix('.json').read_bytes())
        whole = note['source'] == source and note['bytes'] == path.stat().st_size
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return note if whole else None


def _write_shard(
    find_defect: Callable[[str], str | None],
    on_corrupt: str,
    source: str,
    job: tuple[Path, int, Sequence[Entry]],
) -> None:
    path, start, entries = job
    skipped, kept, sums = SkippedFiles(on_corrupt), [], []
    with replacing(path) as beside:
        # An open file, not a name: webdataset would run what follows 'pipe:' in one. No encoder:
        # its own would pickle what it does not know.
        with (
            open(beside, 'wb') as file,
            _tar_writer()(file, encoder=False, compress=False, mtime=0, user='', group='') as tar,
        ):
            for number, entry in enumerate(entries, start):
                if defect := find_defect(entry.path):
                    skipped.add('corrupt', UserError(f"'{entry.path}' {defect}."))
                    continue
                data = Path(entry.path).read_bytes()
                labels = entry.label if isinstance(entry.label, list) else [entry.label]
                ending = Path(entry.name).suffix.lstrip('.').lower()
                classes = ' '.join(map(str, labels)).encode()
                tar.write({'__key__': f'{number:09d}', ending: data, 'cls': classes})
                kept.append(entry)
                sums.append(zlib.crc32(data))
        places = _read_back(beside, sums)
        rows = [[e.name, *place, e.label] for e, place in zip(kept, places, strict=True)]
        note = dict(
            name=path.name,
            bytes=beside.stat().st_size,
            sha256=_hash(beside),
            source=source,
            skipped=skipped.counts,
            examples=skipped.examples,
            samples=rows,
        )
    with replacing(path.with_suffix('.json')) as beside:
        beside.write_text(json.dumps(note), encoding='utf-8')


def _read_back(path: Path, sums: Sequence[int]) -> list[tuple[int, int]]:
    """Return offset and size of each sample, after comparing what was written."""
    places, found = [], []
    with tarfile.open(path, 'r:') as tar:
        for member in tar:
            if not member.name.endswith('.cls'):
                file = tar.extractfile(member)
                found.append(zlib.crc32(file.read()) if file else None)
                places.append((member.offset_data, member.size))
    if found != list(sums):
        raise UserError(
            f"'{path}' does not hold what was written into it. Fix: check the disk, and run the "
            'command again.'
        )
    return places


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
