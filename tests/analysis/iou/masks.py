"""Images that are their own masks, and pipelines for them."""

from pathlib import Path

import cv2
import numpy as np
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope


def write_folder(root: Path, count=10) -> list:
    """White rectangles on black, and they are the masks too; returns the masks."""
    rng = np.random.default_rng(0)
    masks = []
    for name in ('images', 'masks'):
        (root / name).mkdir(parents=True)
    for i in range(count):
        mask = np.zeros((16, 16), np.uint8)
        y, x = rng.integers(0, 8, 2)
        mask[y : y + rng.integers(4, 8), x : x + rng.integers(4, 8)] = 255
        cv2.imwrite(str(root / f'images/{i}.png'), mask)
        cv2.imwrite(str(root / f'masks/{i}.png'), mask)
        masks.append(mask)
    return masks


def pipeline(*steps) -> Compose:
    init_default_scope('mmpretrain')
    return Compose([*steps, dict(type='PackInputs')])
