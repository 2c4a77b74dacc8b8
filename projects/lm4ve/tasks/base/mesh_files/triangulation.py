"""Polygons to triangles, after the indices are checked."""

from collections import deque
from collections.abc import Sequence

import numpy as np

_MOST_CORNERS = 5000
#: How often all corners of a polygon are looked at; once is enough for a simple one.
_PASSES = 3


def triangulate(points: np.ndarray, faces: Sequence[Sequence[int]] | np.ndarray) -> np.ndarray:
    """Triangles of polygons.

    Args:
        points (np.ndarray): ``[V, 3]``.
        faces (Sequence[Sequence[int]] | np.ndarray): Corners of each; what has fewer
            than three has no surface and is left out.

    Returns:
        np.ndarray: int64 ``[T, 3]``: a fan of a convex polygon, ears of another.

    Raises:
        ValueError: A corner is no vertex; a polygon is too long to be cut into ears, whose
            cost grows with the square of its corners.
    """
    sizes = np.fromiter((len(f) for f in faces), np.int64, len(faces))
    triangles = [np.zeros((0, 3), np.int64)]
    for size in np.unique(sizes):
        group = np.asarray([faces[i] for i in np.flatnonzero(sizes == size)], dtype=np.int64)
        if group.size and not (0 <= group.min() and group.max() < len(points)):
            raise ValueError(
                f'a face names vertex {group.min() if group.min() < 0 else group.max()} '
                f'of {len(points):,} (0 to {len(points) - 1:,})'
            )
        if size == 3:
            triangles.append(group)
        elif size > 3:
            convex = _are_convex(points[group])
            fan = np.arange(1, size - 1)
            corners = np.stack([np.zeros_like(fan), fan, fan + 1], axis=1)
            triangles.append(group[convex][:, corners].reshape(-1, 3))
            if size > _MOST_CORNERS and not convex.all():
                raise ValueError(
                    f'a face that is not convex has {size:,} corners, more than {_MOST_CORNERS:,}'
                )
            triangles += [face[_ears(points[face])] for face in group[~convex]]
    return np.concatenate(triangles)


def _turns(rings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cross product at each corner of ``[M, n, 3]``, and the normal ``[M, 3]`` (Newell)."""
    before, after = np.roll(rings, 1, axis=1), np.roll(rings, -1, axis=1)
    rings_from_first = rings - rings[:, :1]
    normal = np.cross(rings_from_first, np.roll(rings_from_first, -1, axis=1)).sum(axis=1)
    return np.cross(rings - before, after - rings), normal


def _are_convex(rings: np.ndarray) -> np.ndarray:
    cross, normal = _turns(rings)
    return (np.einsum('mnc,mc->mn', cross, normal) >= 0).all(axis=1)


def _ears(ring: np.ndarray) -> np.ndarray:
    """Cut ears off a simple polygon ``[n, 3]``; ``[n - 2, 3]`` indices."""
    normal = _turns(ring[None])[1][0]
    axis = np.abs(normal).argmax()
    flat = np.delete(ring, axis, axis=1)
    # Counter-clockwise in the plane of the two axes that are kept.
    side = np.sign(normal[axis]) * (-1 if axis == 1 else 1)

    def area(a, b, c):
        (ax, ay), (bx, by), (cx, cy) = flat[a].T, flat[b].T, flat[c].T
        return side * ((bx - ax) * (cy - ay) - (by - ay) * (cx - ax))

    def is_ear(a, b, c):
        others = np.flatnonzero(alive)
        others = others[(flat[others][:, None] != flat[[a, b, c]]).any(axis=2).all(axis=1)]
        inside = np.minimum(np.minimum(area(a, b, others), area(b, c, others)), area(c, a, others))
        return area(a, b, c) > 0 and not (inside >= 0).any()

    count = len(ring)
    alive, triangles = np.ones(count, bool), []
    before, after = np.roll(range(count), 1), np.roll(range(count), -1)
    for _ in range(_PASSES):
        waiting = deque(np.flatnonzero(alive))
        while waiting and len(triangles) < count - 3:
            if not alive[b := waiting.popleft()]:
                continue
            a, c = before[b], after[b]
            if is_ear(a, b, c):
                triangles.append((a, b, c))
                alive[b], after[a], before[c] = False, c, a
                waiting.extend((a, c))  # of a simple polygon, no other corner has become an ear
    # Three corners are left, or it crosses itself or is flat: a fan is as good as any cut.
    first, *left = np.flatnonzero(alive)
    triangles += [(first, b, c) for b, c in zip(left[:-1], left[1:], strict=True)]
    return np.array(triangles)
