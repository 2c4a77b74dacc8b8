"""A split's scenes in one memory-mapped file, and the preprocessing that writes it.

Layout: magic, one record a scene, the index (int64 ``[N + 1]`` offsets of the
records), the footer (JSON: count, SHA-256 of all before the index, what was
skipped), the footer's length (int64), magic. A file that was not finished has no
magic at its end. Positions are stored as float32 relative to the scene's origin,
exact to about 1e-5 m.

Files are read in parallel and in chunks. Each finished chunk is a small cache of its
own in a folder beside, so that a killed run goes on where it stopped; at the end they
become one file.
"""

import hashlib
import json
import mmap
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from tqdm import tqdm

from lm4ve.data.integrity import IntegrityMixin, SkippedFiles
from lm4ve.data.ranks import once_a_machine
from lm4ve.errors import StorageError, UserError, brief
from lm4ve.files import naming_storage_errors, replacing, sole_use
from lm4ve.registry import DATASETS
from lm4ve.tasks.motion.datasets.argoverse import ArgoverseReader
from lm4ve.tasks.motion.structures import AgentMotion, Scene, SceneError

MAGIC = b'lm4veMC1'
#: Lengths and offsets are of this type.
_LONG = np.dtype('<i8')
#: Turns of a lane as scenes have them, by what records have: none, left, right.
_TURNS = np.array([0, -1, 1])
#: Fields of a scene that a record holds as JSON, beside its arrays.
_PLAIN = (
    'scene_id',
    'city',
    'track_ids',
    'focal',
    'history_steps',
    'map_range',
    'heading',
)
#: Fields of :class:`lm4ve.tasks.motion.structures.AgentMotion`.
_MOTION = ('headings', 'speeds', 'kinds')


def _record_type(head: dict) -> np.dtype:
    """Return the structured type of a record's arrays, with the sizes that its JSON gives."""
    agents = len(head['track_ids'])
    steps = head['steps']
    lanes = head['lanes']
    fields: list[tuple] = [
        ('positions', '<f4', (agents, steps, 2)),
        ('lanes', '<f4', (lanes, head['points'], 2)),
        ('valid', '?', (agents, steps)),
        ('unused', 'i1', (agents,)),
        ('turns', 'i1', (lanes,)),  # an index into _TURNS
        ('flags', '?', (2, lanes)),  # intersection, traffic control
    ]
    if head.get('detailed'):
        fields.append(('headings', '<f4', (agents, steps)))
        fields.append(('speeds', '<f4', (agents, steps)))
        fields.append(('kinds', 'i1', (agents,)))
    return np.dtype(fields)


def pack(scene: Scene) -> bytes:
    """Serialize a scene: length-prefixed JSON, then the arrays."""
    head = {name: getattr(scene, name) for name in _PLAIN}
    head['lanes'] = scene.lanes.shape[0]
    head['points'] = scene.lanes.shape[1]
    head['steps'] = scene.valid.shape[1]
    head['origin'] = scene.origin.tolist()
    if scene.motion is not None:
        head['detailed'] = True

    arrays = np.zeros((), _record_type(head))
    local = scene.positions - scene.origin
    arrays['positions'] = np.where(scene.valid[..., None], local, 0.0)
    arrays['lanes'] = scene.lanes - scene.origin
    arrays['valid'] = scene.valid
    arrays['turns'] = -scene.lane_attributes[:, 0] % 3  # 0, -1, 1 become 0, 1, 2
    arrays['flags'] = scene.lane_attributes[:, 1:].T
    if scene.motion is not None:
        for name in _MOTION:
            arrays[name] = getattr(scene.motion, name)

    text = json.dumps(head).encode()
    return _long(len(text)) + text + arrays.tobytes()


def unpack(record: bytes) -> Scene:
    """Restore a scene that :func:`pack` has serialized."""
    begin = _LONG.itemsize
    end = begin + _read_long(record, 0)
    head = json.loads(record[begin:end])
    (arrays,) = np.frombuffer(record, _record_type(head), count=1, offset=end)

    origin = np.array(head['origin'])
    valid = arrays['valid']
    positions = arrays['positions'].astype(np.float64) + origin
    intersection, control = arrays['flags']
    attributes = [_TURNS[arrays['turns']], intersection, control]
    motion = None
    if head.get('detailed'):
        motion = AgentMotion(**{name: arrays[name] for name in _MOTION})
    return Scene(
        **{name: head[name] for name in _PLAIN},
        positions=np.where(valid[..., None], positions, 0.0),
        valid=valid,
        lanes=arrays['lanes'] + origin,
        lane_attributes=np.stack(attributes, axis=-1).astype(np.float32),
        origin=origin,
        motion=motion,
    )


def _long(number: int) -> bytes:
    """Return a number as eight bytes."""
    return np.array(number, _LONG).tobytes()


def _read_long(data: bytes | mmap.mmap, offset: int) -> int:
    """Return the number in the eight bytes at an offset."""
    return int(np.frombuffer(data, _LONG, count=1, offset=offset)[0])


def write_cache(path: str | Path, records: Iterable[bytes], **footer) -> dict:
    """Write packed scenes beside ``path``, then rename: whole or not at all.

    Args:
        path (str | Path): The cache to write.
        records (Iterable[bytes]): Scenes that :func:`pack` has packed.
        **footer: More entries of the footer, plain data.

    Returns:
        dict: The footer.
    """
    digest = hashlib.sha256(MAGIC)
    offsets = [len(MAGIC)]
    with replacing(path) as beside, open(beside, 'wb') as f:
        f.write(MAGIC)
        for record in records:
            f.write(record)
            digest.update(record)
            offsets.append(offsets[-1] + len(record))
        footer = dict(footer, count=len(offsets) - 1, sha256=digest.hexdigest())
        text = json.dumps(footer).encode()
        f.write(np.array(offsets, _LONG).tobytes())
        f.write(text)
        f.write(_long(len(text)))
        f.write(MAGIC)
    return footer


class SceneCache:
    """Read access to a cache; a sequence of :class:`Scene`.

    The file is mapped, not read: workers share its pages, and a pickled copy
    opens it anew.

    Args:
        path (str | Path): The file.
        verify (bool): Also hash the whole file.

    Raises:
        UserError: The file is missing, was not finished, or is not what its footer
            describes.
        StorageError: Storage does not give it.
    """

    def __init__(self, path: str | Path, verify: bool = False) -> None:
        self.path = Path(path)
        try:
            with naming_storage_errors(path):
                self._open(verify)
        except StorageError:
            raise
        except Exception as e:  # whatever mmap, numpy and json make of such a file
            raise UserError(
                f"'{path}' cannot be used ({brief(e, 100)}). "
                'Fix: remove it, and write it anew with tools/motion/preprocess.py.'
            ) from e

    def _open(self, verify: bool) -> None:
        """Map the file; read its footer and index, which are found from its end."""
        with open(self.path, 'rb') as f:
            self._map = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        data = self._map
        # Where each part begins, from the last one on; see the head of this file.
        last_magic = len(data) - len(MAGIC)
        footer_length = last_magic - _LONG.itemsize
        footer = footer_length - _read_long(data, footer_length)
        self.footer = json.loads(data[footer:footer_length])
        num_offsets = len(self) + 1
        index = footer - _LONG.itemsize * num_offsets
        self._offsets = np.frombuffer(data, _LONG, num_offsets, index)

        has_magic = data[: len(MAGIC)] == MAGIC and data[last_magic:] == MAGIC
        fills_file = self._offsets[0] == len(MAGIC) and self._offsets[-1] == index
        rises = (np.diff(self._offsets) > 0).all()
        if not (has_magic and fills_file and rises):
            raise ValueError('it was not written to its end')
        if not verify:
            return
        digest = hashlib.sha256(memoryview(data)[:index]).hexdigest()
        if digest != self.footer['sha256']:
            raise ValueError('its content has another SHA-256 than its footer')

    def __len__(self) -> int:
        return self.footer['count']

    def record(self, i: int) -> bytes:
        """Return the packed scene ``i``."""
        return self._map[self._offsets[i] : self._offsets[i + 1]]

    def __getitem__(self, i: int) -> Scene:
        return unpack(self.record(range(len(self))[i]))

    def __reduce__(self):
        return type(self), (self.path,)


@DATASETS.register_module()
class MotionDataset(IntegrityMixin):
    """Scenes of a cache that ``tools/motion/preprocess.py`` has written.

    Args:
        cache (str): The file.
        pipeline (Sequence[dict]): Transforms of ``dict(scene=Scene)``.
        indices (int | Sequence[int], optional): The first so many scenes, or
            these.
        on_corrupt (str, optional): What becomes of the files that preprocessing could
            not make a scene of, and has left out: see :mod:`lm4ve.data.integrity`.
        verify (bool, optional): Whether the whole cache is hashed when it is opened.
            Default: True.
        **kwargs: Passed to MMEngine's ``BaseDataset``.

    Raises:
        UserError: See :class:`lm4ve.tasks.motion.datasets.cache.SceneCache`; files that
            were left out are refused.
        StorageError: Storage does not give the cache.
    """

    noun = 'scene'

    def __init__(
        self,
        cache: str,
        pipeline: Sequence = (),
        indices: int | Sequence[int] | None = None,
        **kwargs,
    ) -> None:
        self.cache = cache
        super().__init__(pipeline=list(pipeline), indices=indices, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Check and open the cache; return the row of each scene."""
        if self.verify is not False:
            once_a_machine(lambda: _hash_cache(self.cache))
        self.scenes = SceneCache(self.cache)
        skipped = sum(self.scenes.footer.get('skipped', {}).values())
        self.leave_out(
            'could not become a scene',
            self.scenes.footer.get('examples', ()),
            total=len(self.scenes) + skipped,
            count=skipped,
        )
        return [dict(row=row) for row in range(len(self.scenes))]

    def path_of(self, info: dict) -> str:
        """Return the cache, with the number of an entry's scene in it."""
        return f'{self.cache} (scene {info["row"]})'

    def path_at(self, idx: int) -> str:
        """Return the cache and the number of sample ``idx`` in it, without reading it."""
        return self.path_of(super().get_data_info(idx))

    def is_scanned(self) -> bool:
        """Return False: the cache was checked when it was opened."""
        return False

    def find_defect(self, path: str, decode: bool = False) -> str | None:
        """Return None: the cache was whole when it was opened."""
        return None

    def scene(self, i: int) -> Scene:
        """The :class:`lm4ve.tasks.motion.structures.Scene` ``i``."""
        return self.scenes[super().get_data_info(i)['row']]

    def get_data_info(self, idx: int) -> dict:
        """Return what the pipeline gets: the scene, and the number of the sample."""
        return dict(scene=self.scene(idx), sample_idx=idx)


def _hash_cache(path: str | Path) -> None:
    """Hash a cache.

    Raises:
        UserError: See :class:`SceneCache`.
    """
    SceneCache(path, verify=True)


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
        UserError: A cache of other files is there, or another run works on it; no file
            is usable; with 'refuse', the first corrupt file.
    """
    path = Path(path)
    files = reader.files()
    skipped = SkippedFiles(on_corrupt)
    source = _source(reader, files)
    path.parent.mkdir(parents=True, exist_ok=True)
    with sole_use(path.with_name(f'.{path.name}.lock')):
        if path.is_file():
            footer = SceneCache(path).footer
            if footer.get('source') != source:
                raise UserError(
                    f"'{path}' is the cache of other files or another map_range."
                )
            return footer
        parts = path.with_name(f'{path.name}.parts')
        # Chunks of another run (other files, other sizes) are in another folder.
        folder = parts / f'{source[:16]}-{chunk_size}'
        chunks = {}
        for start in range(0, len(files), chunk_size):
            chunks[folder / f'{start:08d}'] = files[start : start + chunk_size]
        _write_chunks(reader, chunks, workers, on_corrupt, path.name)
        footer = _join_chunks(path, list(chunks), skipped, source)
        skipped.warn('preprocess', len(files))
        shutil.rmtree(parts)
        return footer


def _write_chunks(
    reader: ArgoverseReader,
    chunks: dict[Path, list[Path]],
    workers: int,
    on_corrupt: str,
    name: str,
) -> None:
    """Write the small caches that are not there yet, in parallel.

    Args:
        reader (ArgoverseReader): Reads the files.
        chunks (dict[Path, list[Path]]): Small cache -> its files.
        workers (int): Processes.
        on_corrupt (str): See :func:`preprocess_split`.
        name (str): The cache's name, for the progress bar.
    """
    write = delayed(_write_chunk)
    tasks = []
    for chunk, files in chunks.items():
        if not chunk.is_file():
            tasks.append(write(reader, on_corrupt, chunk, files))
    written = Parallel(workers, return_as='generator_unordered')(tasks)
    title = f'preprocessing {name}, in chunks'
    for _ in tqdm(written, title, len(tasks), disable=None):
        pass


def _join_chunks(
    path: Path, chunks: list[Path], skipped: SkippedFiles, source: str
) -> dict:
    """Write the cache of a split from the small caches of its chunks.

    Args:
        path (Path): The cache to write.
        chunks (list[Path]): The small caches, at least one, in the order of the files.
        skipped (SkippedFiles): Gets the counts and messages of all chunks.
        source (str): See :func:`preprocess_split`.

    Returns:
        dict: The footer.

    Raises:
        UserError: No chunk has a scene. Every file was skipped then, and the message
            has the first reason.
    """
    caches = [SceneCache(chunk) for chunk in chunks]
    for cache in caches:
        skipped.merge(cache.footer['skipped'], cache.footer['examples'])
    if all(len(cache) == 0 for cache in caches):
        total = skipped.counts.total()
        raise UserError(f'None of {total} files is usable: {skipped.examples[0]}')
    return write_cache(
        path,
        _records_of(caches),
        skipped=skipped.counts,
        examples=skipped.examples,
        source=source,
    )


def _records_of(caches: list[SceneCache]) -> Iterator[bytes]:
    """Yield the packed scenes of several caches, one cache after the other."""
    for cache in caches:
        for i in range(len(cache)):
            yield cache.record(i)


def _source(reader: ArgoverseReader, files: list[Path]) -> str:
    """Hash the names and sizes of the files, and the reader's range."""
    text = f'{type(reader).__name__} {reader.map_range}'
    if reader.detailed:
        text += ' detailed'
    for file in files:
        text += f'{file.name} {file.stat().st_size}\n'
    return hashlib.sha256(text.encode()).hexdigest()


def _write_chunk(
    reader: ArgoverseReader, on_corrupt: str, chunk: Path, files: list[Path]
) -> None:
    """Write the small cache of some files; its footer counts what was left out.

    Raises:
        UserError: With ``on_corrupt='refuse'``, a file cannot become a scene.
        StorageError: Storage does not give a file.
    """
    records = []
    skipped = SkippedFiles(on_corrupt)
    for file in files:
        try:
            with naming_storage_errors(file):
                records.append(pack(reader.read(file)))
        except SceneError as e:
            skipped.add(e.kind, e)
    write_cache(chunk, records, skipped=skipped.counts, examples=skipped.examples)
