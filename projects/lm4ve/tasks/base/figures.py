"""Matplotlib figures without a window, a global back-end or a half-written file.

``matplotlib.use`` and ``pyplot`` change the state of the whole process, which a
library must not do; a ``Figure`` with a canvas of its own does not.
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
    rgba = canvas.buffer_rgba()  # type: ignore[no-untyped-call]
    return np.asarray(rgba)[..., :3].copy()


def save_figure(figure: Figure, path: str | Path, **options: Any) -> None:
    """Write a figure to a file whose ending names the format.

    Args:
        figure (Figure): What to write.
        path (str | Path): The file; its folder is made if it is not there.
        **options: Passed to ``Figure.savefig``.

    Raises:
        UserError: The file cannot be written.
    """
    with replacing(path) as beside:
        figure.savefig(beside, **options)


def save_picture(image: np.ndarray, path: str | Path) -> None:
    """Write a picture, uint8 ``[H, W, 3]`` RGB, to a file whose ending names the format.

    Raises:
        UserError: The file cannot be written.
    """
    with replacing(path) as beside:
        imsave(beside, image)
