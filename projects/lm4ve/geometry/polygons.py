"""Cuts polygons into triangles, of which alone open3d makes meshes."""

from collections.abc import Sequence

import numpy as np

#: How far the areas of triangles may miss their polygon's, relative to it.
_AREA_ERROR = 1e-6


def cut_polygons(faces: Sequence[np.ndarray], points: np.ndarray) -> np.ndarray:
    """Cut polygons into triangles whose corners are theirs, and which face the same way.

    Args:
        faces (Sequence[np.ndarray]): int64, the corners of each, three at least. One of
            more than three must have an area.
        points (np.ndarray): float64 ``[V, 3]``.

    Returns:
        np.ndarray: int64 ``[T, 3]``, in the order of the polygons.

    Raises:
        ValueError: A polygon crosses itself.
    """
    triangles = [np.zeros((0, 3), np.int64)]
    for corners in faces:
        if len(corners) == 3:
            triangles.append(corners[None])
        else:
            triangles.append(corners[_cut(points[corners])])
    return np.concatenate(triangles)


def _cut(corners: np.ndarray) -> np.ndarray:
    """Return the triangles of one polygon as numbers of its corners, int64 ``[T, 3]``.

    Args:
        corners (np.ndarray): float64 ``[N, 3]``, more than three.

    Raises:
        ValueError: The triangles do not have its area.
        ModuleNotFoundError: mapbox_earcut of the extra ``pointcloud`` is missing.
    """
    # Few meshes have polygons.
    import mapbox_earcut

    corners = corners - corners[0]
    normal = np.cross(corners, np.roll(corners, -1, axis=0)).sum(axis=0)
    # Of the three coordinates, the one along which it is the flattest is left out.
    dropped = int(np.abs(normal).argmax())
    plane = np.ascontiguousarray(np.delete(corners, dropped, axis=1))
    ends = np.array([len(plane)], np.uint32)
    found = mapbox_earcut.triangulate_float64(plane, ends).reshape(-1, 3)
    triangles: np.ndarray = found.astype(np.int64)

    a, b, c = np.moveaxis(corners[triangles], 1, 0)
    areas = np.cross(b - a, c - a)[:, dropped]
    area = normal[dropped]
    if abs(np.abs(areas).sum() - abs(area)) > _AREA_ERROR * abs(area):
        raise ValueError('a face cannot be cut into triangles')
    if areas.sum() * area < 0:
        return triangles[:, ::-1]
    return triangles
