"""Made-up ultrasound pictures with one lesion to find. Nothing is downloaded.

Ultrasound is a sum of echoes, so tissue is grainy: the amplitude of a complex Gaussian
field as wide as the beam (speckle). A lesion is a dark ellipse in it, with brighter
tissue behind, among dark shadows that are none.
"""

import cv2
import numpy as np
from mmengine.dataset import BaseDataset

from lm4ve.errors import check
from lm4ve.registry import DATASETS

#: Pixels a side of a picture.
SIZE = 64
_CODES = dict(train=0, val=1, test=2)


@DATASETS.register_module()
class UltrasoundDemo(BaseDataset):
    """Speckle with a dark ellipse.

    Each sample gives the pipeline ``img`` (uint8 ``[64, 64, 3]``) and ``gt_seg_map``
    (uint8 ``[64, 64]``, 1 in the lesion).

    Args:
        split (str): 'train', 'val' or 'test'; no picture is in two of them.
        count (int): Number of pictures.
        seed (int): Another one gives other pictures.
        **kwargs: Passed to :class:`mmengine.dataset.BaseDataset`.
    """

    METAINFO = dict(classes=('tissue', 'lesion'), palette=[[0, 0, 0], [220, 60, 60]])

    def __init__(
        self, split: str = 'train', count: int = 256, seed: int = 0, **kwargs
    ) -> None:
        check('dataset.split', split, choices=_CODES)
        check('dataset.count', count, least=1)
        self.split, self.count, self.seed = split, count, seed
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        name = f'{self.split}_{{:05d}}.png'
        return [dict(index=i, img_path=name.format(i)) for i in range(self.count)]

    def get_data_info(self, idx: int) -> dict:
        """Draw picture ``idx``."""
        info = super().get_data_info(idx)
        rng = np.random.default_rng((self.seed, _CODES[self.split], info['index']))
        img, mask = draw(rng)
        return dict(
            info,
            img=np.repeat(img[..., None], 3, axis=2),
            gt_seg_map=mask,
            seg_fields=['gt_seg_map'],
            img_shape=(SIZE, SIZE),
            ori_shape=(SIZE, SIZE),
            reduce_zero_label=False,
        )


def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a picture.

    Args:
        rng (np.random.Generator): The source of randomness.

    Returns:
        tuple[np.ndarray, np.ndarray]: uint8 ``[64, 64]``: the picture, and its mask of
        0 and 1.
    """
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    echo = np.full((SIZE, SIZE), 1.0, dtype=np.float32)
    # Layers of tissue, and what the beam loses on its way down.
    wave = np.sin(
        y / rng.uniform(3, 6) + rng.uniform(0.5, 2) * np.sin(x / 20) + rng.uniform(0, 6)
    )
    echo += 0.25 * wave - 0.4 * y / SIZE
    mask, center, axes = ellipse(rng, (7.0, 15.0))
    behind = (np.abs(x - center[0]) < 0.7 * axes[0]) & (y > center[1])
    echo[behind] *= 1.3
    # A shadow is dark down to the lower edge.
    left, width = rng.uniform(0, SIZE - 6), rng.uniform(3, 7)
    echo[(x > left) & (x < left + width) & (y > rng.uniform(5, 40)) & (mask == 0)] *= (
        0.35
    )
    echo[mask == 1] = rng.uniform(0.15, 0.45)
    field = rng.normal(size=(2, SIZE, SIZE)).astype(np.float32)
    beams = [cv2.GaussianBlur(f, (0, 0), sigmaX=1.2, sigmaY=0.6) for f in field]
    speckle = np.hypot(*beams)
    amplitude = (
        cv2.GaussianBlur(echo, (0, 0), 0.8).clip(0.02) * speckle / speckle.mean()
    )
    # Scanners show logarithms.
    shown = np.log1p(20 * amplitude) / np.log1p(60)
    return np.rint(255 * shown.clip(0, 1)).astype(np.uint8), mask


def ellipse(
    rng: np.random.Generator, radii: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw the mask of a turned ellipse that lies inside the picture.

    Returns:
        tuple[np.ndarray, np.ndarray, np.ndarray]: uint8 ``[64, 64]``, its center (x, y)
        and its half axes in pixels.
    """
    axes = rng.uniform(*radii, size=2)
    center = rng.uniform(axes.max() + 2, SIZE - axes.max() - 2, size=2)
    mask = np.zeros((SIZE, SIZE), dtype=np.uint8)
    spots = tuple(map(int, np.rint(center)))
    cv2.ellipse(
        mask, spots, tuple(map(int, np.rint(axes))), rng.uniform(0, 180), 0, 360, 1, -1
    )
    return mask, center, axes
