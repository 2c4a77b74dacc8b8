"""3-D pictures of points and boxes: balls and rods, seen without perspective.

open3d's ray casting draws them. It runs on the CPU without a graphics driver, and a ray
says which ball it hits, so that colors, which stand for numbers, are exact. (open3d
0.20's ``OffscreenRenderer`` ends the process where there is no Vulkan driver, and with
Mesa's software driver it drew the same ball in its color or black, at random.) Where
open3d cannot be imported, since a library of the system is missing, matplotlib draws
the same view flat.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

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
#: Up to so many balls, how finely each is made.
_BALL_RESOLUTIONS = ((3000, 8), (12000, 5), (np.inf, 3))
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
    """Draw solids into axes.

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
        _draw_flat(axes, solids)
    else:
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
    """Return how many pixels the longer side of the axes has in its figure, about."""
    figure: Any = axes.figure
    inches = figure.get_size_inches() * [
        axes.get_position().width,
        axes.get_position().height,
    ]
    return float(np.clip(1.5 * figure.dpi * inches.max(), *_PIXELS))


def _draw_flat(axes: 'Axes', solids: Solids) -> None:
    """Draw discs, far ones first, and lines, without open3d."""
    from matplotlib.collections import EllipseCollection, LineCollection

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
    """Draw solids as an image.

    Args:
        solids (Solids): What to draw.
        reach (tuple[float, float]): Half the width and half the height of what is seen.
        pixels (tuple[int, int]): The width and the height of the image.
        background (tuple[float, float, float]): Its color, 0 to 1.

    Returns:
        np.ndarray: uint8 ``[height, width, 3]``.
    """
    width, height = (n * _SUPERSAMPLING for n in pixels)
    hit, normals = _cast(solids, reach, width, height)
    palette = np.concatenate((solids.colors, solids.rod_colors, [background]))
    light = _AMBIENT + (1 - _AMBIENT) * np.maximum(normals @ _LIGHT, 0)
    # What faces the eye has its color exactly.
    light = np.minimum(light / (_AMBIENT + (1 - _AMBIENT) * _LIGHT[2]), 1)
    light[hit < 0] = 1
    image = palette[hit] * light[..., None]  # -1 is the last, the background
    blocks = image.reshape(pixels[1], _SUPERSAMPLING, pixels[0], _SUPERSAMPLING, 3)
    return np.rint(255 * blocks.mean(axis=(1, 3)).clip(0, 1)).astype(np.uint8)


def _cast(
    solids: Solids, reach: tuple[float, float], width: int, height: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return what the ray of each pixel hits, and the normal there.

    Returns:
        tuple[np.ndarray, np.ndarray]: int64 ``[height, width]``, the number of the
        ball, or of the rod behind all balls, -1 for nothing; and float64 ``[height,
        width, 3]``.
    """
    open3d = load_open3d()
    scene = open3d.t.geometry.RaycastingScene()
    corners, triangles, owners = _surfaces(solids)
    hit = np.full((height, width), -1)
    normals = np.zeros((height, width, 3))
    if not len(triangles):
        return hit, normals
    scene.add_triangles(corners.astype(np.float32), triangles.astype(np.uint32))
    right, top = reach
    rays = np.zeros((height, width, 6), np.float32)
    rays[..., 0] = (np.arange(width) + 0.5) / width * 2 * right - right
    rays[..., 1] = (top - (np.arange(height) + 0.5) / height * 2 * top)[:, None]
    rays[..., 2] = corners[:, 2].max() + 1
    rays[..., 5] = -1
    found = scene.cast_rays(open3d.core.Tensor(rays))
    triangle = found['primitive_ids'].numpy()
    is_hit = np.isfinite(found['t_hit'].numpy())
    hit[is_hit] = owners[triangle[is_hit]]
    normals[is_hit] = found['primitive_normals'].numpy()[is_hit]
    # Balls are round, although their surfaces are made of few triangles.
    is_ball = is_hit & (hit < len(solids.centers))
    offsets = rays[is_ball][:, :2] - solids.centers[hit[is_ball], :2]
    across = offsets / solids.radii[hit[is_ball], None]
    depth = np.sqrt(np.maximum(0, 1 - np.square(across).sum(axis=1)))
    normals[is_ball] = np.column_stack((across, depth))
    return hit, normals


def _surfaces(solids: Solids) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return corners ``[V, 3]``, triangles ``[T, 3]``, and whose each triangle is, ``[T]``."""
    shapes = load_open3d().geometry.TriangleMesh
    count = len(solids.centers)
    resolution = next(r for most, r in _BALL_RESOLUTIONS if count <= most)
    ball = shapes.create_sphere(1.0, resolution)
    ball_corners = np.asarray(ball.vertices) * solids.radii[:, None, None]
    ball_corners = ball_corners + solids.centers[:, None]
    cylinder = shapes.create_cylinder(1.0, 1.0, 12, 1)
    rod_corners = _place_rods(solids.rods, np.asarray(cylinder.vertices) + [0, 0, 0.5])
    balls = _copies(ball_corners, np.asarray(ball.triangles))
    rods = _copies(rod_corners, np.asarray(cylinder.triangles))
    corners = np.concatenate((balls[0], rods[0]))
    triangles = np.concatenate((balls[1], rods[1] + len(balls[0])))
    owners = np.concatenate((balls[2], rods[2] + count))
    return corners, triangles, owners


def _copies(places: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, ...]:
    """Join copies of a mesh, ``[N, V, 3]``, to corners, triangles and the copies' numbers."""
    count, size, _ = places.shape
    starts = np.arange(count)[:, None, None] * size
    owners = np.repeat(np.arange(count), len(triangles))
    return places.reshape(-1, 3), (triangles + starts).reshape(-1, 3), owners


def _place_rods(rods: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Place a rod of length 1 and radius 1 along z, ``[V, 3]``, at each rod: ``[M, V, 3]``."""
    starts, along = rods[:, None, :3], rods[:, 3:6] - rods[:, :3]
    ahead = along / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-12)
    # Any axis that is not along the rod gives two others that are across it.
    other = np.where(np.abs(ahead[:, :1]) < 0.9, [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])
    side = np.cross(ahead, other)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    up = np.cross(ahead, side)
    height = unit[None, :, 2:]
    radius = rods[:, None, 6:7] * (1 - height) + rods[:, None, 7:8] * height
    across = unit[None, :, :1] * side[:, None] + unit[None, :, 1:2] * up[:, None]
    return starts + height * along[:, None] + radius * across
