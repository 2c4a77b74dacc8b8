"""Parametric surfaces and points drawn on surfaces, for the synthetic data of several tasks.

The surfaces, the order of their triangles and the random numbers are those of open3d 0.20
(``TriangleMesh.create_*``, ``sample_points_uniformly``), with which these data sets were first
drawn. A seed gives the same points here, without open3d and its graphics libraries.
"""

from collections.abc import Callable, Sequence
from math import cos, pi, sin, sqrt

import numpy as np

#: Vertices float64 ``[V, 3]`` and triangles int64 ``[T, 3]``.
Mesh = tuple[np.ndarray, np.ndarray]


def box(width: float, height: float, depth: float) -> Mesh:
    """A box with a corner at the origin."""
    corners = [(x, y, z) for y in (0, height) for z in (0, depth) for x in (0, width)]
    faces = '475 467 024 264 012 132 157 173 237 276 041 145'
    return np.array(corners, float), _triangles(faces)


def tetrahedron() -> Mesh:
    """A regular tetrahedron in the unit sphere."""
    a, b, c = sqrt(8 / 9), sqrt(2 / 9), sqrt(2 / 3)
    corners = [(a, 0, -1 / 3), (-b, c, -1 / 3), (-b, -c, -1 / 3), (0, 0, 1)]
    return np.array(corners), _triangles('021 032 013 123')


def octahedron() -> Mesh:
    """A regular octahedron in the unit sphere."""
    return np.concatenate((np.eye(3), -np.eye(3))), _triangles('012 132 342 402 051 153 354 450')


def _triangles(corners: str) -> np.ndarray:
    return np.array([[int(digit) for digit in word] for word in corners.split()])


def sphere(radius: float, resolution: int) -> Mesh:
    """A sphere around the origin with ``2 * resolution`` meridians."""
    angles = [pi / resolution * i for i in range(1, resolution)]
    rings = [(sin(angle), cos(angle)) for angle in angles]
    vertices, triangles = _revolve((1.0, -1.0), rings, 2 * resolution)
    return vertices * radius, triangles


def cylinder(radius: float, height: float, resolution: int) -> Mesh:
    """A closed cylinder around the origin, along z."""
    rings = [(radius, height * 0.5 - height / 4 * i) for i in range(5)]
    return _revolve((height * 0.5, -height * 0.5), rings, resolution)


def cone(radius: float, height: float, resolution: int) -> Mesh:
    """A closed cone along z with the middle of its base at the origin."""
    vertices, triangles = _revolve((0.0, height), [(radius, 0.0)], resolution)
    return vertices, triangles[:, [0, 2, 1]]


def _revolve(poles: Sequence[float], rings: Sequence[tuple], count: int) -> Mesh:
    """Turn a profile around z: two poles, and rings (radius, z) from the first to the second."""
    angles = [2 * pi / count * j for j in range(count)]
    vertices = [(0.0, 0.0, z) for z in poles]
    for radius, z in rings:
        vertices += [(cos(angle) * radius, sin(angle) * radius, z) for angle in angles]
    first, last = 2, 2 + count * (len(rings) - 1)
    edges = [(j, (j + 1) % count) for j in range(count)]
    triangles = []
    for j, k in edges:
        triangles += [(0, first + j, first + k), (1, last + k, last + j)]
    for a in range(first, last, count):
        b = a + count
        for j, k in edges:
            triangles += [(b + j, a + k, a + j), (b + j, b + k, a + k)]
    return np.array(vertices), np.array(triangles)


def torus(radius: float, tube: float, around: int = 30, across: int = 20) -> Mesh:
    """A torus around z."""
    vertices, triangles = [], []
    for i in range(around):
        u, a, b = 2 * pi / around * i, across * i, across * ((i + 1) % around)
        for j in range(across):
            v, k = 2 * pi / across * j, (j + 1) % across
            x, y = (radius * w + tube * cos(v) * w for w in (cos(u), sin(u)))
            vertices.append((x, y, tube * sin(v)))
            triangles += [(b + j, b + k, a + j), (a + j, b + k, a + k)]
    return np.array(vertices), np.array(triangles)


def mobius(width: float, length_split: int = 48, width_split: int = 8) -> Mesh:
    """A Moebius strip with one half turn, of radius 1."""
    vertices, triangles = [], []
    for i in range(length_split):
        u = 2 * pi / length_split * i
        for j in range(width_split):
            v = -width / 2 + width / (width_split - 1) * j
            x, y = (cos(u / 2) * w * v + w for w in (cos(u), sin(u)))
            vertices.append((x, y, sin(u / 2) * v))
    grid = np.arange(len(vertices)).reshape(length_split, width_split)
    grid = np.concatenate((grid, grid[:1, ::-1]))  # the end is joined upside down
    for i in range(length_split):
        for j in range(width_split - 1):
            (a, b), (c, d) = grid[i : i + 2, j : j + 2]
            even, joined = (i + j) % 2 == 0, i == length_split - 1
            if joined:
                triangles += [(d, a, b), (c, a, d)] if even else [(a, b, c), (c, b, d)]
            else:
                triangles += [(a, d, b), (a, c, d)] if even else [(b, a, c), (b, c, d)]
    return np.array(vertices), np.array(triangles)


def arrow(radius: float, tip_radius: float, height: float, tip_height: float) -> Mesh:
    """An arrow along z from the origin: a cylinder and a cone on it."""
    shaft, tip = cylinder(radius, height, 20), cone(tip_radius, tip_height, 20)
    return _joined((shaft[0] + (0, 0, height * 0.5), shaft[1]), (tip[0] + (0, 0, height), tip[1]))


def frame() -> Mesh:
    """A ball at the origin and an arrow of length 1 along each axis."""
    vertices, triangles = arrow(0.035, 0.06, 0.8, 0.2)
    turned = [(vertices[:, axes], triangles) for axes in ((2, 0, 1), (1, 2, 0), (0, 1, 2))]
    return _joined(sphere(0.06, 20), *turned)


def _joined(*meshes: Mesh) -> Mesh:
    starts = np.cumsum([0, *(len(vertices) for vertices, _ in meshes)])
    triangles = [mesh[1] + start for mesh, start in zip(meshes, starts[:-1], strict=True)]
    return np.concatenate([vertices for vertices, _ in meshes]), np.concatenate(triangles)


#: Surfaces of random proportions, as functions of a generator of numbers.
PRIMITIVES: dict[str, Callable[[np.random.Generator], Mesh]] = dict(
    sphere=lambda rng: sphere(1.0, 24),
    box=lambda rng: box(*rng.uniform(0.6, 1.6, 3)),
    cone=lambda rng: cone(1.0, rng.uniform(1.2, 2.6), 32),
    cylinder=lambda rng: cylinder(1.0, rng.uniform(1.0, 3.0), 32),
    torus=lambda rng: torus(1.0, rng.uniform(0.2, 0.45)),
    tetrahedron=lambda rng: tetrahedron(),
    octahedron=lambda rng: octahedron(),
    mobius=lambda rng: mobius(rng.uniform(0.4, 0.9)),
    arrow=lambda rng: arrow(
        rng.uniform(0.6, 1.0), rng.uniform(1.4, 2.0), rng.uniform(3.0, 5.0), rng.uniform(2.0, 3.0)
    ),
    frame=lambda rng: frame(),
)


def sample_primitive(name: str, num_points: int, rng: np.random.Generator) -> np.ndarray:
    """Draw points uniformly on a primitive of random proportions.

    Args:
        name (str): One of :data:`PRIMITIVES`.
        num_points (int): N.
        rng (np.random.Generator): The source of all random numbers.

    Returns:
        np.ndarray: float64 ``[N, 3]``, in the mesh's own frame and unit.
    """
    return sample_surface(PRIMITIVES[name](rng), num_points, int(rng.integers(2**31)))


def sample_surface(mesh: Mesh, num_points: int, seed: int) -> np.ndarray:
    """Draw points on a surface, uniformly by area.

    Args:
        mesh (Mesh): Its area must be positive and finite.
        num_points (int): N.
        seed (int): Seed of a Mersenne twister.

    Returns:
        np.ndarray: float64 ``[N, 3]``.

    Raises:
        ValueError: The surface has no area, or an infinite one.
    """
    a, b, c = mesh[0][mesh[1]].swapaxes(0, 1)
    shares = np.cumsum(np.linalg.norm(np.cross(b - a, c - a), axis=1))
    if not 0 < shares[-1] < np.inf:
        raise ValueError('its surface has no area, or an infinite one')
    # Numbers in [0, 1) as C++ makes them of 64 random bits; three a point.
    bits = np.frombuffer(np.random.RandomState(seed).bytes(24 * num_points), '<u4')
    u, v, w = ((bits[::2] + bits[1::2] * 2.0**32) / 2.0**64).reshape(-1, 3).T
    triangle = np.searchsorted(shares / shares[-1], w)
    u, v = np.sqrt(u)[:, None], v[:, None]
    return (1 - u) * a[triangle] + u * (1 - v) * b[triangle] + u * v * c[triangle]
