"""Ten classes of shapes, made from parametric surfaces: no download.

Each object is one surface with random proportions, bent by a random scale of each axis,
in a random pose over all of SO(3), with parts missing, seen from one side or all,
unevenly sampled and noisy. Its bounding box does not give its class away: a random
forest on the extents along the axes and principal axes stays below 75 %.
"""

import os
from pathlib import Path

import numpy as np
from scipy.spatial import ConvexHull
from tqdm import tqdm

from lm4ve.errors import check
from lm4ve.geometry.surfaces import PRIMITIVES, sample_primitive
from lm4ve.registry import DATASETS
from lm4ve.tasks.pointcloud.datasets.point_clouds import PointCloudDataset
from lm4ve.tasks.pointcloud.datasets.readers import cached_array
from lm4ve.tasks.pointcloud.transforms import random_rotation

#: Change it with anything below that changes the objects.
VERSION = 1
#: Share of each class of the training split that tuning may be judged by.
VAL_SHARE = 0.2
CLASSES = tuple(PRIMITIVES)


def make_object(name: str, num_points: int, rng: np.random.Generator) -> np.ndarray:
    """Make one object.

    Args:
        name (str): One of :data:`CLASSES`.
        num_points (int): N.
        rng (np.random.Generator): The source of all random numbers.

    Returns:
        np.ndarray: float32 ``[N, 3]``: mean at the origin, farthest point at
        distance 1.
    """
    # More points than are kept, since parts are removed below.
    points = sample_primitive(name, 8 * num_points, rng)
    points = (points - points.mean(axis=0)) @ random_rotation(rng).T
    # In a random frame, so that the scale also shears the shape.
    points = points * rng.uniform(0.8, 1.3, 3) @ random_rotation(rng).T
    points = points / np.linalg.norm(points, axis=1).max()
    points = _remove_parts(points, rng, num_points)
    # Denser at one side than at the other.
    direction = random_rotation(rng)[0]
    weight = np.exp(rng.uniform(0, 1.0) * points @ direction)
    chosen = rng.choice(
        len(points), num_points, len(points) < num_points, weight / weight.sum()
    )
    noise = rng.normal(scale=rng.uniform(0, 0.01), size=(num_points, 3))
    points = points[chosen] + noise
    points -= points.mean(axis=0)
    return (points / np.linalg.norm(points, axis=1).max()).astype(np.float32)


def _remove_parts(
    points: np.ndarray, rng: np.random.Generator, least: int
) -> np.ndarray:
    """Cut holes and hide the far side; at least ``least`` points stay."""
    for _ in range(rng.integers(0, 3)):
        hole = points[rng.integers(len(points))]
        far = np.linalg.norm(points - hole, axis=1) > rng.uniform(0.15, 0.35)
        if far.sum() >= 2 * least:
            points = points[far]
    if rng.random() < 0.3:
        seen = visible_points(points, 4.0 * random_rotation(rng)[0], 400.0)
        if len(seen) >= least:
            points = points[seen]
    return points


def visible_points(points: np.ndarray, eye: np.ndarray, radius: float) -> np.ndarray:
    """Indices of the points that an eye sees (Katz et al., SIGGRAPH 2007).

    Points are mirrored at a sphere around the eye; the visible ones are on the convex
    hull.
    """
    rays = points - eye
    lengths = np.linalg.norm(rays, axis=1, keepdims=True)
    mirrored = rays + 2 * (radius - lengths) * rays / lengths
    corners = ConvexHull(np.concatenate((mirrored, np.zeros((1, 3))))).vertices
    return np.sort(corners[corners < len(points)])


def make_primitives(per_class: int, num_points: int, seed: int) -> np.ndarray:
    """Make a set: float32 ``[10 * per_class, num_points, 3]``, class by class."""
    rng = np.random.default_rng(seed)
    names = [name for name in CLASSES for _ in range(per_class)]
    made = tqdm(names, 'sampling shapes', disable=None)
    return np.stack([make_object(name, num_points, rng) for name in made])


def default_cache() -> Path:
    """``$LM4VE_CACHE``, or ``~/.cache/lm4ve``."""
    return Path(os.environ.get('LM4VE_CACHE', '~/.cache/lm4ve')).expanduser()


@DATASETS.register_module()
class PrimitivesDataset(PointCloudDataset):
    """The set of shapes as a data set; made on first use and kept.

    Args:
        split (str): 'train' or 'test', which have different seeds. For choosing
            hyper-parameters without the test split, 'train' itself is cut in
            two: 'fit' and 'val' (a fifth of each class).
        per_class (int, optional): Objects of each class, before that cut;
            default: 300 to train with, 100 to test with.
        num_points (int): Points of each cloud.
        cache_dir (str, optional): Default: :func:`default_cache`.
        **kwargs: Passed to :class:`lm4ve.tasks.pointcloud.PointCloudDataset`.
    """

    METAINFO = dict(classes=CLASSES)

    def __init__(
        self,
        split: str = 'train',
        per_class: int | None = None,
        num_points: int = 512,
        cache_dir: str | None = None,
        **kwargs,
    ) -> None:
        check('dataset.split', split, choices=('train', 'fit', 'val', 'test'))
        self.split, self.num_points = split, num_points
        self.per_class = per_class or (100 if split == 'test' else 300)
        self.cache_dir = Path(cache_dir) if cache_dir else default_cache()
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        made_as = 'test' if self.split == 'test' else 'train'
        key = f'version {VERSION}, {made_as}, {self.per_class}, {self.num_points}, 0'
        name = f'primitives_{made_as}'
        sizes = self.per_class, self.num_points, int(made_as == 'test')
        self._clouds = cached_array(
            self.cache_dir, name, key, lambda: make_primitives(*sizes)
        )
        rows = np.arange(len(self._clouds))
        if self.split in ('fit', 'val'):
            # Objects of a class are independent draws: any of them may be held out.
            held_out = rows % self.per_class >= round((1 - VAL_SHARE) * self.per_class)
            rows = rows[held_out if self.split == 'val' else ~held_out]
        return [
            dict(path=name, row=int(i), gt_label=int(i // self.per_class)) for i in rows
        ]
