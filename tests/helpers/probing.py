"""What tests of ``lm4ve try`` share: folders of pictures, one a class, and features."""

import numpy as np
from PIL import Image

from lm4ve.probing.features import FeatureExtraction

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


def compute_features(encoder, data, cache, **options):
    """Run an encoder over data; options are those of ``FeatureExtraction``."""
    return FeatureExtraction(encoder, data, cache, **options).finish()


def break_tables(path):
    """Damage a JPEG's Huffman table: its header and both of its ends stay whole."""
    data = bytearray(path.read_bytes())
    table = data.index(b'\xff\xc4')
    data[table + 5 : table + 25] = b'\xff' * 20
    path.write_bytes(data)
