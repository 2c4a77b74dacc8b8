"""One memory-mapped file a split: scenes, an index, a footer with count and hash.

Layout: magic, one record a scene, the index (int64 ``[N + 1]`` offsets of the
records), the footer (JSON: count, SHA-256 of all before the index, what was
skipped), the footer's length (int64), magic. A file that was not finished has no
magic at its end. Positions are stored as float32 relative to the scene's origin,
exact to about 1e-5 m.
"""

import hashlib
import json
import math
import mmap
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from lm4ve.errors import UserError
from lm4ve.files import replacing
from lm4ve.tasks.motion.scene import Scene

MAGIC = b'lm4veMC1'
_LONG = np.dtype('<i8')
#: Fields of a scene that a record holds as JSON.
_PLAIN = 'scene_id', 'city', 'track_ids', 'focal', 'history_steps', 'map_range', 'heading'


def pack(scene: Scene) -> bytes:
    """Serialize a scene: length-prefixed JSON, then the arrays."""
    head = dict(
        {name: getattr(scene, name) for name in _PLAIN},
        steps=scene.positions.shape[1],
        lanes=len(scene.lanes),
        points=scene.lanes.shape[1],
        origin=scene.origin.tolist(),
    )
    text = json.dumps(head).encode()
    positions = np.where(scene.valid[..., None], scene.positions - scene.origin, 0.0)
    arrays = (
        positions.astype('<f4'),
        (scene.lanes - scene.origin).astype('<f4'),
        scene.valid,
        scene.agent_types,
        scene.lane_turns,
        scene.lane_intersections,
        scene.lane_controls,
    )
    return b''.join([np.array(len(text), _LONG).tobytes(), text, *(a.tobytes() for a in arrays)])


def unpack(record: bytes) -> Scene:
    """The reverse of :func:`pack`."""
    at = 8 + int(np.frombuffer(record, _LONG, 1)[0])
    head = json.loads(bytes(record[8:at]))
    agents, steps, lanes = len(head['track_ids']), head['steps'], head['lanes']

    def take(dtype, *shape):
        nonlocal at
        array = np.frombuffer(record, dtype, math.prod(shape), at).reshape(shape)
        at += array.nbytes
        return array

    # In the order in which pack() wrote them.
    origin = np.array(head['origin'])
    positions = take('<f4', agents, steps, 2).astype(np.float64)
    lines = take('<f4', lanes, head['points'], 2) + origin
    valid = take(bool, agents, steps)
    return Scene(
        **{name: head[name] for name in _PLAIN},
        origin=origin,
        positions=np.where(valid[..., None], positions + origin, 0.0),
        valid=valid,
        lanes=lines,
        agent_types=take(np.int8, agents),
        lane_turns=take(np.int8, lanes),
        lane_intersections=take(bool, lanes),
        lane_controls=take(bool, lanes),
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
        UserError: The file is missing, was not finished, or does not hold what
            its footer says.
    """

    def __init__(self, path: str | Path, verify: bool = False) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError(
                f"The cache '{self.path}' does not exist. Fix: make it with "
                'tools/motion/preprocess.py (see docs/guides/motion_forecasting.md).'
            )
        self._open()
        if verify:
            self.verify()

    def _open(self) -> None:
        try:
            with open(self.path, 'rb') as f:
                self._map = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            self._map = b''
        data, end = self._map, len(self._map) - len(MAGIC)
        if end < 24 or data[: len(MAGIC)] != MAGIC or data[end:] != MAGIC:
            raise self._error('it was not written to its end, or is no cache')
        size = int(np.frombuffer(data, _LONG, 1, end - 8)[0])
        start = end - 8 - size
        try:
            self.footer = json.loads(bytes(data[start : end - 8]))
            count = self.footer['count']
            begin = start - 8 * (count + 1)
            self._offsets = np.frombuffer(data, _LONG, count + 1, begin)
            whole = self._offsets[0] == len(MAGIC) and self._offsets[-1] == begin
        except Exception as e:  # whatever numpy and json make of such bytes
            raise self._error(f'its footer is damaged ({type(e).__name__})') from e
        if not whole or (np.diff(self._offsets) <= 0).any():
            raise self._error(f'its index does not fit the {count} scenes that its footer counts')

    def _error(self, reason: str) -> UserError:
        return UserError(
            f"The cache '{self.path}' cannot be used: {reason}. "
            'Fix: remove it and run tools/motion/preprocess.py again.'
        )

    def verify(self) -> None:
        """Compare the file with the hash in its footer.

        Raises:
            UserError: They differ.
        """
        digest = hashlib.sha256()
        for start in range(0, int(self._offsets[-1]), 1 << 24):
            stop = min(start + (1 << 24), int(self._offsets[-1]))
            digest.update(self._map[start:stop])
        if digest.hexdigest() != self.footer.get('sha256'):
            raise self._error('its content has another SHA-256 than its footer says')

    def __len__(self) -> int:
        return self.footer['count']

    def record(self, i: int) -> bytes:
        """The packed scene ``i``."""
        return self._map[self._offsets[i] : self._offsets[i + 1]]

    def __getitem__(self, i: int) -> Scene:
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        try:
            return unpack(self.record(i % len(self)))
        except Exception as e:
            raise self._error(f'its scene {i} is damaged ({type(e).__name__})') from e

    def __getstate__(self) -> dict:
        return dict(path=self.path)

    def __setstate__(self, state: dict) -> None:
        self.path = state['path']
        self._open()
