"""Surfaces of random proportions, and random points on them, for synthetic data.

open3d makes both. Its random numbers are seeded anew for each surface, so that points
do not depend on what was drawn before or on the number of worker processes.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from lm4ve.geometry.open3d_library import load_open3d

if TYPE_CHECKING:
    from open3d.geometry import TriangleMesh


def _sphere(rng: np.random.Generator) -> dict[str, Any]:
    """Draw the arguments of open3d's ``create_sphere``."""
    return dict(radius=1.0, resolution=24)


def _box(rng: np.random.Generator) -> dict[str, Any]:
    """Draw the arguments of open3d's ``create_box``."""
    width, height, depth = rng.uniform(0.6, 1.6, 3)
    return dict(width=width, height=height, depth=depth)


def _cone(rng: np.random.Generator) -> dict[str, Any]:
    """Draw the arguments of open3d's ``create_cone``."""
    return dict(radius=1.0, height=rng.uniform(1.2, 2.6), resolution=32)


def _cylinder(rng: np.random.Generator) -> dict[str, Any]:
    """Draw the arguments of open3d's ``create_cylinder``."""
    return dict(radius=1.0, height=rng.uniform(1.0, 3.0), resolution=32)


def _torus(rng: np.random.Generator) -> dict[str, Any]:
    """Draw the arguments of open3d's ``create_torus``."""
    return dict(torus_radius=1.0, tube_radius=rng.uniform(0.2, 0.45))


def _fixed_proportions(rng: np.random.Generator) -> dict[str, Any]:
    """Return no arguments, and draw nothing: open3d's defaults have one shape."""
    return {}


def _mobius(rng: np.random.Generator) -> dict[str, Any]:
    """Draw the arguments of open3d's ``create_mobius``."""
    return dict(width=rng.uniform(0.4, 0.9), length_split=48, width_split=8)


def _arrow(rng: np.random.Generator) -> dict[str, Any]:
    """Draw the arguments of open3d's ``create_arrow``; the cone is wider than the shaft."""
    return dict(
        cylinder_radius=rng.uniform(0.6, 1.0),
        cone_radius=rng.uniform(1.4, 2.0),
        cylinder_height=rng.uniform(3.0, 5.0),
        cone_height=rng.uniform(2.0, 3.0),
    )


#: Name of a surface -> the function that draws its proportions, which are arguments of
#: open3d's function for that surface.
PRIMITIVES: dict[str, Callable[[np.random.Generator], dict[str, Any]]] = dict(
    sphere=_sphere,
    box=_box,
    cone=_cone,
    cylinder=_cylinder,
    torus=_torus,
    tetrahedron=_fixed_proportions,
    octahedron=_fixed_proportions,
    mobius=_mobius,
    arrow=_arrow,
    frame=_fixed_proportions,
)


def create_primitive(name: str, rng: np.random.Generator) -> 'TriangleMesh':
    """Create a surface of random proportions.

    Args:
        name (str): One of :data:`PRIMITIVES`; a frame is open3d's coordinate frame.
        rng (np.random.Generator): The source of all random numbers.

    Returns:
        TriangleMesh: In its own frame and unit.
    """
    draw_proportions = PRIMITIVES[name]
    open3d_name = 'coordinate_frame' if name == 'frame' else name
    create = getattr(load_open3d().geometry.TriangleMesh, f'create_{open3d_name}')
    return create(**draw_proportions(rng))


def sample_primitive(
    name: str, num_points: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw points uniformly on a primitive of random proportions.

    Args:
        name (str): One of :data:`PRIMITIVES`.
        num_points (int): N.
        rng (np.random.Generator): The source of all random numbers.

    Returns:
        np.ndarray: float64 ``[N, 3]``, in the mesh's own frame and unit.
    """
    mesh = create_primitive(name, rng)
    return sample_surface(mesh, num_points, seed=int(rng.integers(2**31)))


def sample_surface(mesh: 'TriangleMesh', num_points: int, seed: int) -> np.ndarray:
    """Draw points on a surface, uniformly by area.

    Args:
        mesh (TriangleMesh): Its area must be positive and finite.
        num_points (int): N.
        seed (int): Seed of open3d's random numbers, which are global to the process.

    Returns:
        np.ndarray: float64 ``[N, 3]``.

    Raises:
        ValueError: The surface has no area, or an infinite one.
    """
    area = mesh.get_surface_area()
    if not 0 < area < np.inf:
        raise ValueError('its surface has no area, or an infinite one')
    load_open3d().utility.random.seed(seed)
    return np.asarray(mesh.sample_points_uniformly(num_points).points)
