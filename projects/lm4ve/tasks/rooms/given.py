"""Read a user's rooms, files or arrays, through the test pipeline of a config."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose

from lm4ve.errors import UserError
from lm4ve.registry import TRANSFORMS
from lm4ve.tasks.base.analysis import tested_dataset
from lm4ve.tasks.rooms.datasets.scene_files import (
    DamagedScene,
    read_mesh,
    read_objects,
    read_points,
    vertex_normals,
)
from lm4ve.tasks.rooms.transforms import LoadScene, SceneLoader

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
            raise UserError('The test pipeline must begin with lm4ve.LoadScene or LoadObjects.')
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
            finite = room.ndim == 2 and np.isfinite(room.astype(np.float32)).all()
            if not finite or room.shape[1] not in (6, 9) or not len(room):
                raise DamagedScene(f'is an array {list(room.shape)}, expected points [V, 6 or 9]')
            return room.astype(np.float32)
        if Path(room).suffix.lower() != '.ply':
            return read_points(str(room))
        vertices, triangles = read_mesh(room)
        if self.loader.normals:
            vertices = np.hstack([vertices, vertex_normals(vertices[:, :3], triangles)])
        return vertices.astype(np.float32)

    def _objects(self, room: RoomFile) -> np.ndarray:
        if isinstance(room, np.ndarray):
            if room.ndim != 2 or not room.size or room.dtype.kind != 'f':
                raise DamagedScene(f'is an array {list(room.shape)}, expected objects [O, C]')
            return room.astype(np.float32)
        return read_objects(str(Path(room).with_suffix('')))


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
    if caption is not None or not (question or '').strip() or not (situation or '').strip():
        raise UserError('The model needs --situation "..." and --question "...", and no caption.')
    return [situation.strip(), question.strip()]
