"""Folders of pictures, one a class, as ``tools/analysis/probe.py`` reads them."""

import numpy as np
from PIL import Image

rng = np.random.default_rng(0)


def write_folder(root, **splits):
    """Write pictures of noise: split -> class -> how many; '' for no folder of a split."""
    for split, classes in splits.items():
        for label, count in classes.items():
            folder = root / split.strip('_') / label
            folder.mkdir(parents=True)
            for i in range(count):
                noise = rng.integers(256, size=(9, 12, 3), dtype=np.uint8)
                Image.fromarray(noise).save(folder / f'{i}.png')
    return root
