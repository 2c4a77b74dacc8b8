"""Small files in the layouts of the medical data sets."""

import json
from pathlib import Path

import cv2
import nibabel
import numpy as np

#: Voxels a side, more than the models take.
SIDES = (20, 18, 16)


def write_lesions(root: Path, name: str) -> None:
    """Pictures and masks of 0 and 255 by LLM4Seg's layout, and lists of names."""
    rng = np.random.default_rng(0)
    for folder in ('images', 'masks/0'):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for i in range(4):
        mask = np.zeros((40, 36), np.uint8)
        mask[8 : 20 + i, 10:25] = 255
        cv2.imwrite(str(root / f'masks/0/benign ({i}).png'), mask)
        pixels = rng.integers(0, 99, (40, 36, 3)) + mask[..., None] // 2
        cv2.imwrite(str(root / f'images/benign ({i}).png'), pixels.astype(np.uint8))
    for split in ('train', 'val'):
        names = [f'benign ({i})' for i in range(4)]
        (root / f'{name}_{split}.txt').write_text('\n'.join(names))


def write_medmnist(root: Path, flag: str, classes: int, count: int = 256, labels: int = 1) -> Path:
    """A file of MedMNIST with random pixels."""
    rng, arrays = np.random.default_rng(0), {}
    sides = (28,) * 3 if flag.endswith('3d') else (28, 28, 3)
    for split, n in dict(train=count, val=12, test=12).items():
        arrays[f'{split}_images'] = rng.integers(0, 256, (n, *sides), dtype=np.uint8)
        rows = np.arange(n)[:, None] + np.arange(labels)
        arrays[f'{split}_labels'] = (rows % classes).astype(np.uint8)
    root.mkdir(parents=True, exist_ok=True)
    np.savez(root / f'{flag}.npz', **arrays)
    return root / f'{flag}.npz'


def write_volume(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    """A NIfTI file with voxels of 1 x 1 x 2 mm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([1.0, 1.0, 2.0, 1.0]) if affine is None else affine
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


def write_decathlon(root: Path, count: int = 6) -> None:
    """A task of MSD with four channels and four classes: a bright box, of three parts."""
    rng, pairs = np.random.default_rng(0), []
    for i in range(count):
        label = np.zeros(SIDES, np.uint8)
        for value in (1, 2, 3):
            label[4 : 14 - value, 3 + value : 14, 4:12] = value
        image = rng.random((*SIDES, 4), dtype=np.float32) + (label > 0)[..., None]
        pair = dict(image=f'./imagesTr/{i}.nii.gz', label=f'./labelsTr/{i}.nii.gz')
        write_volume(root / pair['image'], image)
        write_volume(root / pair['label'], label)
        pairs.append(pair)
    labels = {str(i): f'class {i}' for i in range(4)}
    (root / 'dataset.json').write_text(json.dumps(dict(labels=labels, training=pairs, test=[])))
