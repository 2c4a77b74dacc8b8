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
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from mmengine.dataset import Compose
from torch.utils.data import Dataset
from tqdm import tqdm

from lm4ve.data.integrity import SkippedFiles
from lm4ve.errors import UserError, brief
from lm4ve.files import replacing, sole_use
from lm4ve.registry import DATASETS
from lm4ve.tasks.motion.datasets.argoverse import ArgoverseReader
from lm4ve.tasks.motion.structures import Scene, SceneError

MAGIC = b'lm4veMC1'
_LONG = np.dtype('<i8')
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


def _record_type(head: dict) -> np.dtype:
    """Return the type of a record's arrays, of the sizes in its JSON."""
    agents, steps, lanes = len(head['track_ids']), head['steps'], head['lanes']
    fields = [
        ('positions', '<f4', (agents, steps, 2)),
        ('lanes', '<f4', (lanes, head['points'], 2)),
        ('valid', '?', (agents, steps)),
        ('unused', 'i1', (agents,)),
        ('turns', 'i1', (lanes,)),  # none, left, right
        ('flags', '?', (2, lanes)),
    ]
    return np.dtype(fields)


def pack(scene: Scene) -> bytes:
    """Serialize a scene: length-prefixed JSON, then the arrays."""
    head = {name: getattr(scene, name) for name in _PLAIN}
    head['lanes'], head['points'] = scene.lanes.shape[:2]
    head |= dict(steps=scene.valid.shape[1], origin=scene.origin.tolist())
    text = json.dumps(head).encode()
    record = np.zeros((), _record_type(head))
    record['positions'] = np.where(
        scene.valid[..., None], scene.positions - scene.origin, 0.0
    )
    record['lanes'], record['valid'] = scene.lanes - scene.origin, scene.valid
    record['turns'] = -scene.lane_attributes[:, 0] % 3
    record['flags'] = scene.lane_attributes[:, 1:].T
    return np.array(len(text), _LONG).tobytes() + text + record.tobytes()


def unpack(record: bytes) -> Scene:
    """Restore a scene that :func:`pack` has serialized."""
    at = 8 + int(np.frombuffer(record, _LONG, 1)[0])
    head = json.loads(record[8:at])
    arrays = np.frombuffer(record, _record_type(head), 1, at)[0]
    origin, valid = np.array(head['origin']), arrays['valid']
    positions = arrays['positions'].astype(np.float64) + origin
    turns = np.array([0, -1, 1])[arrays['turns']]
    return Scene(
        **{name: head[name] for name in _PLAIN},
        positions=np.where(valid[..., None], positions, 0.0),
        valid=valid,
        lanes=arrays['lanes'] + origin,
        lane_attributes=np.stack([turns, *arrays['flags']], axis=-1).astype(np.float32),
        origin=origin,
    )


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
        f.write(text + np.array(len(text), _LONG).tobytes() + MAGIC)
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
    """

    def __init__(self, path: str | Path, verify: bool = False) -> None:
        self.path = Path(path)
        try:
            self._open(verify)
        except Exception as e:  # whatever mmap, numpy and json make of such a file
            advice = (
                'Fix: remove it, and write it anew with tools/motion/preprocess.py.'
            )
            raise UserError(
                f"'{path}' cannot be used ({brief(e, 100)}). {advice}"
            ) from e

    def _open(self, verify: bool) -> None:
        with open(self.path, 'rb') as f:
            data = self._map = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        end = len(data) - len(MAGIC)
        footer = end - 8 - int(np.frombuffer(data, _LONG, 1, end - 8)[0])
        self.footer = json.loads(data[footer : end - 8])
        index = footer - 8 * (len(self) + 1)
        self._offsets = np.frombuffer(data, _LONG, len(self) + 1, index)
        ends = data[: len(MAGIC)], self._offsets[0], self._offsets[-1], data[end:]
        if (
            ends != (MAGIC, len(MAGIC), index, MAGIC)
            or (np.diff(self._offsets) <= 0).any()
        ):
            raise ValueError('it was not written to its end')
        if (
            verify
            and hashlib.sha256(memoryview(data)[:index]).hexdigest()
            != self.footer['sha256']
        ):
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
class MotionDataset(Dataset):
    """Scenes of a cache that ``tools/motion/preprocess.py`` has written.

    Args:
        cache (str): The file.
        pipeline (Sequence[dict]): Transforms of ``dict(scene=Scene)``.
        indices (int | Sequence[int], optional): The first so many scenes, or
            these.

    Raises:
        UserError: See :class:`lm4ve.tasks.motion.datasets.cache.SceneCache`.
    """

    #: Read by MMEngine's loops.
    metainfo: dict = {}

    def __init__(
        self,
        cache: str,
        pipeline: Sequence = (),
        indices: int | Sequence[int] | None = None,
    ) -> None:
        # Hashed once and not in every worker: under two percent of a training's loading
        # time.
        self.scenes = SceneCache(cache, verify=True)
        first = range(len(self.scenes))
        self.indices = indices if isinstance(indices, Sequence) else first[:indices]
        self.pipeline = Compose(pipeline)

    def __len__(self) -> int:
        return len(self.indices)

    def scene(self, i: int) -> Scene:
        """The :class:`lm4ve.tasks.motion.structures.Scene` ``i``."""
        return self.scenes[self.indices[i]]

    def __getitem__(self, i: int) -> dict:
        return self.pipeline(dict(scene=self.scene(i), sample_idx=i))


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
    path, files, skipped = Path(path), reader.files(), SkippedFiles(on_corrupt)
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
        # Chunks of another run (other files, other sizes) are in another folder.
        parts = path.with_name(f'{path.name}.parts')
        folder = parts / f'{source[:16]}-{chunk_size}'
        starts = range(0, len(files), chunk_size)
        chunks = {folder / f'{i:08d}': files[i : i + chunk_size] for i in starts}
        todo = {part: chunk for part, chunk in chunks.items() if not part.is_file()}
        tasks = (
            delayed(_write_chunk)(reader, on_corrupt, *item) for item in todo.items()
        )
        written = Parallel(workers, return_as='generator_unordered')(tasks)
        for _ in tqdm(
            written, f'preprocessing {path.name}, in chunks', len(todo), disable=None
        ):
            pass
        caches = [SceneCache(part) for part in chunks]
        for cache in caches:
            skipped.merge(cache.footer['skipped'], cache.footer['examples'])
        if not any(map(len, caches)):
            raise UserError(
                f'None of {len(files)} files is usable: {skipped.examples[0]}'
            )
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


def _write_chunk(
    reader: ArgoverseReader, on_corrupt: str, part: Path, files: list[Path]
) -> None:
    records, skipped = [], SkippedFiles(on_corrupt)
    for f in files:
        try:
            records.append(pack(reader.read(f)))
        except SceneError as e:
            skipped.add(e.kind, e)
    write_cache(part, records, skipped=skipped.counts, examples=skipped.examples)
