"""Constants of ScanNet as SQA3D's baseline uses it, which model and data sets share."""

#: Names of the classes; the index is ``gt_labels`` and the row of the mean sizes.
CLASSES = (
    *('cabinet', 'bed', 'chair', 'sofa', 'table', 'door', 'window', 'bookshelf', 'picture'),
    *('counter', 'desk', 'curtain', 'refrigerator', 'shower curtain', 'toilet', 'sink'),
    *('bathtub', 'others'),
)
#: The NYU40 id of each class but the last.
NYU40_IDS = (3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36)
#: NYU40 ids that are no objects: unlabeled, wall, floor, ceiling.
NO_OBJECTS = (0, 1, 2, 22)
#: Numbers in a NYU40 id's range.
_MOST = 40


def class_of(nyu40: int) -> int | None:
    """Return the class of an NYU40 id, None for what is no object (ScanRefer's rule).

    Args:
        nyu40 (int): From ``_sem_label.npy``, or column 6 of a file of boxes.
    """
    if nyu40 in NO_OBJECTS or not 0 < nyu40 <= _MOST:
        return None
    return NYU40_IDS.index(nyu40) if nyu40 in NYU40_IDS else len(CLASSES) - 1
