"""Rooms with colored shapes and questions, in files as SQA3D's baseline lays them out.

The demo of the task, without a download. The files are those of SQA3D and ScanNet as
its baseline prepares them, so that they are read as anybody's are.
"""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import barrier, is_main_process

from lm4ve.data.generated import write_once
from lm4ve.demo_data.rooms import (
    DIRECTIONS,
    NAMES,
    QUESTIONS,
    Asked,
    Room,
    draw_room,
    to_scan,
)
from lm4ve.registry import DATASETS
from lm4ve.tasks.rooms.datasets.scannet import NYU40_IDS
from lm4ve.tasks.rooms.datasets.sqa3d import SQA3DDataset

#: Rooms of each split.
ROOMS = dict(train=600, val=60, test=60)
#: The NYU40 ids of furniture under which the shapes go.
IDS = dict(zip(NAMES, NYU40_IDS, strict=False), wall=1, floor=2)


def write_rooms(folder: str | Path, counts: Mapping[str, int] = ROOMS) -> Path:
    """Write the data set, as SQA3D's baseline lays out ScanNet and its questions.

    There are ``scannet_data/<room>_*.npy``, ``scans/<room>/<room>.txt``,
    ``objects/<room>.npy`` and ``qa/SQA_<split>.json``. A folder that holds it already
    is left as it is. It appears as a whole, so that no other process reads a part of
    it.

    Args:
        folder (str | Path): Where to.
        counts (dict[str, int]): Rooms of each split.

    Returns:
        Path: ``folder``.

    Raises:
        UserError: The folder holds something else.
    """
    recipe = dict(version=3, rooms=dict(counts))
    return write_once(folder, recipe, 'rooms', partial(_write_splits, counts=counts))


def _write_splits(folder: Path, counts: Mapping[str, int]) -> None:
    """Write the rooms and questions of all splits into an empty folder."""
    for part in ('scannet_data', 'objects', 'qa'):
        (folder / part).mkdir()
    written = 0
    for number, (split, count) in enumerate(counts.items()):
        rows: list[dict] = []
        for i in range(count):
            # Each room has a generator of its own, so that more rooms begin alike.
            rng = np.random.default_rng((number, i))
            name = f'scene{written + i:04d}_00'
            rows += _write_room(folder, name, draw_room(rng))
        for question_id, row in enumerate(rows, written * QUESTIONS):
            row['question_id'] = question_id
        (folder / f'qa/SQA_{split}.json').write_text(json.dumps(rows))
        written += count


def _write_room(folder: Path, name: str, room: Room) -> list[dict]:
    """Write a room as scanned, in a frame of its own, and as aligned; return its questions."""
    scan = room.points.astype(np.float64)
    scan[:, :3] = to_scan(scan[:, :3], room.alignment)

    _write_annotations(folder, name, room)
    scan_files = folder / 'scannet_data'
    np.save(scan_files / f'{name}_vert.npy', scan.astype(np.float32))
    np.save(scan_files / f'{name}_aligned_vert.npy', room.points)
    path = folder / 'scans' / name / f'{name}.txt'
    path.parent.mkdir(parents=True)
    numbers = ' '.join(f'{x:.6f}' for x in room.alignment.ravel())
    path.write_text(f'axisAlignment = {numbers} \n')

    middle = (scan[:, :3].min(axis=0) + scan[:, :3].max(axis=0)) / 2
    rows = []
    for ask in room.asked:
        row = dict(
            scene_id=name,
            situation=ask.situation,
            question=ask.question,
            answers=[ask.answer],
            position=_pose_in_scan(ask, room.alignment, middle),
        )
        rows.append(row)
    return rows


def _write_annotations(folder: Path, name: str, room: Room) -> None:
    """Write the boxes of things, the labels of points, and the stored features."""
    things = room.things
    parts = room.parts
    names = [thing.name for thing in things] + ['wall', 'floor']
    # The parts -1 and -2, floor and walls, count from the end.
    ids = np.array([IDS[name] for name in names])
    boxes = []
    features = []
    for i in range(len(things)):
        cloud = room.points[parts == i]
        box = _box(cloud)
        boxes.append((*box, ids[i], i))
        # The output of a perfect detector: center and size in meters, and the mean
        # color around 0.
        color = (cloud[:, 3:6].mean(axis=0) - 128) / 64
        features.append((*box, *color))
    # Counted from 1; of the negative parts, the floor comes first.
    instances = np.where(parts < 0, len(things) - parts, parts + 1)
    scan_files = folder / 'scannet_data'
    np.save(scan_files / f'{name}_aligned_bbox.npy', np.array(boxes))
    np.save(scan_files / f'{name}_sem_label.npy', ids[parts].astype(np.uint32))
    np.save(scan_files / f'{name}_ins_label.npy', instances.astype(np.uint32))
    objects = np.array(features, dtype=np.float32)
    np.save(folder / 'objects' / f'{name}.npy', objects)


def _pose_in_scan(ask: Asked, alignment: np.ndarray, middle: np.ndarray) -> list[float]:
    """Return the asker's position around the middle of the scan, and quaternion, 7 numbers."""
    x, y, _ = to_scan(np.array([*ask.stands, 0.0]), alignment) - middle
    ahead = np.array([*DIRECTIONS[ask.looks], 0]) @ alignment[:3, :3]
    # Without a turn the asker looks along -x, as SQA3D's code draws it. A hundredth
    # of a radian more: a quaternion and its negative are one turn, and exactly at a
    # right angle rounding alone would choose between them.
    angle = (np.arctan2(-ahead[1], -ahead[0]) + 0.01) / 2
    return [x, y, 0.0, 0.0, 0.0, np.sin(angle), np.cos(angle)]


def _box(points: np.ndarray) -> np.ndarray:
    """Return the center and size of the box around points, ``[6]``."""
    low = points[:, :3].min(axis=0)
    high = points[:, :3].max(axis=0)
    return np.concatenate(((low + high) / 2, high - low))


def blank(results: dict) -> dict:
    """Replace points by the same in every scene of as many; boxes and pose stay.

    They are drawn at random from a box of 4 x 4 x 1 m on the origin, their other
    columns are 0. (In one place, all features would be alike, and batch norms would
    divide by nothing.)
    """
    points = results['points']
    rng = np.random.default_rng(0)
    xyz = rng.uniform((-2, -2, 0), (2, 2, 1), (len(points), 3))
    others = np.zeros_like(points[:, 3:])
    return results | dict(points=np.hstack((xyz.astype(np.float32), others)))


@DATASETS.register_module()
class Rooms(SQA3DDataset):
    """Questions about rooms of colored shapes, made of primitives on first use.

    Args:
        split (str): 'train', 'val' or 'test', which share no room.
        data_root (str): Where they are; they are written there if they are not
            (seconds).
        rooms (dict[str, int]): Rooms of each split.
        blank_scenes (bool): Points are constant (:func:`blank`). A model trained and
            tested so sees the texts only, which is the control that clouds are needed.
        **kwargs: Passed to :class:`lm4ve.tasks.rooms.SQA3DDataset`.

    Raises:
        UserError: There is no such split, or ``data_root`` holds something else.
    """

    METAINFO = dict(classes=NAMES)
    makes_files = True

    def __init__(
        self,
        split: str = 'train',
        data_root: str = 'data/rooms',
        rooms: Mapping[str, int] = ROOMS,
        blank_scenes: bool = False,
        **kwargs: Any,
    ) -> None:
        if is_main_process():
            write_rooms(data_root, rooms)
        barrier()
        super().__init__(split, data_root, **kwargs)
        if blank_scenes:
            # Right before packing: all else has been done with the points.
            self.pipeline.transforms.insert(-1, blank)
