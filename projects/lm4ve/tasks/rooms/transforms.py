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

from lm4ve.errors import check
from lm4ve.registry import TRANSFORMS
from lm4ve.tasks.base.language.structures import VisionLanguageDataSample
from lm4ve.tasks.rooms.datasets.scene_files import (
    files_of,
    object_file,
    read_frame,
    read_objects,
    read_scene,
)
from lm4ve.tasks.rooms.scannet import class_of

META_KEYS = 'sample_idx scene_id scene_path text gt_answers question_id question_type'.split()
#: Share of the lowest points below the floor: the released code passes 0.99 to
#: ``np.percentile``, which expects percent.
_FLOOR_PERCENT = 0.99
#: Exchanges left and right, which makes the mirror image of a pose a rotation again. People
#: in SQA3D look along the x axis of their own frame, so that y is left and right.
_SIDES = np.diag([1.0, -1.0, 1.0])


class SceneLoader(BaseTransform):
    """Reads the files of a scene, as the first step of a pipeline."""

    def files(self, results: dict) -> list[str]:
        """Return the files that :meth:`transform` reads."""
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
        normals (bool): Points have normals, which the file has to have.
        height (bool): Points have their height above the floor, meters, as the last column.
        annotations (bool): Read the objects too, which training needs.

    Adds to an entry with ``scene_path`` and ``scan_file``:

    - ``points``: float32 ``[V, 3 + F]``, a copy that may be changed; ``normals``, the index
      of the first of the columns of normals, or None.
    - ``instances`` and ``semantics``: int32 ``[V]``, ``boxes`` float32 ``[M, 6]`` and
      ``labels`` int64 ``[M]``, with ``annotations``.
    - ``pose``: float64 ``[7]``, where the entry has ``position`` and ``rotation``.
    """

    def __init__(
        self,
        color: bool = True,
        normals: bool = False,
        height: bool = True,
        annotations: bool = True,
    ) -> None:
        self.color, self.normals = color, normals
        self.height, self.annotations = height, annotations

    def files(self, results: dict) -> list[str]:
        return files_of(results['scene_path'], results['scan_file'], self.annotations)

    def transform(self, results: dict) -> dict:
        scene = read_scene(results['scene_path'], results['scan_file'], self.annotations)
        results |= self.columns_of(scene.points)
        if self.annotations:
            results |= dict(instances=scene.instances, semantics=scene.semantics)
            results |= dict(boxes=scene.boxes.copy(), labels=scene.labels)
        _add_pose(results, scene.center, scene.alignment)
        return results

    def columns_of(self, points: np.ndarray) -> dict:
        """Return the columns of ``[V, 6 or 9]`` that the model reads, and where normals begin."""
        columns = [points[:, :3]]
        if self.color:
            columns.append(points[:, 3:6])
        if self.normals:
            check('LoadScene.normals=True: columns of the points', points.shape[1], least=9)
            columns.append(points[:, 6:9])
        if self.height:
            z = points[:, 2:3]
            columns.append(z - np.percentile(z, _FLOOR_PERCENT).astype(np.float32))
        normals = 3 + 3 * self.color if self.normals else None
        return dict(points=np.concatenate(columns, axis=1), normals=normals)


@TRANSFORMS.register_module()
class LoadObjects(SceneLoader):
    """Reads stored features of objects instead of points.

    Args:
        pose (bool): Also add where the asker stands, in the frame of the aligned scan. It
            needs the scan's ``_vert.npy`` and ``.txt``. False for a model without
            ``pose_head``.

    Adds to an entry with ``object_path``: ``objects``, float32 ``[O, C]``; and ``pose``, as
    :class:`LoadScene`.
    """

    def __init__(self, pose: bool = True) -> None:
        self.pose = pose

    def files(self, results: dict) -> list[str]:
        frame = [f'{results["scene_path"]}_vert.npy', results['scan_file']]
        return [object_file(results['object_path']), *(frame if self.pose else ())]

    def transform(self, results: dict) -> dict:
        results['objects'] = read_objects(object_file(results['object_path']))
        if self.pose:
            _add_pose(results, *read_frame(results['scene_path'], results['scan_file']))
        return results


def _add_pose(results: dict, center: np.ndarray, alignment: np.ndarray) -> None:
    """Move the asker from SQA3D's frame, around the middle of the scan, to the aligned one."""
    if results.get('position') is None:
        return
    turn = alignment[:3, :3]
    place = turn @ (np.array(results['position']) + center) + alignment[:3, 3]
    heading = Rotation.from_matrix(turn @ Rotation.from_quat(results['rotation']).as_matrix())
    results['pose'] = np.concatenate((place, heading.as_quat()))


@TRANSFORMS.register_module()
class SampleScenePoints(BaseTransform):
    """Samples points of a scene, with replacement where it has fewer.

    Args:
        num (int): How many, 40,000 in the release.
        seed (int, optional): The same points of a scene every time, for tests. None:
            other points each time, as in the release.
    """

    def __init__(self, num: int = 40000, seed: int | None = None) -> None:
        check('SampleScenePoints.num', num, least=1)
        self.num, self.seed = num, seed

    def transform(self, results: dict) -> dict:
        count = len(results['points'])
        rng: Any = np.random
        if self.seed is not None:
            name = Path(results['scene_path']).name
            rng = np.random.RandomState((self.seed + zlib.crc32(name.encode())) % 2**32)
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

    Heights and colors stay as they are. Boxes stay along the axes: each becomes the smallest
    one around the turned box. The values are those of SQA3D's code; unlike there, normals
    turn with the points.

    In a mirrored room what was left of the asker is right of them, but texts stay as they
    are. The release accepts that; set ``flip=0`` where many questions are about sides.
    """

    def __init__(self, flip: float = 0.5, angle: float = 5.0, shift: float = 0.5) -> None:
        check('AugmentScene.flip', flip, least=0, most=1)
        check('AugmentScene.angle and shift', min(angle, shift), least=0)
        self.flip, self.angle, self.shift = flip, angle, shift

    def transform(self, results: dict) -> dict:
        mirrors = (np.diag([-1.0, 1.0, 1.0]), np.diag([1.0, -1.0, 1.0]))
        steps = [mirror for mirror in mirrors if np.random.random() < self.flip]
        for axis in 'xyz':
            angle = np.random.uniform(-self.angle, self.angle)
            steps.append(Rotation.from_euler(axis, angle, degrees=True).as_matrix())
        move(results, steps, np.random.uniform(-self.shift, self.shift, size=3))
        return results


def move(
    results: dict, steps: Sequence[np.ndarray], shift: Sequence[float] = (0.0, 0.0, 0.0)
) -> None:
    """Move points, boxes and the asker of an entry.

    Args:
        results (dict): With ``points``, and what it has of ``normals``, ``boxes`` and
            ``pose``; their arrays are changed.
        steps (Sequence[np.ndarray]): ``[3, 3]``, rotations and mirrors, one after the other.
            With each, boxes grow as much as they have to, to stay along the axes.
        shift (Sequence[float]): Behind them.
    """
    matrix = functools.reduce(lambda done, step: step @ done, steps, np.eye(3))
    points, normals = results['points'], results.get('normals')
    small = matrix.T.astype(points.dtype)  # 40,000 points; float64 takes twice as long
    points[:, :3] = points[:, :3] @ small + np.array(shift, dtype=points.dtype)
    if normals is not None:
        points[:, normals : normals + 3] = points[:, normals : normals + 3] @ small
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
class BlankScene(BaseTransform):
    """Replaces points and objects by constants, for controls that see the texts only.

    The points are the same in every scene of as many points: evenly drawn at random from a box
    of 4 x 4 x 1 m on the origin, their other columns 0. (In one place, all features would be
    alike, and batch norms would divide by nothing.) Stored objects are zeros. Boxes, pose
    and how many there are stay. It comes after what else changes points.
    """

    def transform(self, results: dict) -> dict:
        for kind in results.keys() & {'points', 'objects'}:
            results[kind] = np.zeros_like(results[kind])
        if 'points' in results:
            size = len(results['points']), 3
            places = np.random.default_rng(0).uniform((-2, -2, 0), (2, 2, 1), size)
            results['points'][:, :3] = places
        return results


@TRANSFORMS.register_module()
class PackScene(BaseTransform):
    """Packs ``inputs`` and ``data_samples`` for the model.

    ``inputs`` has ``points`` or ``objects``. ``data_samples`` is a
    :class:`VisionLanguageDataSample` with the texts
    in its metainfo, ``gt_pose`` where the pose is annotated, and for annotated points boxes,
    labels and votes.

    Args:
        meta_keys (Sequence[str]): What the sample keeps of an entry, where it is there.
    """

    def __init__(self, meta_keys: Sequence[str] = META_KEYS) -> None:
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: dict) -> dict:
        kept = {k: results[k] for k in self.meta_keys if k in results}
        sample = VisionLanguageDataSample(metainfo=kept)
        if 'pose' in results:
            sample.gt_pose = torch.from_numpy(results['pose'].astype(np.float32))
        kind = 'objects' if 'objects' in results else 'points'
        inputs = np.ascontiguousarray(results[kind], dtype=np.float32)
        if 'instances' in results:
            votes, mask = votes_of(inputs[:, :3], results['instances'], results['semantics'])
            sample.gt_votes, sample.gt_vote_mask = torch.from_numpy(votes), torch.from_numpy(mask)
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
        semantics (np.ndarray): int ``[P]``, the NYU40 id of each. That of an object is its
            first point's.

    Returns:
        tuple[np.ndarray, np.ndarray]: float32 ``[P, 3]``, from each point to the middle of
        the box around the sampled points of its object, and bool ``[P]``, True on objects.
    """
    # Objects one after the other, and where each begins; the sort keeps their points' order.
    order = np.argsort(instances, kind='stable')
    begins = np.flatnonzero(np.diff(instances[order], prepend=instances[order[0]] - 1))
    sorted_points = points[order]
    low = np.minimum.reduceat(sorted_points, begins)
    high = np.maximum.reduceat(sorted_points, begins)
    ids = semantics[order[begins]]
    is_object = np.array([class_of(int(i)) is not None for i in ids], dtype=bool)
    index = np.empty_like(order)
    index[order] = np.repeat(np.arange(len(begins)), np.diff(begins, append=len(order)))
    mask = is_object[index]
    votes = np.where(mask[:, None], ((low + high) / 2)[index] - points, 0)
    return votes.astype(np.float32), mask
