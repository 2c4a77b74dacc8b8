"""Writes the shards that :mod:`lm4ve.tasks.base.shards` reads.

A shard gets its name when it is whole; a killed run continues with the first shard that is
missing. WebDataset reads the same files.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lm4ve.errors import UserError, listing
from lm4ve.files import replacing, write_json, write_text
from lm4ve.tasks.base.integrity import SkippedFiles
from lm4ve.tasks.base.parallel_map import exclusive, parallel_map
from lm4ve.tasks.base.shards import HEADER, VERSION, index_path, read_index


class Entry(NamedTuple):
    """A file that becomes a sample.

    Attributes:
        path (str): The file.
        name (str): Its name in messages from then on.
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
    """Write the shards of a split and their index; shards that exist are kept.

    Args:
        entries (Sequence[Entry]): The samples.
        folder (str | Path): The output folder.
        split (str): The prefix of the shards' names.
        per_shard (int): Samples of a shard.
        find_defect (callable): Returns what is wrong with a file, or None; picklable.
        seed (int, optional): Shuffles the samples. Default: their order is kept.
        on_corrupt (str): 'skip' leaves corrupt files out and counts them; 'refuse' stops.
        workers (int): Processes; each writes a shard.
        quiet (bool): Hide the progress bar.

    Returns:
        dict: The index, see :func:`lm4ve.tasks.base.shards.read_index`.

    Raises:
        UserError: Another run writes there; the folder has an index of other samples; with
            'refuse', a file is corrupt.
    """
    order = np.arange(len(entries))
    if seed is not None:
        np.random.default_rng(seed).shuffle(order)
    digest = hashlib.sha256(f'{VERSION} {per_shard} {seed}'.encode())
    for e in entries:
        digest.update(json.dumps([e.name, e.label]).encode())
    source, jobs = digest.hexdigest(), []
    for number, start in enumerate(range(0, len(entries), per_shard)):
        chosen = [entries[i] for i in order[start : start + per_shard]]
        jobs.append((Path(folder, f'{split}-{number:06d}.tar'), start, chosen))
    index, skipped = index_path(folder, split), SkippedFiles(on_corrupt)
    with exclusive(index):
        if index.is_file() and read_index(index)['source'] != source:
            raise UserError(f"'{index}' lists other samples. Fix: remove it, or another folder.")
        write = partial(_write_shard, find_defect, on_corrupt, source)
        done = parallel_map(write, jobs, f'writing shards of {split}', workers, quiet)
        shards = []
        for note in sorted(done, key=lambda note: note['name']):
            skipped.merge(note['skipped'], note['examples'])
            shards.append({k: note[k] for k in ('name', 'bytes', 'sha256')})
            shards[-1]['samples'] = len(note['samples'])
        skipped.warn('write shards', len(entries))
        total = sum(shard['samples'] for shard in shards)
        write_json(dict(version=VERSION, samples=total, source=source, shards=shards), index)
    return read_index(index)


def verify_shards(index: str | Path) -> int:
    """Read all shards of an index, compare their hashes, and return how many there are.

    Raises:
        UserError: A shard has another content.
    """
    shards = read_index(index)['shards']
    wrong = [s['name'] for s in shards if _hash(Path(index).with_name(s['name'])) != s['sha256']]
    if wrong:
        raise UserError(f"'{index}': {len(wrong)} shards have another SHA-256: {listing(wrong)}.")
    return len(shards)


def _write_shard(
    find_defect: Callable[[str], str | None],
    on_corrupt: str,
    source: str,
    job: tuple[Path, int, Sequence[Entry]],
) -> dict[str, Any]:
    """Write a shard and its list, unless both exist; return the list."""
    path, start, entries = job
    note_path = path.with_suffix('.json')
    if path.is_file() and note_path.is_file():
        note: dict[str, Any] = json.loads(note_path.read_bytes())
        if note['source'] == source and note['bytes'] == path.stat().st_size:
            return note
    skipped, rows = SkippedFiles(on_corrupt), []
    with replacing(path) as beside:
        with tarfile.open(beside, 'w') as tar:
            for number, entry in enumerate(entries, start):
                if defect := find_defect(entry.path):
                    skipped.add('corrupt', UserError(f"'{entry.path}' {defect}."))
                    continue
                data = Path(entry.path).read_bytes()
                labels = entry.label if isinstance(entry.label, list) else [entry.label]
                _add(tar, f'{number:09d}.cls', ' '.join(map(str, labels)).encode())
                offset = tar.offset + HEADER
                _add(tar, f'{number:09d}{Path(entry.name).suffix.lower()}', data)
                rows.append([entry.name, offset, len(data), entry.label])
        note = dict(
            name=path.name,
            bytes=beside.stat().st_size,
            sha256=_hash(beside),
            source=source,
            skipped=skipped.counts,
            examples=skipped.examples,
            samples=rows,
        )
    write_text(json.dumps(note), note_path)
    return note


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o444
    tar.addfile(info, io.BytesIO(data))


def _hash(path: Path) -> str:
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
