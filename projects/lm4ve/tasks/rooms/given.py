"""What somebody gives a model of rooms: files or arrays, a situation and a question.

All of it is looked at before anything is computed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose

from lm4ve.errors import UserError
from lm4ve.registry import TRANSFORMS
from lm4ve.tasks.base.analysis import tested_dataset
from lm4ve.tasks.base.mesh_files import read_ply
from lm4ve.tasks.rooms.datasets.scene_files import (
    OBJECT_SUFFIXES,
    DamagedScene,
    read_objects,
    read_points,
)
from lm4ve.tasks.rooms.prepare import vertex_normals
from lm4ve.tasks.rooms.raw_scans import COLUMNS
from lm4ve.tasks.rooms.transforms import LoadScene, SceneLoader

#: Files of points; those of stored objects are ``OBJECT_SUFFIXES``.
POINT_SUFFIXES = ('.npy', '.ply')

RoomFile = str | Path | np.ndarray


class RoomReader:
    """The test pipeline of a config, whose first step reads files of one's own.

    Args:
        cfg (Config): Its pipeline begins with ``LoadScene`` or ``LoadObjects``.
        pipeline (list[dict], optional): Its steps; default: the config's.

    Raises:
        UserError: It begins with something else.
    """

    def __init__(self, cfg: Config, pipeline: list[dict] | None = None) -> None:
        steps = [dict(t) for t in pipeline or tested_dataset(cfg).pipeline]
        self.loader: Any = TRANSFORMS.build(steps[0]) if steps else None
        if not isinstance(self.loader, SceneLoader):
            raise UserError(
                'The test pipeline of a model of rooms must begin with lm4ve.LoadScene or '
                f'lm4ve.LoadObjects, not with {steps[0]["type"] if steps else "nothing"}. Fix: '
                'add one.'
            )
        self.rest = Compose(steps[1:])
        self.reads_points = isinstance(self.loader, LoadScene)

    def __call__(self, room: RoomFile, texts: Sequence[str], number: int = 0) -> dict:
        """Read a room and send it through the pipeline.

        Args:
            room (str | Path | np.ndarray): See :meth:`read`.
            texts (Sequence[str]): Situation and question.
            number (int): Index of the sample.
        """
        path = Path(name_of(room))
        # As the test set calls it, since a scene's name is the seed of the draw of points.
        scene = path.stem.removesuffix('_vert').removesuffix('_aligned')
        results = dict(
            sample_idx=number,
            scene_id=scene,
            scene_path=str(path.with_name(scene)),
            text=list(texts),
            gt_answers=[],
        )
        return self.rest({**results, **self.read(room)})

    def read(self, room: RoomFile) -> dict:
        """Read the points or the stored objects of a room.

        Args:
            room (str | Path | np.ndarray): Of a model that reads points, a colored .ply, or
                numbers ``[V, 6 or 9]`` (x, y, z in meters, z up; red, green, blue from 0 to
                255; normals), as an array or as .npy (``_aligned_vert.npy``). Of one that
                reads stored objects, ``[O, C]``, .npy or .npz.

        Raises:
            UserError: It cannot be read, or holds something else.
        """
        name = name_of(room)
        try:
            if not self.reads_points:
                return dict(objects=self._objects(room))
            results: dict = {}
            self.loader.add_points(results, self._points(room))
            return results
        except DamagedScene as e:
            raise UserError(f"The room '{name}' {e}. Fix: give another one.") from e

    def _points(self, room: RoomFile) -> np.ndarray:
        if isinstance(room, np.ndarray):
            ok = room.ndim == 2 and room.shape[1] in (6, 9) and room.dtype.kind in 'fiu'
            if not ok or not len(room) or not np.isfinite(room.astype(np.float32)).all():
                raise DamagedScene(
                    f'is {room.dtype} {list(room.shape)}, expected finite numbers [V, 6 or 9]'
                )
            return room.astype(np.float32)
        _check_suffix(room, POINT_SUFFIXES, 'points')
        if Path(room).suffix.lower() == '.npy':
            return read_points(str(room))
        return self._of_ply(Path(room))

    def _of_ply(self, path: Path) -> np.ndarray:
        try:
            with np.errstate(all='ignore'):
                vertices, triangles = read_ply(path, COLUMNS)
        except (ValueError, TypeError, LookupError, OverflowError, MemoryError, OSError) as e:
            raise DamagedScene(f'is damaged ({e})') from e
        if not len(vertices) or not np.isfinite(vertices.astype(np.float32)).all():
            raise DamagedScene(f'has {len(vertices):,} vertices, or numbers that are not finite')
        if self.loader.normals:
            vertices = np.hstack([vertices, vertex_normals(vertices[:, :3], triangles)])
        return vertices.astype(np.float32)

    def _objects(self, room: RoomFile) -> np.ndarray:
        if isinstance(room, np.ndarray):
            if room.ndim != 2 or not room.size or room.dtype.kind != 'f':
                raise DamagedScene(
                    f'is {room.dtype} {list(room.shape)}, expected stored objects [O, C]'
                )
            return room.astype(np.float32)
        _check_suffix(room, OBJECT_SUFFIXES, 'stored objects')
        return read_objects(str(Path(room).with_suffix('')))


def _check_suffix(path: RoomFile, suffixes: Sequence[str], what: str) -> None:
    if Path(str(path)).suffix.lower() not in suffixes:
        raise DamagedScene(f'is no file of {what} (ending in {", ".join(suffixes)})')
    if not Path(str(path)).is_file():
        raise DamagedScene('does not exist')


def name_of(room: RoomFile) -> str:
    """Return what a room is called: its path, or 'array'."""
    return 'array' if isinstance(room, np.ndarray) else str(room)


def read_texts(
    question: str | None = None, situation: str | None = None, caption: str | None = None
) -> list[str]:
    """Return the situation and the question that a user gave.

    Raises:
        UserError: One is missing or empty, or there is a caption.
    """
    texts = dict(situation=situation, question=question)
    wrong = [k for k, v in texts.items() if v is None or not v.strip()]
    if wrong or caption is not None:
        raise UserError(
            "The config's model answers questions of somebody in a room: it needs a situation and "
            f'a question. Fix: give --{wrong[0] if wrong else "question"} "..."'
            f'{", and no caption" if caption is not None else ""}.'
        )
    return [v.strip() for v in texts.values() if v]
