"""Transforms of scenes: load, sample, augment and pack.

Randomness is numpy's global generator, which the suite seeds for every batch.
"""

import functools
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from scipy.spatial.transform import Rotation

from lm4ve.registry import TRANSFORMS
from lm4ve.tasks.rooms.datasets.scannet import classes_of
from lm4ve.tasks.rooms.datasets.scene_files import (
    RoomFile,
    read_objects,
    read_points,
    read_scene,
)
from lm4ve.text.structures import VisionLanguageDataSample

META_KEYS = (
    'sample_idx scene_id scene_path text gt_answers question_id question_type'.split()
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
        """
        if missing := [f for f in self.files(results) if not os.path.isfile(f)]:
            return f"lacks '{missing[0]}'"
        try:
            if decode:
                self.transform(dict(results))
        except Exception as e:  # a damaged file makes numpy raise almost anything
            return f'cannot be read ({type(e).__name__}: {e})'
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
        self.color, self.height, self.annotations = color, height, annotations

    def files(self, results: dict) -> list[str]:
        ends = ['vert', 'aligned_vert']
        ends += ['ins_label', 'sem_label', 'aligned_bbox'] if self.annotations else []
        return [
            *(f'{results["scene_path"]}_{end}.npy' for end in ends),
            results['scan_file'],
        ]

    def transform(self, results: dict) -> dict:
        scene = read_scene(
            results['scene_path'], results['scan_file'], self.annotations
        )
        results |= self._columns_of(scene['points'])
        if self.annotations:
            results |= {k: scene[k] for k in ('instances', 'semantics', 'labels')}
            results['boxes'] = scene['boxes'].copy()
        return _add_pose(results, scene)

    def read_room(self, room: RoomFile) -> dict:
        return self._columns_of(read_points(room))

    def _columns_of(self, points: np.ndarray) -> dict:
        """Return the columns of ``[V, 6 or more]`` that the model reads."""
        columns = [points[:, : 6 if self.color else 3]]
        if self.height:
            z = points[:, 2:3]
            columns.append(z - np.percentile(z, _FLOOR_PERCENT).astype(np.float32))
        return dict(points=np.concatenate(columns, axis=1))


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
        scene = LoadScene(annotations=False).files(results) if self.pose else []
        return [results['object_path'], *scene]

    def transform(self, results: dict) -> dict:
        results |= self.read_room(results['object_path'])
        if self.pose:
            _add_pose(
                results, read_scene(results['scene_path'], results['scan_file'], False)
            )
        return results

    def read_room(self, room: RoomFile) -> dict:
        return dict(objects=read_objects(room))


def _add_pose(results: dict, scene: dict[str, np.ndarray]) -> dict:
    """Move the asker from SQA3D's frame, around the middle of the scan, to the aligned one."""
    if results.get('position') is not None:
        turn, shift = scene['alignment'][:3, :3], scene['alignment'][:3, 3]
        place = turn @ (np.array(results['position']) + scene['center']) + shift
        heading = Rotation.from_matrix(
            turn @ Rotation.from_quat(results['rotation']).as_matrix()
        )
        results['pose'] = np.concatenate((place, heading.as_quat()))
    return results


@TRANSFORMS.register_module()
class SampleScenePoints(BaseTransform):
    """Samples points of a scene, with replacement where it has fewer.

    Args:
        num (int): How many, 40,000 in the release.
        seed (int, optional): The same points of a scene every time, for tests. None:
            other points each time, as in the release.
    """

    def __init__(self, num: int = 40000, seed: int | None = None) -> None:
        self.num, self.seed = num, seed

    def transform(self, results: dict) -> dict:
        count = len(results['points'])
        seed = (self.seed or 0) + zlib.crc32(Path(results['scene_path']).name.encode())
        rng: Any = (
            np.random if self.seed is None else np.random.RandomState(seed % 2**32)
        )
        chosen = rng.choice(count, self.num, replace=count < self.num)
        for key in results.keys() & {'points', 'instances', 'semantics'}:
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
        self.flip, self.angle, self.shift = flip, angle, shift

    def transform(self, results: dict) -> dict:
        mirrors = (np.diag([-1.0, 1.0, 1.0]), np.diag([1.0, -1.0, 1.0]))
        steps = [mirror for mirror in mirrors if np.random.random() < self.flip]
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
        shift (np.ndarray): Behind them, ``[3]``.
    """
    matrix = functools.reduce(lambda done, step: step @ done, steps, np.eye(3))
    points = results['points']  # 40,000; float64 takes twice as long
    points[:, :3] = points[:, :3] @ matrix.T.astype(np.float32) + shift.astype(
        np.float32
    )
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
        kept = {k: results[k] for k in META_KEYS if k in results}
        sample = VisionLanguageDataSample(metainfo=kept)
        if 'pose' in results:
            sample.gt_pose = torch.from_numpy(results['pose'].astype(np.float32))
        kind = 'objects' if 'objects' in results else 'points'
        inputs = np.ascontiguousarray(results[kind], dtype=np.float32)
        if 'instances' in results:
            votes, mask = votes_of(
                inputs[:, :3], results['instances'], results['semantics']
            )
            sample.gt_votes, sample.gt_vote_mask = (
                torch.from_numpy(votes),
                torch.from_numpy(mask),
            )
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
    _, first, index = np.unique(instances, return_index=True, return_inverse=True)
    low, high = points[first].copy(), points[first].copy()
    np.minimum.at(low, index, points)
    np.maximum.at(high, index, points)
    mask = (classes_of(semantics[first]) >= 0)[index]
    return np.where(mask[:, None], ((low + high) / 2)[index] - points, 0), mask
