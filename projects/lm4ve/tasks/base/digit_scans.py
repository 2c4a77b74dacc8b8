"""scikit-learn's handwritten digits, split once for all tasks that paint with them."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def digit_scans() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the scans of each split, which share none.

    Returns:
        dict[str, tuple[np.ndarray, np.ndarray]]: 'train', 'val' and 'test' (60, 20 and 20
        percent, stratified by digit) -> float ``[S, 8, 8]``, 0 (paper) to 16 (ink), and
        which digit each is, int ``[S]``.
    """
    images, digits = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8)
    train, rest, kind, rest_kind = train_test_split(
        images, digits, test_size=0.4, random_state=0, stratify=digits
    )
    val, test, val_kind, test_kind = train_test_split(
        rest, rest_kind, test_size=0.5, random_state=0, stratify=rest_kind
    )
    return dict(train=(train, kind), val=(val, val_kind), test=(test, test_kind))
