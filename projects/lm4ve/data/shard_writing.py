"""Writes the shards that :mod:`lm4ve.data.shards` reads, and compares them with their hashes."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from lm4ve.data.integrity import SkippedFiles
from lm4ve.data.shards import HEADER
from lm4ve.errors import UserError, listing
from lm4ve.files import clear_left_behind, replacing, sole_use, write_text


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
) -> list[dict[str, Any]]:
    """Write the shards of a split and their index; shards that exist are kept.

    Args:
        entries (Sequence[Entry]): The samples.
        folder (str | Path): The output folder.
        split (str): The prefix of the shards' names.
        per_shard (int): Samples of a shard.
        find_defect (callable): Returns what is wrong with a file, or None.
        seed (int, optional): Shuffles the samples. Default: their order is kept.
        on_corrupt (str): 'skip' leaves corrupt files out and counts them; 'refuse'
            stops.
        workers (int): Threads; each writes a shard.

    Returns:
        list[dict]: ``shards`` of the index: ``name``, ``bytes``, ``sha256`` and
        ``samples`` (rows of name, offset, size and label) of each.

    Raises:
        UserError: Another run writes there; with 'refuse', a file is corrupt.
    """
    order: Sequence[int] = range(len(entries))
    if seed is not None:
        order = np.random.default_rng(seed).permutation(len(entries)).tolist()
    paths: list[Path] = []
    groups = []
    for start in range(0, len(entries), per_shard):
        paths.append(Path(folder, f'{split}-{len(paths):06d}.tar'))
        groups.append([entries[i] for i in order[start : start + per_shard]])
    index = Path(folder, f'{split}.index.json')
    index.parent.mkdir(parents=True, exist_ok=True)
    skipped = SkippedFiles(on_corrupt)
    with sole_use(f'{index}.lock'), ThreadPoolExecutor(workers) as pool:
        clear_left_behind(folder)
        write = partial(_write_shard, find_defect, on_corrupt)
        written = pool.map(write, paths, groups)
        shards = list(
            tqdm(written, f'writing shards of {split}', len(paths), disable=None)
        )
        for shard in shards:
            skipped.merge(shard.pop('skipped'), shard.pop('examples'))
        skipped.warn('write shards', len(entries))
        left_out = dict(count=skipped.counts.total(), examples=skipped.examples)
        write_text(json.dumps(dict(shards=shards, left_out=left_out)), index)
    return shards


def _write_shard(
    find_defect: Callable[[str], str | None],
    on_corrupt: str,
    path: Path,
    entries: Sequence[Entry],
) -> dict[str, Any]:
    """Write a shard and its part of the index, unless both exist; return the part.

    Args:
        find_defect (Callable): Returns what is wrong with a file, or None.
        on_corrupt (str): 'skip' or 'refuse'.
        path (Path): The shard; its part of the index is beside it, ending in .json.
        entries (Sequence[Entry]): The samples.

    Returns:
        dict: The shard's entry in the index, with ``skipped`` and ``examples``, the counts
        of corrupt files and messages about them.
    """
    note = path.with_suffix('.json')
    # A killed run is continued if its samples are the same.
    samples = repr([(entry.name, entry.label) for entry in entries])
    source = hashlib.sha256(samples.encode()).hexdigest()
    if path.is_file() and note.is_file():
        known = json.loads(note.read_bytes())
        if known.pop('source', None) == source:
            return known

    skipped = SkippedFiles(on_corrupt)
    rows = []
    with replacing(path) as beside:
        with tarfile.open(beside, 'w') as tar:
            for number, entry in enumerate(entries):
                defect = find_defect(entry.path)
                if defect:
                    skipped.add('corrupt', UserError(f"'{entry.path}' {defect}."))
                else:
                    key = f'{path.stem}-{number:06d}'
                    start, size = _add_sample(tar, key, entry)
                    rows.append([entry.name, start, size, entry.label])
        part = dict(name=path.name, bytes=beside.stat().st_size, sha256=_hash(beside))
    part.update(samples=rows, skipped=skipped.counts, examples=skipped.examples)
    write_text(json.dumps(dict(part, source=source)), note)
    return part


def _add_sample(tar: tarfile.TarFile, key: str, entry: Entry) -> tuple[int, int]:
    """Add a label and a file to a shard; return where the file begins, and its bytes."""
    labels = entry.label
    if not isinstance(labels, list):
        labels = [labels]
    text = ' '.join(str(label) for label in labels)
    _add_file(tar, f'{key}.cls', text.encode())
    start = tar.offset + HEADER
    data = Path(entry.path).read_bytes()
    _add_file(tar, f'{key}{Path(entry.name).suffix.lower()}', data)
    return start, len(data)


def _add_file(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a read-only file to a shard, without time and owner: equal data, equal bytes."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    info.mode = 0o444
    tar.addfile(info, io.BytesIO(content))


def _hash(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def verify_shards(index: str | Path) -> int:
    """Read all shards of an index, compare their hashes, and return how many there are.

    Raises:
        UserError: A shard has another content.
    """
    shards = json.loads(Path(index).read_bytes())['shards']
    wrong = []
    for shard in shards:
        if _hash(Path(index).with_name(shard['name'])) != shard['sha256']:
            wrong.append(shard['name'])
    if wrong:
        raise UserError(
            f"'{index}': {len(wrong)} shards have another SHA-256: {listing(wrong)}."
        )
    return len(shards)
