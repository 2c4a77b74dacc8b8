"""What a seed holds out of a training split, to choose settings by."""

import numpy as np

#: Of each class.
SHARE = 0.2


def draw_held_out(labels: np.ndarray, seed: int) -> np.ndarray:
    """Draw a fifth of each class; another seed draws others.

    Args:
        labels (np.ndarray): The class of each sample, int ``[n]``.
        seed (int): Decides the draw.

    Returns:
        np.ndarray: Bool ``[n]``, which samples are held out.
    """
    rng = np.random.default_rng(seed)
    is_held_out = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        is_held_out[members[: round(SHARE * len(members))]] = True
    return is_held_out
