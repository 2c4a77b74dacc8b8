"""Transforms of single clouds: ``results['points']``, float32 ``[N, 3]``, in the files' unit.

Randomness is numpy's global generator, which MMEngine seeds in every worker.
"""

from collections.abc import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform, Compose
from scipy.spatial.transform import Rotation

from lm4ve.errors import check
from lm4ve.registry import TRANSFORMS
from lm4ve.tasks.pointcloud.structures import PointCloudDataSample


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


@TRANSFORMS.register_module()
class ShufflePoints(BaseTransform):
    """Put the points of a cloud into a random order.

    Farthest points start at the first point, so without this every epoch would train on
    the same ones.
    """

    def transform(self, results: dict) -> dict:
        """Draw a permutation of ``points``."""
        results['points'] = np.random.permutation(results['points'])
        return results


def farthest_points(points: np.ndarray, num: int) -> np.ndarray:
    """Pick the farthest points of one cloud, from the first point on.

    The picks are those of :func:`lm4ve.geometry.point_ops.farthest_point_sample`. For a
    single cloud this loop takes a quarter of its time, since NumPy's calls cost less.

    Args:
        points (np.ndarray): float32 ``[N, 3]``, finite.
        num (int): How many, at most N.

    Returns:
        np.ndarray: ``[num, 3]``, in the order of picking.
    """
    check('num', num, least=1, most=len(points))
    axes = np.ascontiguousarray(points.T)
    nearest = np.full(len(points), np.inf, dtype=points.dtype)
    picks = np.zeros(num, dtype=np.int64)
    # The results go where those of the last pick were: fresh memory costs more than the
    # arithmetic.
    squares = np.empty_like(axes)
    distance = np.empty_like(nearest)
    for i in range(1, num):
        last = points[picks[i - 1], :, None]
        np.subtract(axes, last, out=squares)
        np.square(squares, out=squares)
        np.add(squares[0], squares[1], out=distance)
        np.add(distance, squares[2], out=distance)
        np.minimum(nearest, distance, out=nearest)
        # Of several that are equally far, argmax returns the first.
        picks[i] = nearest.argmax()
    return points[picks]


@TRANSFORMS.register_module()
class SamplePoints(BaseTransform):
    """Bring a cloud to ``num`` points: choose some, or repeat those of a smaller cloud.

    Args:
        num (int): How many.
        method (str): 'fps' (farthest points, from the first point on; in training,
            :class:`ShufflePoints` comes before), 'random' (without replacement), or
            'first' (which is 'fps' for clouds that are stored in farthest-point order,
            as :class:`lm4ve.ModelNet40` does).
        fill (bool): Whether the points of a smaller cloud are repeated; False keeps it
            as it is ("capped at available").
    """

    def __init__(self, num: int, method: str = 'random', fill: bool = True) -> None:
        check('SamplePoints.method', method, choices=('fps', 'random', 'first'))
        self.num = num
        self.method = method
        self.fill = fill

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
        return farthest_points(points, self.num)


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


def random_rotation(rng=np.random) -> np.ndarray:
    """Draw a rotation matrix ``[3, 3]`` from the uniform distribution over SO(3).

    The unit quaternion of four Gaussian numbers (Shoemake, Graphics Gems III, 1992), as
    SciPy's ``Rotation.random`` draws it, but with the scalar first: the shapes of the
    demo were made so.
    """
    w, x, y, z = rng.normal(size=4)
    return Rotation.from_quat([x, y, z, w]).as_matrix()


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
