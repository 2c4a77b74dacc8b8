"""Pictures of clouds and their token groups, without a window.

Points are projected here and drawn by matplotlib, so that every machine draws the same
picture without graphics libraries.
"""

from pathlib import Path

import numpy as np

from lm4ve.tasks.base.figures import save_figure
from lm4ve.tasks.base.pictures import seen_from


def seen_from_eye(points: np.ndarray) -> np.ndarray:
    """Return points as one side shows them, around the middle of their extent.

    Args:
        points (np.ndarray): float ``[N, 3]``.

    Returns:
        np.ndarray: ``[N, 3]``: right, up, and towards the eye, in the points' unit.
    """
    return (points - (points.max(axis=0) + points.min(axis=0)) / 2) @ seen_from().T


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
    from matplotlib import colormaps

    if values is None:
        # Neighbors in number far apart in hue: steps by the golden ratio.
        shades = colormaps['hsv'](np.arange(len(index)) * 0.618034 % 1)
    else:
        low, high = values.min(), values.max()
        shades = colormaps['viridis']((values - low) / (high - low if high > low else 1))
    colors = np.full((count, 3), 0.75)
    for group, shade in zip(index, shades, strict=True):
        colors[group] = shade[:3]
    return colors


def draw_cloud(points: np.ndarray, colors: np.ndarray, path: str | Path, size: int = 600) -> None:
    """Draw a cloud to a PNG, near points over far ones.

    Args:
        points (np.ndarray): ``[N, 3]``.
        colors (np.ndarray): ``[N, 3]``, 0 to 1.
        path (str | Path): The file.
        size (int): Width and height in pixels.
    """
    from matplotlib.figure import Figure

    seen = seen_from_eye(points)
    seen = seen[order := np.argsort(seen[:, 2], kind='stable')]
    figure = Figure(figsize=(size / 100, size / 100), dpi=100, facecolor='white')
    axes = figure.add_axes((0, 0, 1, 1))
    dot = float(np.clip(15000 / len(points), 3.0, 30.0)) * (size / 600) ** 2
    axes.scatter(*seen[:, :2].T, c=colors[order], s=dot, linewidths=0)
    reach = 1.08 * max(np.abs(seen[:, :2]).max(), 1e-9)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect='equal')
    axes.set_axis_off()
    save_figure(figure, path)
