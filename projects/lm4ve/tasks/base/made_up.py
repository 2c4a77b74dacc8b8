"""Made-up inputs of the size of real ones, where no data are at hand.

Export, the cost of a step and benchmarks use them (:meth:`TaskProtocol.example`).
"""

import numpy as np
import torch


def made_up_picture(number: int, height: int = 240, width: int = 320) -> np.ndarray:
    """Return a picture of waves, uint8 ``[H, W, 3]``, different in each channel.

    Models see structure in it, as in photographs, and not the noise of random pixels.

    Args:
        number (int): Which one. The waves get shorter with it; beyond some twenty
            pictures of the default size they are shorter than two pixels.
        height (int): Rows.
        width (int): Columns.
    """
    y, x = np.mgrid[:height, :width] / height
    # How far each pixel lies along the slanted direction in which the waves run.
    distance = (y + 0.7 * x)[..., None]
    # Each channel of each picture has its own number: the phase of its wave and, times
    # 9, the frequency.
    numbers = (3 * number + np.arange(3)) * 1.3 + 1
    waves = np.sin(9 * numbers * distance + numbers)
    return (127.5 + 127.4 * waves).astype(np.uint8)


def of_first_class(sample: dict) -> dict:
    """Label a sample as class 0, so that a loss can be computed; return it."""
    sample['data_samples'].gt_label = torch.zeros(1, dtype=torch.int64)
    return sample
