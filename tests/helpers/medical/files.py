"""Small files in the layouts of the medical data sets."""

import json
from pathlib import Path

import nibabel
import numpy as np

from tests.helpers.hosts import write_picture


def write_lesions(root: Path, name: str) -> None:
    """Pictures and masks of 0 and 1 by LLM4Seg's layout, and lists of names."""
    for i in range(4):
        write_picture(root / f'images/benign ({i}).png', i)
        write_picture(root / f'masks/0/benign ({i}).png', i, most=2, channels=())
        for split in ('train', 'val'):
            with (root / f'{name}_{split}.txt').open('a') as file:
                file.write(f'benign ({i})\n')


def write_medmnist(
    root: Path, flag: str, classes: int, count: int = 256, labels: int = 1
) -> Path:
    """A file of MedMNIST with random pixels."""
    rng = np.random.default_rng(0)
    shape = (28, 28, 3)
    if flag.endswith('3d'):
        shape = (28, 28, 28)
    arrays = {}
    for split, n in dict(train=count, val=12, test=12).items():
        images = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
        numbers = np.arange(n)[:, None] + np.arange(labels)
        arrays[f'{split}_images'] = images
        arrays[f'{split}_labels'] = (numbers % classes).astype(np.uint8)
    root.mkdir(parents=True, exist_ok=True)
    file = root / f'{flag}.npz'
    np.savez(file, **arrays)
    return file


def write_volume(path: Path, array: np.ndarray, voxel: tuple = (1.0, 1.0, 2.0)) -> Path:
    """A NIfTI file; the sides of a voxel are in mm, a negative one turns the axis round."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([*voxel, 1.0])), path)
    return path


def write_decathlon(
    root: Path, channels: int = 4, classes: int = 4, count: int = 6
) -> None:
    """A task of MSD: a bright box in parts."""
    label = np.zeros((20, 18, 16), np.uint8)
    label[4:14, 4:14, 4:12] = np.arange(8) % (classes - 1) + 1
    noise = np.random.default_rng(0).random((*label.shape, channels), np.float32)
    brighter = (label > 0)[..., None]
    image = np.squeeze(noise + brighter)
    pairs = []
    for i in range(count):
        name = f'{i}.nii.gz'
        write_volume(root / 'imagesTr' / name, image)
        write_volume(root / 'labelsTr' / name, label)
        pairs.append(dict(image=f'./imagesTr/{name}', label=f'./labelsTr/{name}'))
    labels = {str(i): f'class {i}' for i in range(classes)}
    content = dict(labels=labels, training=pairs)
    (root / 'dataset.json').write_text(json.dumps(content))
