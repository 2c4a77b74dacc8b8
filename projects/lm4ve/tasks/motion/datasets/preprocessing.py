"""From a split's files to its cache: in parallel, resumable, with corrupt files counted.

Files are read in chunks; each finished chunk is a small cache of its own in a
folder beside, so that a killed run goes on where it stopped. At the end the chunks
become one file.
"""

import hashlib
import json
import shutil
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

from mmengine.logging import print_log

from lm4ve.errors import UserError
from lm4ve.files import clear_left_behind, write_text
from lm4ve.tasks.base.integrity import SkippedFiles, check_policy
from lm4ve.tasks.base.parallel_map import exclusive, parallel_map
from lm4ve.tasks.motion.datasets.cache import SceneCache, pack, write_cache
from lm4ve.tasks.motion.scene import SceneError


def preprocess_split(
    reader,
    path: str | Path,
    workers: int = 1,
    on_corrupt: str = 'skip',
    chunk_size: int = 256,
    quiet: bool = False,
) -> dict:
    """Write the cache of a split, unless it is there already.

    Args:
        reader: With ``files()`` and ``read(path) -> Scene``:
            :class:`lm4ve.tasks.motion.Argoverse1Reader` or
            :class:`lm4ve.tasks.motion.Argoverse2Reader`.
        path (str | Path): The cache to write. ``<path>.parts`` holds what is done so
            far.
        workers (int): Processes.
        on_corrupt (str): 'skip' leaves out files that cannot become a scene and
            counts them by kind; 'refuse' raises at the first.
        chunk_size (int): Files between two savings.
        quiet (bool): Show no progress bar.

    Returns:
        dict: The cache's footer: ``count``, ``sha256``, ``skipped`` (kind ->
        count), ``examples`` (messages) and ``source`` (a hash of the files' names and
        sizes).

    Raises:
        UserError: Another run works on ``path``; a cache of other files is there; no
            file is usable; with 'refuse', the first corrupt file.
    """
    check_policy(on_corrupt, 'on_corrupt')
    path = Path(path)
    files = reader.files()
    source = _source(reader, files)
    parts = path.with_name(f'{path.name}.parts')
    chunks = [
        (parts / f'{number:06d}', files[start : start + chunk_size])
        for number, start in enumerate(range(0, len(files), chunk_size))
    ]
    with exclusive(path):
        if path.is_file():
            footer = _finished(path, source)
        else:
            _claim(parts, f'{source} {chunk_size}')
            _read_all(partial(_read_chunk, reader, on_corrupt), chunks, path, workers, quiet)
            footer = _join(path, [part for part, _ in chunks], len(files), source)
        shutil.rmtree(parts, ignore_errors=True)
    return footer


def _read_all(
    work: Callable, chunks: list, path: Path, workers: int, quiet: bool
) -> None:
    todo = [chunk for chunk in chunks if not _is_done(chunk[0])]
    if len(todo) < len(chunks):
        print_log(
            f'preprocess: going on after {len(chunks) - len(todo)} of {len(chunks)} chunks',
            logger='current',
        )
    text = f'preprocessing {path.name}, in chunks'
    for _ in parallel_map(work, todo, text, workers, quiet):
        pass


def preprocess(*args, **kwargs) -> dict:
    """Call :func:`preprocess_split`, of which this is the deprecated name."""
    warnings.warn(
        'preprocess is deprecated. Use preprocess_split instead.', DeprecationWarning, stacklevel=2
    )
    return preprocess_split(*args, **kwargs)


def _source(reader, files: list) -> str:
    """A hash of what goes in: names and sizes of the files, the reader's range."""
    digest = hashlib.sha256(f'{type(reader).__name__} {reader.map_range}'.encode())
    for f in files:
        digest.update(f'{f.name} {f.stat().st_size}\n'.encode())
    return digest.hexdigest()


def _finished(path: Path, source: str) -> dict:
    footer = SceneCache(path).footer
    if footer.get('source') != source:
        raise UserError(
            f"'{path}' is the cache of other files, or of another map_range, "
            'than those given. Fix: remove it, or name another output.'
        )
    return footer


def _claim(parts: Path, what: str) -> None:
    """Empty the folder of parts if they are of another run (other files, other chunks)."""
    note = parts / 'source'
    if parts.is_dir() and not (note.is_file() and note.read_bytes() == what.encode()):
        shutil.rmtree(parts)
    parts.mkdir(parents=True, exist_ok=True)
    clear_left_behind(parts)
    write_text(what, note)


def _is_done(part: Path) -> bool:
    try:
        SceneCache(part, verify=True)
        return True
    except UserError:
        return False


def _read_chunk(reader, on_corrupt: str, chunk: tuple[Path, list]) -> None:
    part, files = chunk
    records, skipped = [], SkippedFiles(on_corrupt)
    for f in files:
        try:
            records.append(pack(reader.read(f)))
        except SceneError as e:
            skipped.add(e.kind, e)
    write_cache(part, records, skipped=skipped.counts, examples=skipped.examples)


def _join(path: Path, parts: list[Path], files: int, source: str) -> dict:
    caches, skipped = [SceneCache(part) for part in parts], SkippedFiles()
    for c in caches:
        skipped.merge(c.footer['skipped'], c.footer['examples'])
    count = sum(map(len, caches))
    if count == 0:
        raise UserError(
            f'None of the {files} files is usable; {json.dumps(skipped.counts)}. '
            f'The first: {skipped.examples[0]}'
        )
    assert count + skipped.counts.total() == files
    records = (c.record(i) for c in caches for i in range(len(c)))
    footer = write_cache(
        path, records, skipped=skipped.counts, examples=skipped.examples, source=source
    )
    skipped.warn('preprocess', files)
    return footer
