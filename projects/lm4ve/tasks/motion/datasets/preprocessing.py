"""From a split's files to its cache: in parallel, resumable, with bad files counted.

Files are read in chunks; each finished chunk is a small cache of its own in a
folder beside, so that a killed run goes on where it stopped. At the end the chunks
become one file.
"""

import hashlib
import json
import multiprocessing
import shutil
from collections import Counter
from functools import partial
from pathlib import Path

from mmengine.logging import print_log
from rich.progress import track

from lm4ve.errors import UserError
from lm4ve.tasks.motion.datasets.cache import SceneCache, pack, write_cache
from lm4ve.tasks.motion.scene import SceneError

#: Bad files that are named in the footer and the log.
NAMED = 10


def preprocess(
    reader,
    path: str | Path,
    workers: int = 1,
    on_bad: str = 'skip',
    chunk_size: int = 256,
    quiet: bool = False,
) -> dict:
    """Write the cache of a split, unless it is there already.

    Args:
        reader: With ``files()`` and ``read(path) -> Scene``:
            :class:`lm4ve.tasks.motion.Argoverse1Reader` or
            :class:`lm4ve.tasks.motion.Argoverse2Reader`.
        path (str | Path): Of the cache. ``<path>.parts`` holds what is done so
            far.
        workers (int): Processes.
        on_bad (str): 'skip' leaves bad files out and counts them by kind;
            'refuse' raises at the first.
        chunk_size (int): Files between two savings.
        quiet (bool): No progress bar.

    Returns:
        dict: The cache's footer: ``count``, ``sha256``, ``skipped`` (kind ->
        count), ``examples`` (messages) and ``source`` (of the files).

    Raises:
        UserError: A cache of other files is at ``path``; no file is usable; with
            'refuse', the first bad file.
    """
    if on_bad not in ('skip', 'refuse'):
        raise UserError(f"on_bad='{on_bad}' must be 'skip' or 'refuse'.")
    path = Path(path)
    files = reader.files()
    source = _source(reader, files)
    if path.is_file():
        return _finished(path, source)
    parts = path.with_name(f'{path.name}.parts')
    parts.mkdir(parents=True, exist_ok=True)
    _claim(parts, f'{source} {chunk_size}')
    chunks = [
        (i, files[start : start + chunk_size])
        for i, start in enumerate(range(0, len(files), chunk_size))
    ]
    todo = [c for c in chunks if not _is_done(parts, c[0])]
    if len(todo) < len(chunks):
        print_log(
            f'preprocess: going on after {len(chunks) - len(todo)} of {len(chunks)} chunks',
            logger='current',
        )
    work = partial(_read_chunk, reader, parts, on_bad)
    if workers > 1:
        # Forked where that exists: a spawned process takes longer to import all
        # of this than it reads a chunk.
        methods = multiprocessing.get_all_start_methods()
        method = 'fork' if 'fork' in methods else 'spawn'
        with multiprocessing.get_context(method).Pool(workers) as pool:
            _follow(pool.imap_unordered(work, todo), len(todo), path, quiet)
    else:
        _follow(map(work, todo), len(todo), path, quiet)
    footer = _join(path, parts, len(chunks), len(files), source)
    shutil.rmtree(parts)
    return footer


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
    """Parts of another run (other files, other chunks) are of no use."""
    note = parts / 'source'
    if note.is_file() and note.read_text() != what:
        shutil.rmtree(parts)
        parts.mkdir()
    note.write_text(what)


def _part(parts: Path, index: int) -> Path:
    return parts / f'{index:06d}'


def _is_done(parts: Path, index: int) -> bool:
    try:
        SceneCache(_part(parts, index), verify=True)
        return True
    except UserError:
        return False


def _follow(done, total: int, path: Path, quiet: bool) -> None:
    for _ in track(done, f'{path.name}', total=total, disable=quiet):
        pass


def _read_chunk(reader, parts: Path, on_bad: str, chunk: tuple) -> None:
    index, files = chunk
    records, skipped, examples = [], Counter(), []
    for f in files:
        try:
            records.append(pack(reader.read(f)))
        except SceneError as e:
            if on_bad == 'refuse':
                raise
            skipped[e.kind] += 1
            examples.append(str(e))
    write_cache(_part(parts, index), records, skipped=skipped, examples=examples[:NAMED])


def _join(path: Path, parts: Path, chunks: int, files: int, source: str) -> dict:
    caches = [SceneCache(_part(parts, i)) for i in range(chunks)]
    skipped: Counter = Counter()
    for c in caches:
        skipped.update(c.footer['skipped'])
    examples = [m for c in caches for m in c.footer['examples']][:NAMED]
    count = sum(map(len, caches))
    if count == 0:
        raise UserError(
            f'None of the {files} files is usable; {json.dumps(skipped)}. The first: {examples[0]}'
        )
    assert count + sum(skipped.values()) == files
    footer = write_cache(
        path,
        (c.record(i) for c in caches for i in range(len(c))),
        skipped=dict(skipped),
        examples=examples,
        source=source,
    )
    if skipped:
        print_log(
            f'preprocess: left out {sum(skipped.values())} of {files} files '
            f'({", ".join(f"{k}: {n}" for k, n in skipped.items())}); for '
            f'example: {examples[0]}',
            logger='current',
            level=30,
        )
    return footer
