"""Cut polygons into triangles, for meshes that :mod:`lm4ve.geometry.mesh_files` parses.

open3d makes meshes of triangles alone, and cuts polygons only in its readers of files.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np


def cut_polygons(faces: Sequence[Sequence[int]], points: np.ndarray) -> np.ndarray:
    """Cut polygons into triangles whose corners are theirs.

    It clips ears: the first corner, from the second on, that is convex and whose triangle
    with its neighbors holds no other corner becomes a triangle and leaves the polygon.
    Polygons need not be convex; one that crosses itself may have no ear.

    Args:
        faces (Sequence[Sequence[int]]): The corners of each, three at least. One of more
            than three must have an area.
        points (np.ndarray): float64 ``[V, 3]``.

    Returns:
        np.ndarray: int64 ``[T, 3]``: of each polygon two triangles fewer than its
        corners, in the order of the polygons.

    Raises:
        ValueError: A polygon has no ear.
    """
    # Number of corners -> the polygons that have so many, which are cut at once.
    numbers_by_count: dict[int, list[int]] = defaultdict(list)
    for number, face in enumerate(faces):
        numbers_by_count[len(face)].append(number)
    triangles: list[np.ndarray] = [np.zeros((0, 3), np.int64)] * len(faces)
    for numbers in numbers_by_count.values():
        corners = np.array([faces[number] for number in numbers], np.int64)
        for number, pieces in zip(numbers, _clip_ears(corners, points), strict=True):
            triangles[number] = pieces
    return np.concatenate([np.zeros((0, 3), np.int64), *triangles])


def _clip_ears(corners: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Cut polygons of equally many corners.

    Args:
        corners (np.ndarray): int64 ``[P, N]``.
        points (np.ndarray): float64 ``[V, 3]``.

    Returns:
        np.ndarray: int64 ``[P, N - 2, 3]``.
    """
    count, num_corners = corners.shape
    if num_corners == 3:
        return corners[:, None]
    places = _to_plane(points[corners])
    rows = np.arange(count)
    triangles = []
    while corners.shape[1] > 3:
        ear = _find_ears(places)
        triangle = [corners[rows, ear - 1], corners[rows, ear], corners[rows, ear + 1]]
        triangles.append(np.stack(triangle, axis=1))
        stays = np.ones(corners.shape, bool)
        stays[rows, ear] = False
        corners = corners[stays].reshape(count, -1)
        places = places[stays].reshape(count, -1, 2)
    return np.stack([*triangles, corners], axis=1)


def _to_plane(places: np.ndarray) -> np.ndarray:
    """Return the corners of polygons in a plane, in which they run counterclockwise.

    Of the three coordinates, the one along which a polygon is the flattest is left out.

    Args:
        places (np.ndarray): float64 ``[P, N, 3]``.

    Returns:
        np.ndarray: float64 ``[P, N, 2]``, relative to the first corner.
    """
    places = places - places[:, :1]
    normals = np.cross(places, np.roll(places, -1, axis=1)).sum(axis=1)
    rows = np.arange(len(places))
    dropped = np.abs(normals).argmax(axis=1)
    x_axis = (dropped + 1) % 3
    y_axis = (dropped + 2) % 3
    # Seen from the other side, a polygon runs the other way round.
    is_clockwise = normals[rows, dropped] < 0
    x_axis, y_axis = (
        np.where(is_clockwise, y_axis, x_axis),
        np.where(is_clockwise, x_axis, y_axis),
    )
    return np.stack([places[rows, :, x_axis], places[rows, :, y_axis]], axis=-1)


def _find_ears(places: np.ndarray) -> np.ndarray:
    """Return the place of the first ear of each polygon, int64 ``[P]``.

    Neither the first corner nor the last is looked at: a polygon has two ears that are
    no neighbors.

    Args:
        places (np.ndarray): float64 ``[P, N, 2]``, counterclockwise, N > 3.

    Raises:
        ValueError: A polygon has none.
    """
    count, num_corners, _ = places.shape
    ears = np.zeros(count, np.int64)
    for middle in range(1, num_corners - 1):
        triangle = [middle - 1, middle, middle + 1]
        others = np.delete(places, triangle, axis=1)
        before, tip, after = places[:, triangle].swapaxes(0, 1)
        is_convex = _turn(before, tip, after) > 0
        is_ear = is_convex & ~_hold_a_point(before, tip, after, others)
        ears[is_ear & (ears == 0)] = middle
        if (ears > 0).all():
            return ears
    raise ValueError('a face cannot be cut into triangles')


def _hold_a_point(
    a: np.ndarray, b: np.ndarray, c: np.ndarray, points: np.ndarray
) -> np.ndarray:
    """Return which triangles have a point inside or on an edge, bool ``[P]``.

    Points at their corners do not count: a polygon with a hole passes some corners twice.

    Args:
        a, b, c (np.ndarray): The corners, counterclockwise, float64 ``[P, 2]``.
        points (np.ndarray): float64 ``[P, N, 2]``.
    """
    a, b, c = a[:, None], b[:, None], c[:, None]
    is_inside = (_turn(a, b, points) >= 0) & (_turn(b, c, points) >= 0)
    is_inside &= _turn(c, a, points) >= 0
    for corner in (a, b, c):
        is_inside &= (points != corner).any(axis=-1)
    return np.asarray(is_inside.any(axis=1))


def _turn(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Return the cross product of the ways from a to b and from b to c, all ``[..., 2]``."""
    first = b - a
    second = c - b
    return first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]
