"""Transforms of single clouds: ``results['points']``, float32 ``[N, 3]``, in the files' unit.

Randomness is numpy's global generator, which MMEngine seeds in every worker.
"""

from collections.abc import Sequence

import fpsample
import numpy as np
import torch
from mmcv.transforms import BaseTransform, Compose
from scipy.spatial.transform import Rotation

from lm4ve.errors import check, require
from lm4ve.geometry.rotations import random_rotation
from lm4ve.registry import TRANSFORMS
from lm4ve.tasks.pointcloud.structures import PointCloudDataSample

#: Where farthest points start.
STARTS = ('first', 'random')
#: Depth of the tree whose leaves are buckets, which fpsample calls `h`: the fastest, or
#: nearly so, for 1,200 of 2,048 and 1,200 and 4,800 of 8,192 points.
_HEIGHT = 5


@TRANSFORMS.register_module()
class NormalizeToUnitSphere(BaseTransform):
    """Move the mean to the origin and scale the farthest point to distance 1.

    A cloud whose points are all equal becomes zeros.
    """

    def transform(self, results: dict) -> dict:
        """Move and scale ``points``."""
        points = results['points'] - results['points'].mean(axis=0)
        radius = np.sqrt((points**2).sum(axis=1).max())
        if radius > 0:
            points = points / radius
        results['points'] = points
        return results


def farthest_points(points: np.ndarray, num: int, start: str = 'first') -> np.ndarray:
    """Pick points of one cloud that are far from each other, by fpsample.

    Each next point is the one whose distance to the points picked so far is largest.
    Distances are of float32: of points that are equally far to its last bits, either
    start may take another one, and so may another version of fpsample.
    :func:`lm4ve.geometry.point_ops.farthest_point_sample` does the same for batches on
    any device, and takes the first of such points.

    Args:
        points (np.ndarray): float32 ``[N, 3]``, finite.
        num (int): How many, at most N.
        start (str): 'first' (point 0 is picked first, by the plain loop) or 'random' (a
            point that NumPy's global generator draws, by buckets, which take a fifth of
            the loop's time or less).

    Returns:
        np.ndarray: ``[num, 3]``, in the order of picking.

    Source: Han et al., QuickFPS, IEEE TCAD 2023, for the buckets.
    """
    check('num', num, least=1, most=len(points))
    check('start', start, choices=STARTS)
    if start == 'first':
        picks = fpsample.fps_sampling(points, num, start_idx=0)
        return points[picks]
    if len(points) == 1:
        return points
    # The buckets take no start: their `start_idx` counts in the order of their tree.
    # Without it fpsample draws it, and any point is as likely as another.
    deepest = len(points).bit_length() - 1
    height = min(_HEIGHT, deepest)
    picks = fpsample.bucket_fps_kdline_sampling(points, num, height)
    return points[picks]


@TRANSFORMS.register_module()
class SamplePoints(BaseTransform):
    """Bring a cloud to ``num`` points: choose some, or repeat those of a smaller cloud.

    Args:
        num (int): How many.
        method (str): 'fps' (farthest points), 'random' (without replacement), or
            'first' (which is 'fps' for clouds that are stored in farthest-point order,
            as :class:`lm4ve.ModelNet40` does).
        fill (bool): Whether the points of a smaller cloud are repeated; False keeps it
            as it is ("capped at available").
        start (str, optional): Where 'fps' starts: 'first' (the default: a test has the
            same points each time) or 'random' (each epoch trains on other points, and
            sampling takes a fifth of the time). See :func:`farthest_points`.

    Raises:
        UserError: There is no such method or start, or another method has a start.
    """

    def __init__(
        self,
        num: int,
        method: str = 'random',
        fill: bool = True,
        start: str | None = None,
    ) -> None:
        check('SamplePoints.method', method, choices=('fps', 'random', 'first'))
        if start is not None:
            check('SamplePoints.start', start, choices=STARTS)
            require(
                method == 'fps',
                f"SamplePoints.start='{start}' is of farthest points, and "
                f"SamplePoints.method='{method}' has none. Fix: method='fps', or no start.",
            )
        self.num = num
        self.method = method
        self.fill = fill
        self.start = start or 'first'

    def transform(self, results: dict) -> dict:
        """Choose from ``points``, or repeat them."""
        points = results['points']
        if len(points) < self.num:
            results['points'] = self._fill(points)
        else:
            results['points'] = self._choose(points)
        return results

    def _fill(self, points: np.ndarray) -> np.ndarray:
        """Repeat the points of a cloud that has too few in turn, unless ``fill`` is off."""
        if not self.fill:
            return points
        return np.resize(points, (self.num, points.shape[1]))

    def _choose(self, points: np.ndarray) -> np.ndarray:
        """Choose ``num`` points of a cloud ``[N, 3]`` that has enough, by the method."""
        if self.method == 'random':
            return points[np.random.permutation(len(points))[: self.num]]
        if self.method == 'first' or len(points) == self.num:
            return points[: self.num]
        return farthest_points(points, self.num, self.start)


@TRANSFORMS.register_module()
class RandomScaleTranslate(BaseTransform):
    """Scale each axis and shift: Point-BERT's only augmentation.

    Args:
        scale (Sequence[float]): Smallest and largest factor, for each axis anew.
        shift (float): Largest shift along each axis, in the points' unit.
    """

    def __init__(
        self, scale: Sequence[float] = (2 / 3, 3 / 2), shift: float = 0.2
    ) -> None:
        self.scale = scale
        self.shift = shift

    def transform(self, results: dict) -> dict:
        """Draw a factor and a shift for each axis, and apply them to ``points``."""
        least, most = self.scale
        scale = np.random.uniform(least, most, size=3)
        shift = np.random.uniform(-self.shift, self.shift, size=3)
        results['points'] = (results['points'] * scale + shift).astype(np.float32)
        return results


@TRANSFORMS.register_module()
class RandomRotate(BaseTransform):
    """Rotate about the origin.

    Args:
        group (str): 'z' (about that axis, any angle) or 'so3' (any rotation).
    """

    def __init__(self, group: str = 'z') -> None:
        check('RandomRotate.group', group, choices=('z', 'so3'))
        self.group = group

    def transform(self, results: dict) -> dict:
        """Draw a rotation of the group, and apply it to ``points``."""
        if self.group == 'so3':
            rotation = random_rotation()
        else:
            angle = np.random.uniform(0, 2 * np.pi)
            rotation = Rotation.from_euler('z', angle).as_matrix()
        results['points'] = (results['points'] @ rotation.T).astype(np.float32)
        return results


@TRANSFORMS.register_module()
class RandomJitter(BaseTransform):
    """Add Gaussian noise to each coordinate.

    Args:
        std (float): Standard deviation of the noise, in the points' unit.
        clip (float): Largest absolute value of it.
    """

    def __init__(self, std: float = 0.01, clip: float = 0.05) -> None:
        self.std = std
        self.clip = clip

    def transform(self, results: dict) -> dict:
        """Draw the noise of all coordinates, and add it to ``points``."""
        points = results['points']
        noise = np.random.normal(scale=self.std, size=points.shape)
        noise = noise.clip(-self.clip, self.clip)
        results['points'] = points + noise.astype(np.float32)
        return results


@TRANSFORMS.register_module()
class RandomPointDropout(BaseTransform):
    """Drop a random share of the points (PointNet++'s augmentation).

    A dropped point is replaced by one that stays, so that the number of points
    does not change; at least one stays.

    Args:
        max_ratio (float): The share is uniform between 0 and this.
    """

    def __init__(self, max_ratio: float = 0.875) -> None:
        self.max_ratio = max_ratio

    def transform(self, results: dict) -> dict:
        """Draw which ``points`` to drop, and put the first that stays in their places.

        If none or all would be dropped, nothing is.
        """
        points = results['points']
        draws = np.random.random(len(points))
        ratio = np.random.uniform(0, self.max_ratio)
        is_dropped = draws < ratio
        if is_dropped.any() and not is_dropped.all():
            # The first False.
            first_kept = np.argmin(is_dropped)
            points = points.copy()
            points[is_dropped] = points[first_kept]
            results['points'] = points
        return results


@TRANSFORMS.register_module()
class PackPointCloud(BaseTransform):
    """Convert to the inputs of a model: ``inputs`` and ``data_samples``."""

    def transform(self, results: dict) -> dict:
        """Return ``inputs``, float32 ``[N, 3]``, and ``data_samples`` with the label if known."""
        metainfo = dict(sample_idx=results.get('sample_idx'), path=results.get('path'))
        sample = PointCloudDataSample(metainfo=metainfo)
        if 'gt_label' in results:
            sample.gt_label = torch.tensor([results['gt_label']])
        points = np.ascontiguousarray(results['points'], dtype=np.float32)
        return dict(inputs=torch.from_numpy(points), data_samples=sample)


@TRANSFORMS.register_module()
class RepeatDraws(BaseTransform):
    """Draw several augmentations of a cloud, for voting.

    The draws come from a generator of their own, seeded by ``seed`` and the
    sample's index: a test gives the same figure with any number of workers.

    Args:
        transforms (list[dict]): The augmentations, ending with PackPointCloud.
        num (int): How many draws.
        seed (int): Seed of the draws.
    """

    def __init__(self, transforms: list[dict], num: int = 10, seed: int = 0) -> None:
        self.transforms = Compose(transforms)
        self.num = num
        self.seed = seed

    def transform(self, results: dict) -> dict | None:
        """Return a list of the draws' values for each key, as test-time augmentation takes them.

        NumPy's global generator is afterwards as it was.
        """
        state = np.random.get_state()
        # The seeds are so far apart that no two of them share a sample's draws.
        np.random.seed((self.seed * 1_000_003 + results['sample_idx']) % 2**32)
        try:
            draws = [self.transforms(dict(results)) for _ in range(self.num)]
        finally:
            np.random.set_state(state)
        return {name: [draw[name] for draw in draws] for name in draws[0]}
