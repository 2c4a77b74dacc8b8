"""open3d's meshes for every task that draws points on them: the package and its primitives."""

from collections.abc import Callable
from types import ModuleType

import numpy as np

from lm4ve.errors import UserError

#: How each primitive is made: of open3d's ``TriangleMesh`` and a generator of numbers.
PRIMITIVES: dict[str, Callable] = dict(
    sphere=lambda m, r: m.create_sphere(1.0, resolution=24),
    box=lambda m, r: m.create_box(*r.uniform(0.6, 1.6, 3)),
    cone=lambda m, r: m.create_cone(1.0, r.uniform(1.2, 2.6), resolution=32),
    cylinder=lambda m, r: m.create_cylinder(1.0, r.uniform(1.0, 3.0), resolution=32),
    torus=lambda m, r: m.create_torus(1.0, r.uniform(0.2, 0.45)),
    tetrahedron=lambda m, r: m.create_tetrahedron(1.0),
    octahedron=lambda m, r: m.create_octahedron(1.0),
    mobius=lambda m, r: m.create_mobius(length_split=48, width_split=8, width=r.uniform(0.4, 0.9)),
    arrow=lambda m, r: m.create_arrow(
        cylinder_radius=r.uniform(0.6, 1.0),
        cone_radius=r.uniform(1.4, 2.0),
        cylinder_height=r.uniform(3.0, 5.0),
        cone_height=r.uniform(2.0, 3.0),
    ),
    frame=lambda m, r: m.create_coordinate_frame(1.0),
)


def import_open3d() -> ModuleType:
    """Import open3d and silence its log; our own errors say what is wrong with a file.

    Raises:
        UserError: It cannot be imported.
    """
    try:
        import open3d  # heavy, and only file formats and meshes need it
    except (ImportError, OSError) as e:
        raise UserError(
            f'open3d, which reads point clouds and meshes, cannot be imported '
            f'({e}). Fix: pip install -r requirements/pointcloud.txt, and see '
            'docs/get_started/install.md for its system libraries.'
        ) from e
    open3d.utility.set_verbosity_level(open3d.utility.VerbosityLevel.Error)
    return open3d


def sample_primitive(
    name: str, num_points: int, rng: np.random.Generator, o3d: ModuleType
) -> tuple[np.ndarray, np.ndarray]:
    """Make a primitive of random proportions and draw points on its surface, uniformly.

    Args:
        name (str): One of :data:`PRIMITIVES`.
        num_points (int): N.
        rng (np.random.Generator): All that is random comes from it.
        o3d (module): open3d.

    Returns:
        tuple[np.ndarray, np.ndarray]: Points and their triangles' normals, float64
        ``[N, 3]`` each, in the mesh's own frame and unit.
    """
    mesh = PRIMITIVES[name](o3d.geometry.TriangleMesh, rng)
    o3d.utility.random.seed(int(rng.integers(2**31)))
    drawn = mesh.sample_points_uniformly(num_points, use_triangle_normal=True)
    return np.asarray(drawn.points), np.asarray(drawn.normals)
