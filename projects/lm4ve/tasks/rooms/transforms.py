"""Transforms of scenes: load, sample, augment and pack.

Randomness is numpy's global generator, which the suite seeds for every batch.
"""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from scipy.spatial.transform import Rotation

from lm4ve.files import is_file, storage_error_behind
from lm4ve.registry import TRANSFORMS
from lm4ve.tasks.rooms.datasets.scannet import classes_of
from lm4ve.tasks.rooms.datasets.scene_files import (
    RoomFile,
    read_objects,
    read_points,
    read_scene,
)
from lm4ve.text.structures import VisionLanguageDataSample

#: What a packed sample keeps of an entry.
META_KEYS = (
    'sample_idx',
    'scene_id',
    'scene_path',
    'text',
    'gt_answers',
    'question_id',
    'question_type',
)
#: Share of the lowest points below the floor: the released code passes 0.99 to
#: ``np.percentile``, which expects percent.
_FLOOR_PERCENT = 0.99
#: Exchanges left and right, which makes the mirror image of a pose a rotation again.
#: People in SQA3D look along the x axis of their own frame, so that y is left and
#: right.
_SIDES = np.diag([1.0, -1.0, 1.0])


class SceneLoader(BaseTransform):
    """Reads the files of a scene, as the first step of a pipeline."""

    def files(self, results: dict) -> list[str]:
        """Return the files that :meth:`transform` reads."""
        raise NotImplementedError

    def read_room(self, room: RoomFile) -> dict:
        """Read a room of no data set: a file, or an array with its content."""
        raise NotImplementedError

    def find_defect(self, results: dict, decode: bool) -> str | None:
        """Return a description of what is wrong with the files, or None.

        Args:
            results (dict): ``scene_path``, ``scan_file`` and ``object_path``.
            decode (bool): Read the files; without, they only have to exist.

        Raises:
            Exception: Storage does not give a file; see
                :func:`lm4ve.files.storage_error_behind`.
        """
        for file in self.files(results):
            if not is_file(file):
                return f"lacks '{file}'"
        if not decode:
            return None
        try:
            self.transform(dict(results))
        except Exception as error:  # a damaged file makes numpy raise almost anything
            if storage_error_behind(error) is not None:
                raise
            return f'cannot be read ({type(error).__name__}: {error})'
        return None


@TRANSFORMS.register_module()
class LoadScene(SceneLoader):
    """Reads a scanned room: its points, and the objects in it.

    Args:
        color (bool): Points have red, green and blue, from 0 to 255 as in the file.
        height (bool): Points have their height above the floor, meters, as the last
            column.
        annotations (bool): Read the objects too, which training needs.

    Adds to an entry with ``scene_path`` and ``scan_file``:

    - ``points``: float32 ``[V, 3 + F]``, a copy that may be changed.
    - ``instances`` and ``semantics``: int32 ``[V]``, ``boxes`` float32 ``[M, 6]`` and
      ``labels`` int64 ``[M]``, with ``annotations``.
    - ``pose``: float64 ``[7]``, where the entry has ``position`` and ``rotation``.
    """

    def __init__(
        self, color: bool = True, height: bool = True, annotations: bool = True
    ) -> None:
        self.color = color
        self.height = height
        self.annotations = annotations

    def files(self, results: dict) -> list[str]:
        ends = ['vert', 'aligned_vert']
        if self.annotations:
            ends += ['ins_label', 'sem_label', 'aligned_bbox']
        files = [f'{results["scene_path"]}_{end}.npy' for end in ends]
        files.append(results['scan_file'])
        return files

    def transform(self, results: dict) -> dict:
        """Add the arrays that the class describes; what may be changed later is a copy."""
        scene = read_scene(
            results['scene_path'], results['scan_file'], self.annotations
        )
        results['points'] = self._columns_of(scene['points'])
        if self.annotations:
            results['instances'] = scene['instances']
            results['semantics'] = scene['semantics']
            results['labels'] = scene['labels']
            results['boxes'] = scene['boxes'].copy()
        _add_pose(results, scene)
        return results

    def read_room(self, room: RoomFile) -> dict:
        return dict(points=self._columns_of(read_points(room)))

    def _columns_of(self, points: np.ndarray) -> np.ndarray:
        """Return a copy of the columns of ``[V, 6 or more]`` that the model reads."""
        count = 6 if self.color else 3
        columns = [points[:, :count]]
        if self.height:
            z = points[:, 2:3]
            floor = np.percentile(z, _FLOOR_PERCENT).astype(np.float32)
            columns.append(z - floor)
        return np.concatenate(columns, axis=1)


@TRANSFORMS.register_module()
class LoadObjects(SceneLoader):
    """Reads stored features of objects instead of points.

    Args:
        pose (bool): Also add where the asker stands, in the frame of the aligned scan.
            It needs the points of the scan and its ``.txt``. False for a model without
            ``pose_head``.

    Adds to an entry with ``object_path``: ``objects``, float32 ``[O, C]``; and
    ``pose``, as :class:`LoadScene`.
    """

    def __init__(self, pose: bool = True) -> None:
        self.pose = pose

    def files(self, results: dict) -> list[str]:
        files = [results['object_path']]
        if self.pose:
            files += LoadScene(annotations=False).files(results)
        return files

    def transform(self, results: dict) -> dict:
        """Add ``objects``, and the pose if it is asked for."""
        results['objects'] = read_objects(results['object_path'])
        if self.pose:
            scene = read_scene(results['scene_path'], results['scan_file'], False)
            _add_pose(results, scene)
        return results

    def read_room(self, room: RoomFile) -> dict:
        return dict(objects=read_objects(room))


def _add_pose(results: dict, scene: dict[str, np.ndarray]) -> None:
    """Move the asker from SQA3D's frame, around the middle of the scan, to the aligned one."""
    if results.get('position') is None:
        return
    turn = scene['alignment'][:3, :3]
    shift = scene['alignment'][:3, 3]
    in_scan = np.array(results['position']) + scene['center']
    heading = turn @ Rotation.from_quat(results['rotation']).as_matrix()
    quaternion = Rotation.from_matrix(heading).as_quat()
    results['pose'] = np.concatenate((turn @ in_scan + shift, quaternion))


@TRANSFORMS.register_module()
class SampleScenePoints(BaseTransform):
    """Samples points of a scene, with replacement where it has fewer.

    Args:
        num (int): How many, 40,000 in the release.
        seed (int, optional): The same points of a scene every time, for tests. None:
            other points each time, as in the release.
    """

    def __init__(self, num: int = 40000, seed: int | None = None) -> None:
        self.num = num
        self.seed = seed

    def transform(self, results: dict) -> dict:
        """Replace points, and the labels of points, by those of the sampled ones."""
        count = len(results['points'])
        rng: Any = np.random
        if self.seed is not None:
            scene = Path(results['scene_path']).name
            seed = (self.seed + zlib.crc32(scene.encode())) % 2**32
            rng = np.random.RandomState(seed)
        chosen = rng.choice(count, self.num, replace=count < self.num)
        for key in ('points', 'instances', 'semantics'):
            if key in results:
                results[key] = results[key][chosen]
        return results


@TRANSFORMS.register_module()
class AugmentScene(BaseTransform):
    """Mirrors, rotates and shifts a scene with its annotations.

    Args:
        flip (float): Probability of mirroring along x, and again along y.
        angle (float): Largest angle of the turns around x, then y, then z, degrees.
        shift (float): Largest shift along each axis, meters.

    Heights and colors stay as they are. Boxes stay along the axes: each becomes the
    smallest one around the turned box, where the release's shrink by the cosine of
    turns around x and y. The values are those of SQA3D's code.

    In a mirrored room what was left of the asker is right of them, but texts stay as
    they are. The release accepts that; set ``flip=0`` where many questions are about
    sides.
    """

    def __init__(
        self, flip: float = 0.5, angle: float = 5.0, shift: float = 0.5
    ) -> None:
        self.flip = flip
        self.angle = angle
        self.shift = shift

    def transform(self, results: dict) -> dict:
        """Draw mirrors, turns and a shift, in this order, and move the entry by them."""
        steps = []
        for mirror in (np.diag([-1.0, 1.0, 1.0]), np.diag([1.0, -1.0, 1.0])):
            if np.random.random() < self.flip:
                steps.append(mirror)
        for axis in 'xyz':
            angle = np.random.uniform(-self.angle, self.angle)
            steps.append(Rotation.from_euler(axis, angle, degrees=True).as_matrix())
        move(results, steps, np.random.uniform(-self.shift, self.shift, size=3))
        return results


def move(results: dict, steps: Sequence[np.ndarray], shift: np.ndarray) -> None:
    """Move points, boxes and the asker of an entry.

    Args:
        results (dict): With ``points``, and what it has of ``boxes`` and ``pose``;
            their arrays are changed.
        steps (Sequence[np.ndarray]): ``[3, 3]``, rotations and mirrors, one after the
            other. With each, boxes grow as much as they have to, to stay along the
            axes.
        shift (np.ndarray): ``[3]``, meters, after the rotations and mirrors.
    """
    matrix = np.eye(3)
    for step in steps:
        matrix = step @ matrix
    points = results['points']
    # Of 40,000 points float64 takes twice as long.
    moved = points[:, :3] @ matrix.T.astype(np.float32)
    points[:, :3] = moved + shift.astype(np.float32)
    if 'boxes' in results:
        boxes = results['boxes']
        boxes[:, :3] = boxes[:, :3] @ matrix.T + shift
        for step in steps:
            boxes[:, 3:] = boxes[:, 3:] @ np.abs(step).T
    if 'pose' in results:
        pose = results['pose']
        turn = matrix @ Rotation.from_quat(pose[3:]).as_matrix()
        if np.linalg.det(matrix) < 0:
            turn = turn @ _SIDES
        pose[:3] = matrix @ pose[:3] + shift
        pose[3:] = Rotation.from_matrix(turn).as_quat()


@TRANSFORMS.register_module()
class PackScene(BaseTransform):
    """Packs ``inputs`` and ``data_samples`` for the model.

    ``inputs`` has ``points`` or ``objects``. ``data_samples`` is a
    :class:`VisionLanguageDataSample` with :data:`META_KEYS` in its metainfo, where they
    are known, ``gt_pose`` where the pose is annotated, and for annotated points boxes,
    labels and votes.
    """

    def transform(self, results: dict) -> dict:
        """Return ``inputs`` and ``data_samples`` as tensors."""
        meta = {key: results[key] for key in META_KEYS if key in results}
        sample = VisionLanguageDataSample(metainfo=meta)
        if 'pose' in results:
            sample.gt_pose = torch.from_numpy(results['pose'].astype(np.float32))
        kind = 'objects' if 'objects' in results else 'points'
        inputs = np.ascontiguousarray(results[kind], dtype=np.float32)
        if 'instances' in results:
            votes, mask = votes_of(
                inputs[:, :3], results['instances'], results['semantics']
            )
            sample.gt_votes = torch.from_numpy(votes)
            sample.gt_vote_mask = torch.from_numpy(mask)
            sample.gt_boxes = torch.from_numpy(results['boxes'])
            sample.gt_labels = torch.from_numpy(results['labels'].copy())
        return dict(inputs={kind: torch.from_numpy(inputs)}, data_samples=sample)


def votes_of(
    points: np.ndarray, instances: np.ndarray, semantics: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return where the points of objects should vote to.

    Args:
        points (np.ndarray): float32 ``[P, 3]``.
        instances (np.ndarray): int ``[P]``, the object of each.
        semantics (np.ndarray): int ``[P]``, the NYU40 id of each. That of an object is
            its first point's.

    Returns:
        tuple[np.ndarray, np.ndarray]: float32 ``[P, 3]``, from each point to the middle
        of the box around the sampled points of its object, and bool ``[P]``, True on
        objects.
    """
    # `first`: a point of each instance; `instance`: the number of each point's instance.
    _, first, instance = np.unique(instances, return_index=True, return_inverse=True)
    low = points[first].copy()
    high = points[first].copy()
    np.minimum.at(low, instance, points)
    np.maximum.at(high, instance, points)
    middle = (low + high) / 2
    is_object = classes_of(semantics[first]) >= 0
    mask = is_object[instance]
    votes = np.where(mask[:, None], middle[instance] - points, 0)
    return votes, mask
