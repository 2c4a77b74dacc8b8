"""Classes of ScanNet's objects as SQA3D's baseline has them."""

import numpy as np

#: Names of the classes; the index is ``gt_labels`` and the row of the mean sizes.
CLASSES = (
    'cabinet',
    'bed',
    'chair',
    'sofa',
    'table',
    'door',
    'window',
    'bookshelf',
    'picture',
    'counter',
    'desk',
    'curtain',
    'refrigerator',
    'shower curtain',
    'toilet',
    'sink',
    'bathtub',
    'others',
)
#: The NYU40 id of each class but the last.
NYU40_IDS = (3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36)
#: NYU40 ids that are no objects: unlabeled, wall, floor, ceiling.
NO_OBJECTS = (0, 1, 2, 22)
#: The class of each of the 41 ids. Those that are not named are 'others'.
_CLASS_OF = np.full(41, len(CLASSES) - 1)
_CLASS_OF[list(NYU40_IDS)] = range(len(NYU40_IDS))
_CLASS_OF[list(NO_OBJECTS)] = -1


def classes_of(nyu40: np.ndarray) -> np.ndarray:
    """Return the class of each NYU40 id, int64, -1 for what is no object (ScanRefer's rule)."""
    known = (nyu40 >= 0) & (nyu40 <= 40)
    return _CLASS_OF[np.where(known, nyu40, 0).astype(np.int64)]
