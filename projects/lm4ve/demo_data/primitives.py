"""Ten classes of shapes, made from parametric surfaces: no download.

Each object is one surface with random proportions, bent by a random scale of each axis,
in a random pose over all of SO(3), with parts missing, seen from one side or all,
unevenly sampled and noisy. Its bounding box does not give its class away: a random
forest on the extents along the axes and principal axes stays below 75 %.
"""

import numpy as np
from scipy.spatial import ConvexHull
from tqdm import tqdm

from lm4ve.geometry.rotations import random_rotation
from lm4ve.geometry.surfaces import PRIMITIVES, sample_primitive

#: Change it with anything below that changes the objects.
VERSION = 1
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
    unevenness = rng.uniform(0, 1.0)
    weights = np.exp(unevenness * points @ direction)
    chosen = rng.choice(
        len(points),
        num_points,
        replace=len(points) < num_points,
        p=weights / weights.sum(),
    )
    noise = rng.normal(scale=rng.uniform(0, 0.01), size=(num_points, 3))
    points = points[chosen] + noise
    points -= points.mean(axis=0)
    points = points / np.linalg.norm(points, axis=1).max()
    return points.astype(np.float32)


def _remove_parts(
    points: np.ndarray, rng: np.random.Generator, least: int
) -> np.ndarray:
    """Cut holes and hide the far side; at least ``least`` points stay."""
    num_holes = rng.integers(0, 3)
    for _ in range(num_holes):
        middle = points[rng.integers(len(points))]
        distances = np.linalg.norm(points - middle, axis=1)
        is_outside = distances > rng.uniform(0.15, 0.35)
        if is_outside.sum() >= 2 * least:
            points = points[is_outside]
    is_seen_from_one_side = rng.random() < 0.3
    if is_seen_from_one_side:
        eye = 4.0 * random_rotation(rng)[0]
        visible = visible_points(points, eye, 400.0)
        if len(visible) >= least:
            points = points[visible]
    return points


def visible_points(points: np.ndarray, eye: np.ndarray, radius: float) -> np.ndarray:
    """Return the indices of the points that an eye sees (Katz et al., SIGGRAPH 2007).

    Points are mirrored at a sphere around the eye; the visible ones are on the convex
    hull of these and of the eye.

    Args:
        points (np.ndarray): ``[N, 3]``.
        eye (np.ndarray): ``[3]``.
        radius (float): Of the sphere, larger than all distances from the eye.

    Returns:
        np.ndarray: int ``[M]``, sorted.
    """
    rays = points - eye
    lengths = np.linalg.norm(rays, axis=1, keepdims=True)
    mirrored = rays + 2 * (radius - lengths) * rays / lengths
    with_eye = np.concatenate((mirrored, np.zeros((1, 3))))
    corners = ConvexHull(with_eye).vertices
    is_point = corners < len(points)
    return np.sort(corners[is_point])


def make_primitives(per_class: int, num_points: int, seed: int) -> np.ndarray:
    """Make a set: float32 ``[10 * per_class, num_points, 3]``, class by class."""
    rng = np.random.default_rng(seed)
    names = []
    for name in CLASSES:
        names.extend([name] * per_class)
    objects = []
    for name in tqdm(names, 'sampling shapes', disable=None):
        objects.append(make_object(name, num_points, rng))
    return np.stack(objects)
