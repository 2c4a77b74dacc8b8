"""Handwritten digits, split once for all demos that show them or paint with them.

``digits.npz`` holds the 1,797 scans that scikit-learn carries (E. Alpaydin and C.
Kaynak, Optical Recognition of Handwritten Digits, UCI, CC BY 4.0) and the indices of
our splits, which scikit-learn's stratified cuts with seed 0 gave. Importing
scikit-learn to load and cut them took a second of each start.
"""

from pathlib import Path

import numpy as np

#: ``images`` uint8 ``[1797, 8, 8]``, 0 (paper) to 16 (ink); ``labels`` uint8
#: ``[1797]``; the indices of each split: those of ``DigitsDataset``, and ``scans_*`` of
#: :func:`digit_scans`.
DIGITS = Path(__file__).with_name('digits.npz')


def digit_scans() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the scans of each split, which share none.

    Returns:
        dict[str, tuple[np.ndarray, np.ndarray]]: 'train', 'val' and 'test' (60, 20 and
        20 percent, stratified by digit) -> float ``[S, 8, 8]``, 0 (paper) to 16 (ink),
        and which digit each is, int ``[S]``.
    """
    digits = np.load(DIGITS)
    images = digits['images'].astype(float)
    labels = digits['labels'].astype(int)
    scans = {}
    for split in ('train', 'val', 'test'):
        indices = digits[f'scans_{split}']
        scans[split] = images[indices], labels[indices]
    return scans
