"""3-D pictures of points and boxes: balls and rods, seen without perspective.

open3d's ray casting draws them. It runs on the CPU without a graphics driver and returns
which ball each ray hits, so that colors, which stand for numbers, are exact. (open3d
0.20's ``OffscreenRenderer`` ends the process where there is no Vulkan driver, and with
Mesa's software driver it drew the same ball in its color or black, at random.) Where
open3d cannot be imported, since a library of the system is missing, matplotlib draws
the same view flat.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lm4ve.errors import UserError
from lm4ve.geometry.open3d_library import load_open3d

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: The direction from clouds towards the eye, z up.
EYE = (1.7, -2.0, 1.3)
#: Rays in each direction that are averaged to a pixel: smooth edges.
_SUPERSAMPLING = 2
#: The least and the most pixels of a picture's longer side.
_PIXELS = (160, 900)
#: Up to so many balls, how finely each is made; and how finely each of more is made.
_BALL_RESOLUTIONS = {3000: 8, 12000: 5}
_COARSEST_BALL = 3
#: The direction of the light in the view, and the share of light that is everywhere:
#: colors stand for numbers, so that shades stay close to them.
_LIGHT = np.array([0.35, 0.5, 0.8]) / np.linalg.norm([0.35, 0.5, 0.8])
_AMBIENT = 0.72


def view_axes() -> np.ndarray:
    """Return the axes of the view from :data:`EYE`, float64 ``[3, 3]``: right, up, towards it.

    ``points @ view_axes().T`` gives the coordinates of points ``[N, 3]`` in the view.
    """
    towards = np.array(EYE) / np.linalg.norm(EYE)
    right = np.cross([0.0, 0.0, 1.0], towards)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(towards, right), towards])


@dataclass
class Solids:
    """What a picture shows, in the coordinates of the view: right, up, towards the eye.

    Attributes:
        centers (np.ndarray): float64 ``[N, 3]``, of balls.
        radii (np.ndarray): float64 ``[N]``.
        colors (np.ndarray): float64 ``[N, 3]``, 0 to 1.
        rods (np.ndarray): float64 ``[M, 8]``: start, end, and the radius at each of
            them. With a radius of 0 at its end, a rod is a cone.
        rod_colors (np.ndarray): float64 ``[M, 3]``, 0 to 1.
    """

    centers: np.ndarray
    radii: np.ndarray
    colors: np.ndarray
    rods: np.ndarray = field(default_factory=lambda: np.zeros((0, 8)))
    rod_colors: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))


def draw_solids(
    axes: 'Axes', solids: Solids, reach: tuple[float, float], background: str = 'white'
) -> None:
    """Draw solids into axes: by ray casting with open3d, or else flat by matplotlib.

    Args:
        axes (Axes): Where to draw; its units are those of the solids.
        solids (Solids): What to draw.
        reach (tuple[float, float]): Half the width and half the height of what is seen.
        background (str): A color of matplotlib.
    """
    from matplotlib.colors import to_rgb

    right, top = reach
    try:
        load_open3d()
    except UserError:
        # It is not there, or a library of the system that it links is missing.
        _draw_flat(axes, solids)
    else:
        # The longer side of the image has as many pixels as that of the axes.
        scale = _panel_pixels(axes) / max(reach)
        pixels = (max(1, round(right * scale)), max(1, round(top * scale)))
        image = render(solids, reach, pixels, to_rgb(background))
        axes.imshow(
            image, extent=(-right, right, -top, top), interpolation='antialiased'
        )
    axes.set(
        xlim=(-right, right), ylim=(-top, top), aspect='equal', facecolor=background
    )


def _panel_pixels(axes: 'Axes') -> float:
    """Return how many pixels to draw along the longer side of the axes.

    Half as many again as it has in its figure, within the bounds of :data:`_PIXELS`.
    """
    figure: Any = axes.figure
    position = axes.get_position()
    inches = figure.get_size_inches() * [position.width, position.height]
    fewest, most = _PIXELS
    return float(np.clip(1.5 * figure.dpi * inches.max(), fewest, most))


def _draw_flat(axes: 'Axes', solids: Solids) -> None:
    """Draw balls as discs and rods as lines, without open3d.

    Near discs cover far ones. Lines lie above all discs and are equally thick, whatever
    the radii of the rods.
    """
    from matplotlib.collections import EllipseCollection, LineCollection

    # From far to near: z is the axis towards the eye.
    order = np.argsort(solids.centers[:, 2], kind='stable')
    sizes = 2 * solids.radii[order]
    discs = EllipseCollection(
        sizes,
        sizes,
        np.zeros(len(sizes)),
        units='xy',
        offsets=solids.centers[order, :2],
        offset_transform=axes.transData,
        facecolors=solids.colors[order],
        linewidths=0,
    )
    axes.add_collection(discs)
    # Start and end of each rod, [M, 2, 3], without their depth.
    lines = solids.rods[:, :6].reshape(-1, 2, 3)[..., :2]
    axes.add_collection(
        LineCollection(list(lines), colors=solids.rod_colors, linewidths=1.5)
    )


# ---------------------------------------------------------------------- ray casting
def render(
    solids: Solids,
    reach: tuple[float, float],
    pixels: tuple[int, int],
    background: tuple[float, float, float],
) -> np.ndarray:
    """Draw solids as an image by casting rays, several for each pixel.

    Args:
        solids (Solids): What to draw.
        reach (tuple[float, float]): Half the width and half the height of what is seen.
        pixels (tuple[int, int]): The width and the height of the image.
        background (tuple[float, float, float]): Its color, 0 to 1.

    Returns:
        np.ndarray: uint8 ``[height, width, 3]``.
    """
    width, height = pixels
    hit, normals = _cast(solids, reach, width * _SUPERSAMPLING, height * _SUPERSAMPLING)
    # A hit is the number of a ball or rod, in this order. -1 means that a ray hits
    # nothing, and as an index the last row: the background.
    palette = np.concatenate((solids.colors, solids.rod_colors, [background]))
    # The background is not shaded: its brightness is 1.
    image = palette[hit] * _brightness(hit, normals)[..., None]
    # Each pixel is the mean of a block of rays.
    blocks = image.reshape(height, _SUPERSAMPLING, width, _SUPERSAMPLING, 3)
    smooth = blocks.mean(axis=(1, 3))
    return np.rint(255 * smooth.clip(0, 1)).astype(np.uint8)


def _brightness(hit: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Return the factor of each ray's color, float64 ``[height, width]``, 0 to 1.

    Args:
        hit (np.ndarray): int64 ``[height, width]``, see :func:`_cast`.
        normals (np.ndarray): float64 ``[height, width, 3]``.
    """
    light = _AMBIENT + (1 - _AMBIENT) * np.maximum(normals @ _LIGHT, 0)
    # What faces the eye has its color exactly.
    towards_the_eye = _AMBIENT + (1 - _AMBIENT) * _LIGHT[2]
    light = np.minimum(light / towards_the_eye, 1)
    light[hit < 0] = 1
    return light


def _cast(
    solids: Solids, reach: tuple[float, float], width: int, height: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return what the ray of each pixel hits, and the normal there.

    Args:
        solids (Solids): What the rays may hit.
        reach (tuple[float, float]): Half the width and half the height of what is seen.
        width, height (int): The number of rays in a row, and of rows.

    Returns:
        tuple[np.ndarray, np.ndarray]: int64 ``[height, width]``, the number of the ball
        or rod that is hit (rods are counted on from the last ball), -1 for nothing; and
        float64 ``[height, width, 3]``.
    """
    hit = np.full((height, width), -1)
    normals = np.zeros((height, width, 3))
    surfaces = _surfaces(solids)
    if len(surfaces.triangles) == 0:
        return hit, normals
    open3d = load_open3d()
    scene = open3d.t.geometry.RaycastingScene()
    scene.add_triangles(
        surfaces.corners.astype(np.float32), surfaces.triangles.astype(np.uint32)
    )
    above_all = surfaces.corners[:, 2].max() + 1
    rays = _parallel_rays(reach, width, height, above_all)
    answer = scene.cast_rays(open3d.core.Tensor(rays))
    is_hit = np.isfinite(answer['t_hit'].numpy())
    hit_triangles = answer['primitive_ids'].numpy()[is_hit]
    hit[is_hit] = surfaces.owners[hit_triangles]
    normals[is_hit] = answer['primitive_normals'].numpy()[is_hit]
    # Balls are round, although their surfaces are made of few triangles.
    is_ball = is_hit & (hit < len(solids.centers))
    offsets = rays[is_ball][:, :2] - solids.centers[hit[is_ball], :2]
    across = offsets / solids.radii[hit[is_ball], None]
    depth = np.sqrt(np.maximum(0, 1 - np.square(across).sum(axis=1)))
    normals[is_ball] = np.column_stack((across, depth))
    return hit, normals


def _parallel_rays(
    reach: tuple[float, float], width: int, height: int, start: float
) -> np.ndarray:
    """Return a ray through the middle of each pixel, away from the eye.

    Args:
        reach (tuple[float, float]): Half the width and half the height of what is seen.
        width, height (int): The pixels.
        start (float): Where all rays start, on the axis towards the eye.

    Returns:
        np.ndarray: float32 ``[height, width, 6]``, start and direction.
    """
    right, top = reach
    rays = np.zeros((height, width, 6), np.float32)
    rays[..., 0] = (np.arange(width) + 0.5) / width * 2 * right - right
    rays[..., 1] = (top - (np.arange(height) + 0.5) / height * 2 * top)[:, None]
    rays[..., 2] = start
    rays[..., 5] = -1
    return rays


class _Surfaces(NamedTuple):
    """Triangles of several solids.

    Attributes:
        corners (np.ndarray): float64 ``[V, 3]``.
        triangles (np.ndarray): int64 ``[T, 3]``, indices of corners.
        owners (np.ndarray): int64 ``[T]``, the number of the solid of each triangle.
    """

    corners: np.ndarray
    triangles: np.ndarray
    owners: np.ndarray


def _surfaces(solids: Solids) -> _Surfaces:
    """Return the triangles of N balls and, after them, of M rods.

    The owners of triangles are numbers of solids: balls have 0 to N - 1, rods N to
    N + M - 1.
    """
    shapes = load_open3d().geometry.TriangleMesh
    num_balls = len(solids.centers)
    ball = shapes.create_sphere(1.0, _ball_resolution(num_balls))
    # Each ball is the same mesh, scaled and moved: [V, 3] becomes [N, V, 3].
    ball_corners = np.asarray(ball.vertices) * solids.radii[:, None, None]
    ball_corners = ball_corners + solids.centers[:, None]
    balls = _join_copies(ball_corners, np.asarray(ball.triangles))
    cylinder = shapes.create_cylinder(1.0, 1.0, 12, 1)
    # open3d's cylinder reaches from -0.5 to 0.5.
    unit_rod = np.asarray(cylinder.vertices) + [0, 0, 0.5]
    rod_corners = _place_rods(solids.rods, unit_rod)
    rods = _join_copies(rod_corners, np.asarray(cylinder.triangles))
    # The rods' indices of corners and numbers of solids come after the balls'.
    rod_triangles = rods.triangles + len(balls.corners)
    rod_owners = rods.owners + num_balls
    return _Surfaces(
        corners=np.concatenate((balls.corners, rods.corners)),
        triangles=np.concatenate((balls.triangles, rod_triangles)),
        owners=np.concatenate((balls.owners, rod_owners)),
    )


def _ball_resolution(num_balls: int) -> int:
    """Return open3d's resolution of a sphere; the more balls, the coarser each of them."""
    for most, resolution in _BALL_RESOLUTIONS.items():
        if num_balls <= most:
            return resolution
    return _COARSEST_BALL


def _join_copies(corners: np.ndarray, triangles: np.ndarray) -> _Surfaces:
    """Join copies of a mesh to one set of triangles, whose owners are the copies' numbers.

    Args:
        corners (np.ndarray): ``[N, V, 3]``, the corners of each of N copies.
        triangles (np.ndarray): ``[T, 3]``, indices of the corners of one copy.
    """
    num_copies, num_corners, _ = corners.shape
    first_corners = np.arange(num_copies)[:, None, None] * num_corners
    return _Surfaces(
        corners.reshape(-1, 3),
        (triangles + first_corners).reshape(-1, 3),
        np.repeat(np.arange(num_copies), len(triangles)),
    )


def _place_rods(rods: np.ndarray, unit_rod: np.ndarray) -> np.ndarray:
    """Turn, stretch and move a rod of length 1 and radius 1 along z to each rod.

    Args:
        rods (np.ndarray): ``[M, 8]``, see :class:`Solids`.
        unit_rod (np.ndarray): ``[V, 3]``, the corners of the rod along z.

    Returns:
        np.ndarray: ``[M, V, 3]``, the corners of each rod.
    """
    starts = rods[:, None, :3]
    along = rods[:, 3:6] - rods[:, :3]
    lengths = np.linalg.norm(along, axis=1, keepdims=True)
    ahead = along / np.maximum(lengths, 1e-12)
    # The cross product with an axis that is not along the rod is across it: x for all
    # rods but those that lie nearly along x.
    leaves_x = np.abs(ahead[:, :1]) < 0.9
    other = np.where(leaves_x, [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])
    side = np.cross(ahead, other)
    # A rod without length has no direction: it becomes a point, which nothing shows.
    side /= np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-12)
    up = np.cross(ahead, side)
    unit_x = unit_rod[None, :, :1]
    unit_y = unit_rod[None, :, 1:2]
    height = unit_rod[None, :, 2:]
    start_radius = rods[:, None, 6:7]
    end_radius = rods[:, None, 7:8]
    radius = start_radius * (1 - height) + end_radius * height
    around = unit_x * side[:, None] + unit_y * up[:, None]
    return starts + height * along[:, None] + radius * around
