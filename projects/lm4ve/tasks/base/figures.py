"""Matplotlib figures without a window, a global back-end or a half-written file.

``matplotlib.use`` and ``pyplot`` change the state of the whole process, which a library must
not do; a ``Figure`` with a canvas of its own does not.
"""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave

from lm4ve.files import replacing


def to_image(figure: Figure) -> np.ndarray:
    """Return a figure as an RGB image, uint8 ``[height, width, 3]``."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def save_figure(figure: Figure, path: str | Path, **options: Any) -> None:
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
    with replacing(path) as beside:
        imsave(beside, image)
