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
#: The number of a split in the seeds of its pictures.
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
        self.split = split
        self.count = count
        self.seed = seed
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """Return an entry for each picture, which is drawn from its ``index`` when it is read.

        ``img_path`` is a name for logs and results; there is no such file.
        """
        data_list = []
        for index in range(self.count):
            name = f'{self.split}_{index:05d}.png'
            data_list.append(dict(index=index, img_path=name))
        return data_list

    def get_data_info(self, idx: int) -> dict:
        """Return entry ``idx`` with its picture and mask, the same ones each time."""
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
    echo = _draw_tissue(y, x, rng)
    # Tissue behind a lesion, below it in the picture, is brighter.
    mask, center, half_axes = ellipse(rng, (7.0, 15.0))
    is_behind = (np.abs(x - center[0]) < 0.7 * half_axes[0]) & (y > center[1])
    echo[is_behind] *= 1.3
    # A shadow is dark down to the lower edge.
    left = rng.uniform(0, SIZE - 6)
    right = left + rng.uniform(3, 7)
    top = rng.uniform(5, 40)
    is_shadow = (x > left) & (x < right) & (y > top)
    echo[is_shadow & (mask == 0)] *= 0.35
    echo[mask == 1] = rng.uniform(0.15, 0.45)
    speckle = _draw_speckle(rng)
    smooth_echo = cv2.GaussianBlur(echo, (0, 0), 0.8).clip(0.02)
    amplitude = smooth_echo * speckle / speckle.mean()
    # Scanners show logarithms.
    shown = np.log1p(20 * amplitude) / np.log1p(60)
    return np.rint(255 * shown.clip(0, 1)).astype(np.uint8), mask


def _draw_tissue(y: np.ndarray, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw layers of tissue, darker further down, where the beam is weaker."""
    thickness = rng.uniform(3, 6)
    bend = rng.uniform(0.5, 2)
    phase = rng.uniform(0, 6)
    layers = np.sin(y / thickness + bend * np.sin(x / 20) + phase)
    echo = np.full((SIZE, SIZE), 1.0, dtype=np.float32)
    echo += 0.25 * layers - 0.4 * y / SIZE
    return echo


def _draw_speckle(rng: np.random.Generator) -> np.ndarray:
    """Draw the amplitude of a complex Gaussian field that is as wide as the beam."""
    noise = rng.normal(size=(2, SIZE, SIZE)).astype(np.float32)
    real = cv2.GaussianBlur(noise[0], (0, 0), sigmaX=1.2, sigmaY=0.6)
    imaginary = cv2.GaussianBlur(noise[1], (0, 0), sigmaX=1.2, sigmaY=0.6)
    return np.hypot(real, imaginary)


def ellipse(
    rng: np.random.Generator, radii: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw the mask of a turned ellipse that lies inside the picture.

    Args:
        rng (np.random.Generator): The source of randomness.
        radii (tuple[float, float]): Bounds of both half axes in pixels.

    Returns:
        tuple[np.ndarray, np.ndarray, np.ndarray]: uint8 ``[64, 64]``, its center (x, y)
        and its half axes in pixels.
    """
    half_axes = rng.uniform(*radii, size=2)
    longest = half_axes.max()
    center = rng.uniform(longest + 2, SIZE - longest - 2, size=2)
    angle = rng.uniform(0, 180)
    mask = np.zeros((SIZE, SIZE), dtype=np.uint8)
    cv2.ellipse(
        mask,
        center=np.rint(center).astype(int).tolist(),
        axes=np.rint(half_axes).astype(int).tolist(),
        angle=angle,
        startAngle=0,
        endAngle=360,
        color=1,
        thickness=cv2.FILLED,
    )
    return mask, center, half_axes
