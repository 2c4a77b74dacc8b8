"""One memory-mapped file a split: scenes, an index, a footer with count and hash.

Layout: magic, one record a scene, the index (int64 ``[N + 1]`` offsets of the
records), the footer (JSON: count, SHA-256 of all before the index, what was
skipped), the footer's length (int64), magic. A file that was not finished has no
magic at its end. Positions are stored as float32 relative to the scene's origin,
exact to about 1e-5 m.
"""

import hashlib
import json
import mmap
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from mmengine.dataset import Compose
from torch.utils.data import Dataset

from lm4ve.errors import UserError, brief
from lm4ve.files import replacing
from lm4ve.registry import DATASETS
from lm4ve.tasks.motion.scene import Scene

MAGIC = b'lm4veMC1'
_LONG = np.dtype('<i8')
#: Fields of a scene that a record holds as JSON.
_PLAIN = 'scene_id', 'city', 'track_ids', 'focal', 'history_steps', 'map_range', 'heading'


def _arrays(head: dict) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return dtype and shape of the fields that a record holds as arrays, in their order."""
    agents, lanes = len(head['track_ids']), head['lanes']
    return dict(
        positions=('<f4', (agents, head['steps'], 2)),
        lanes=('<f4', (lanes, head['points'], 2)),
        valid=('?', (agents, head['steps'])),
        agent_types=('i1', (agents,)),
        lane_turns=('i1', (lanes,)),
        lane_intersections=('?', (lanes,)),
        lane_controls=('?', (lanes,)),
    )


def pack(scene: Scene) -> bytes:
    """Serialize a scene: length-prefixed JSON, then the arrays."""
    lanes, points = scene.lanes.shape[:2]
    head = {name: getattr(scene, name) for name in _PLAIN}
    head |= dict(steps=scene.positions.shape[1], lanes=lanes, points=points)
    text = json.dumps(head | dict(origin=scene.origin.tolist())).encode()
    fields = vars(scene) | dict(
        positions=np.where(scene.valid[..., None], scene.positions - scene.origin, 0.0),
        lanes=scene.lanes - scene.origin,
    )
    arrays = (fields[name].astype(dtype).tobytes() for name, (dtype, _) in _arrays(head).items())
    return b''.join([np.array(len(text), _LONG).tobytes(), text, *arrays])


def unpack(record: bytes) -> Scene:
    """Restore a scene that :func:`pack` has serialized."""
    at = 8 + int(np.frombuffer(record, _LONG, 1)[0])
    head = json.loads(record[8:at])
    fields = {name: head[name] for name in _PLAIN}
    for name, (dtype, shape) in _arrays(head).items():
        fields[name] = np.frombuffer(record, dtype, int(np.prod(shape)), at).reshape(shape)
        at += fields[name].nbytes
    origin = fields['origin'] = np.array(head['origin'])
    known = fields['valid'][..., None]
    fields['positions'] = np.where(known, fields['positions'].astype(np.float64) + origin, 0.0)
    fields['lanes'] = fields['lanes'] + origin
    return Scene(**fields)


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
            self._open()
            content = memoryview(self._map)[: int(self._offsets[-1])]
            if verify and hashlib.sha256(content).hexdigest() != self.footer['sha256']:
                raise ValueError('its content has another SHA-256 than its footer')
        except Exception as e:  # whatever mmap, numpy and json make of such a file
            advice = 'Fix: write it anew with tools/motion/preprocess.py.'
            raise UserError(f"'{path}' cannot be used ({brief(e, 100)}). {advice}") from e

    def _open(self) -> None:
        with open(self.path, 'rb') as f:
            data = self._map = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        end = len(data) - len(MAGIC)
        footer = end - 8 - int(np.frombuffer(data, _LONG, 1, end - 8)[0])
        self.footer = json.loads(data[footer : end - 8])
        index = footer - 8 * (len(self) + 1)
        self._offsets = np.frombuffer(data, _LONG, len(self) + 1, index)
        ends = data[: len(MAGIC)], self._offsets[0], self._offsets[-1], data[end:]
        if ends != (MAGIC, len(MAGIC), index, MAGIC) or (np.diff(self._offsets) <= 0).any():
            raise ValueError('it was not written to its end')

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
        verify (bool): Hash the whole file first, once and not in every worker. This adds
            under two percent to the time in which a training loads it. Its count and
            index are always checked.

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
        verify: bool = True,
    ) -> None:
        self.scenes = SceneCache(cache, verify)
        chosen = isinstance(indices, Sequence)
        self.indices = list(indices) if chosen else range(len(self.scenes))[:indices]
        self.pipeline = Compose(pipeline)

    def __len__(self) -> int:
        return len(self.indices)

    def scene(self, i: int) -> Scene:
        """The :class:`lm4ve.tasks.motion.scene.Scene` ``i``."""
        return self.scenes[self.indices[i]]

    def __getitem__(self, i: int) -> dict:
        return self.pipeline(dict(scene=self.scene(i), sample_idx=i))
