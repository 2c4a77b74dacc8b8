"""scikit-learn's handwritten digits, split once for all demos that show or paint with them.

``digits.npz`` holds the 1,797 scans that scikit-learn carries (E. Alpaydin and C.
Kaynak, Optical Recognition of Handwritten Digits, UCI, CC BY 4.0) and the indices of
our splits, which scikit-learn's stratified cuts with seed 0 gave. Importing
scikit-learn to load and cut them took a second of each start.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lm4ve.data.held_out import draw_held_out
from lm4ve.errors import check

#: ``images`` uint8 ``[1797, 8, 8]``, 0 (paper) to 16 (ink); ``labels`` uint8
#: ``[1797]``; the indices of each split: those of :func:`digit_pictures`, and
#: ``scans_*`` of :func:`digit_scans`.
DIGITS = Path(__file__).with_name('digits.npz')
#: Splits of the pictures.
SPLITS = ('train', 'fit', 'val', 'test')


def digit_pictures(
    split: str, split_seed: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the digits of a split as gray pictures.

    Args:
        split (str): 'train' (70 %, 1,257 digits) or 'test' (30 %, 540). 'train' itself
            is cut in two: 'fit' (1,005) and 'val' (252).
        split_seed (int, optional): Draws this cut, a fifth of each digit to 'val'. By
            default it is always the same.

    Returns:
        tuple[np.ndarray, np.ndarray]: uint8 ``[N, 8, 8]``, 0 (paper) to 255 (ink), and
        which digit each is, uint8 ``[N]``.

    Raises:
        UserError: There is no such split.
    """
    check('split', split, choices=SPLITS)
    digits = np.load(DIGITS)
    pixels = np.rint(digits['images'] * (255 / 16)).astype(np.uint8)
    indices = _choose(digits, split, split_seed)
    return pixels[indices], digits['labels'][indices]


def _choose(
    digits: Mapping[str, np.ndarray], split: str, split_seed: int | None
) -> np.ndarray:
    """Return the indices of a split's digits; arguments of :func:`digit_pictures`."""
    if split not in ('fit', 'val') or split_seed is None:
        return digits[split]
    train = digits['train']
    is_val = draw_held_out(digits['labels'][train], split_seed)
    return train[is_val == (split == 'val')]


def digit_scans() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the scans of each split to paint with; the splits share none.

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
