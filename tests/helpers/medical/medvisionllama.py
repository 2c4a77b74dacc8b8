"""What MedVisionLlama's released code and ours are both given, to compare what they give.

``tools/dev/released/medvisionllama.py`` runs the released code on it.
"""

from pathlib import Path

import numpy as np

from tests.helpers.medical.files import write_volume

#: A small Llama with more heads of queries than of keys and values.
WIDTH = 32
HEADS = 8
KV_HEADS = 2
#: The ViT around it.
IMAGE_SIZE = (8, 12, 6)
PATCH_SIZE = (4, 4, 2)
EMBED_DIMS = 8
DEPTH = 2
#: The seed of the angle and the factors of intensities that the released code draws.
DRAWS = 9


def write_brain(folder: Path) -> tuple[Path, Path]:
    """Write a volume of four kinds of MR, and its label of four classes, as MSD has them.

    Each side of the volume has another length, and each axis of its voxels, too.

    Returns:
        tuple[Path, Path]: The files of the image and of the label.
    """
    generator = np.random.default_rng(1)
    # Corners touch voxels of the new grid by less than half, and lie far from the center,
    # so that a small turn moves them.
    label = np.zeros((20, 18, 14), np.uint8)
    label[4:12, 2:10, 4:12] = 1
    label[0:10, 0:4, 0:6] = 2
    label[14:20, 15:18, 10:14] = 3
    image = 100 * generator.random((*label.shape, 4))
    # The kinds differ in their range: one alone is scaled otherwise than all four.
    image *= np.array([1.0, 2.0, 3.0, 4.0])
    image += 50 * (label > 0)[..., None]
    voxel = (1.0, 1.5, 2.0)
    return (
        write_volume(folder / 'image.nii.gz', image.astype(np.float32), voxel),
        write_volume(folder / 'label.nii.gz', label, voxel),
    )
