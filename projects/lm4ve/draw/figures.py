"""Figures with a canvas of their own, as arrays and as files.

Neither a window nor the state of pyplot is needed, so that a training process can draw.
matplotlib is imported when something is drawn.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lm4ve.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: The color behind clouds and scenes, on which both ends of the color maps are visible.
BACKGROUND = '#c6c6c6'


def without_ticks(axes: 'Axes') -> None:
    """Leave only a thin frame of axes."""
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color='.6', linewidth=0.5)


# ------------------------------------------------------------------ figures and files
def to_image(figure: 'Figure') -> np.ndarray:
    """Return a figure as an RGB image, uint8 ``[height, width, 3]``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save_figure(figure: 'Figure', path: str | Path, **options: Any) -> None:
    """Write a figure to a file whose ending selects the format.

    Args:
        figure (Figure): The figure.
        path (str | Path): The file; its folder is created.
        **options: Passed to ``Figure.savefig``.
    """
    with replacing(path) as beside:
        figure.savefig(beside, **options)


def save_picture(image: np.ndarray, path: str | Path) -> None:
    """Write a picture, uint8 ``[H, W, 3]`` RGB, to a file whose ending selects the format."""
    from matplotlib.image import imsave

    with replacing(path) as beside:
        imsave(beside, image)
