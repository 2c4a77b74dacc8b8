"""Pictures of clouds and their token groups, without a window.

open3d's off-screen renderer needs EGL and ends the whole process where there is
none, so it is tried in a process of its own; matplotlib draws otherwise.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np

from lm4ve.engine.files import replacing
from lm4ve.errors import UserError

_PROBE = (
    'import open3d as o; r = o.visualization.rendering;'
    'r.OffscreenRenderer(16, 16).render_to_image()'
)


def can_render_with_open3d() -> bool:
    """Try open3d's off-screen renderer in another process."""
    try:
        return (
            subprocess.run(
                [sys.executable, '-c', _PROBE], check=False, capture_output=True, timeout=60
            ).returncode
            == 0
        )
    except subprocess.TimeoutExpired:
        return False


def point_colors(count: int, index: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
    """Color points by their group.

    Args:
        count (int): N, points of the cloud.
        index (np.ndarray): int ``[G, S]``, each group's points; a point of
            several groups takes the last one's color.
        values (np.ndarray, optional): ``[G]``, for example activations: colors
            follow them instead of the group's number.

    Returns:
        np.ndarray: float ``[N, 3]`` in 0 to 1; gray where there is no group.
    """
    import matplotlib

    colors = np.full((count, 3), 0.75)
    if values is None:
        wheel = matplotlib.colormaps['hsv']
        # Neighbors in number far apart in hue: steps by the golden ratio.
        shades = wheel(np.arange(len(index)) * 0.618034 % 1)
    else:
        if len(values) != len(index):
            raise UserError(f'{len(values)} values for {len(index)} groups.')
        low, high = values.min(), values.max()
        shades = matplotlib.colormaps['viridis']((values - low) / (high - low if high > low else 1))
    for group, shade in zip(index, shades, strict=True):
        colors[group] = shade[:3]
    return colors


def draw_cloud(
    points: np.ndarray, colors: np.ndarray, path: str | Path, backend: str = 'auto', size: int = 600
) -> str:
    """Draw a cloud to a PNG.

    Args:
        points (np.ndarray): ``[N, 3]``.
        colors (np.ndarray): ``[N, 3]``, 0 to 1.
        path (str | Path): The file.
        backend (str): 'open3d', 'matplotlib', or 'auto': the first if it works.
        size (int): Width and height in pixels.

    Returns:
        str: The backend that drew it.
    """
    if backend not in ('auto', 'open3d', 'matplotlib'):
        raise UserError(f"backend='{backend}' must be auto, open3d or matplotlib.")
    if backend == 'auto':
        backend = 'open3d' if can_render_with_open3d() else 'matplotlib'
    points = points - points.mean(axis=0)
    points = points / max(np.abs(points).max(), 1e-9)
    draw = _open3d if backend == 'open3d' else _matplotlib
    with replacing(path) as beside:
        draw(points, colors, beside, size)
    return backend


def _open3d(points, colors, path, size: int) -> None:
    import open3d as o3d

    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points.astype(np.float64)))
    cloud.colors = o3d.utility.Vector3dVector(colors)
    renderer = o3d.visualization.rendering.OffscreenRenderer(size, size)
    renderer.scene.set_background([1, 1, 1, 1])
    material = o3d.visualization.rendering.MaterialRecord()
    material.shader, material.point_size = 'defaultUnlit', 6.0
    renderer.scene.add_geometry('cloud', cloud, material)
    renderer.setup_camera(45.0, [0, 0, 0], [1.7, -2.0, 1.3], [0, 0, 1])
    o3d.io.write_image(str(path), renderer.render_to_image())


def _matplotlib(points, colors, path, size: int) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size / 100, size / 100), dpi=100)
    axes = figure.add_axes([0, 0, 1, 1], projection='3d')
    axes.scatter(*points.T, c=colors, s=12, depthshade=False)
    axes.set(xlim=(-1, 1), ylim=(-1, 1), zlim=(-1, 1))
    axes.set_axis_off()
    figure.savefig(path)
