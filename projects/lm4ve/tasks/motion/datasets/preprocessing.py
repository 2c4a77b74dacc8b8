"""From a split's files to its cache: in parallel, resumable, with corrupt files counted.

Files are read in chunks; each finished chunk is a small cache of its own in a
folder beside, so that a killed run goes on where it stopped. At the end the chunks
become one file.
"""

import hashlib
import shutil
from collections import deque
from pathlib import Path

from filelock import FileLock
from joblib import Parallel, delayed
from tqdm import tqdm

from lm4ve.errors import UserError
from lm4ve.tasks.base.integrity import SkippedFiles
from lm4ve.tasks.motion.datasets.argoverse import ArgoverseReader
from lm4ve.tasks.motion.datasets.cache import SceneCache, pack, write_cache
from lm4ve.tasks.motion.scene import SceneError


def preprocess_split(
    reader: ArgoverseReader,
    path: str | Path,
    workers: int = 1,
    on_corrupt: str = 'skip',
    chunk_size: int = 256,
) -> dict:
    """Write the cache of a split, unless it is there already.

    Args:
        reader (ArgoverseReader): :class:`lm4ve.tasks.motion.Argoverse1Reader` or
            :class:`lm4ve.tasks.motion.Argoverse2Reader`.
        path (str | Path): The cache to write. ``<path>.parts`` holds what is done so
            far.
        workers (int): Processes.
        on_corrupt (str): 'skip' leaves out files that cannot become a scene and
            counts them by kind; 'refuse' raises at the first.
        chunk_size (int): Files between two savings.

    Returns:
        dict: The cache's footer: ``count``, ``sha256``, ``skipped`` (kind ->
        count), ``examples`` (messages) and ``source`` (a hash of the files' names and
        sizes).

    Raises:
        UserError: A cache of other files is there; no file is usable; with 'refuse',
            the first corrupt file.
        filelock.Timeout: Another run works on ``path``.
    """
    path, files, skipped = Path(path), reader.files(), SkippedFiles(on_corrupt)
    source = _source(reader, files)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f'.{path.name}.lock'), blocking=False):
        if path.is_file():
            footer = SceneCache(path).footer
            if footer.get('source') != source:
                raise UserError(f"'{path}' is the cache of other files or another map_range.")
            return footer
        # Chunks of another run (other files, other sizes) are in another folder.
        parts = path.with_name(f'{path.name}.parts')
        done = parts / f'{source[:16]}-{chunk_size}'
        starts = range(0, len(files), chunk_size)
        chunks = {done / f'{i:08d}': files[i : i + chunk_size] for i in starts}
        todo = {part: chunk for part, chunk in chunks.items() if not part.is_file()}
        tasks = (delayed(_write_chunk)(reader, on_corrupt, *item) for item in todo.items())
        results = Parallel(workers, return_as='generator_unordered')(tasks)
        deque(
            tqdm(results, f'preprocessing {path.name}, in chunks', len(todo), disable=None),
            maxlen=0,
        )
        caches = [SceneCache(part) for part in chunks]
        for cache in caches:
            skipped.merge(cache.footer['skipped'], cache.footer['examples'])
        if not any(map(len, caches)):
            raise UserError(f'None of {len(files)} files is usable: {skipped.examples[0]}')
        records = (c.record(i) for c in caches for i in range(len(c)))
        notes = dict(skipped=skipped.counts, examples=skipped.examples, source=source)
        footer = write_cache(path, records, **notes)
        shutil.rmtree(parts)
        skipped.warn('preprocess', len(files))
        return footer


def _source(reader: ArgoverseReader, files: list[Path]) -> str:
    """Hash the names and sizes of the files, and the reader's range."""
    text = f'{type(reader).__name__} {reader.map_range}'
    text += ''.join(f'{f.name} {f.stat().st_size}\n' for f in files)
    return hashlib.sha256(text.encode()).hexdigest()


def _write_chunk(reader: ArgoverseReader, on_corrupt: str, part: Path, files: list[Path]) -> None:
    records, skipped = [], SkippedFiles(on_corrupt)
    for f in files:
        try:
            records.append(pack(reader.read(f)))
        except SceneError as e:
            skipped.add(e.kind, e)
    write_cache(part, records, skipped=skipped.counts, examples=skipped.examples)
