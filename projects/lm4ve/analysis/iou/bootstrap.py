"""Bootstrap intervals of means over images, for many columns at once.

Every resample takes the same images in all columns, so that the interval of a column of
differences is the paired one.
"""

import numpy as np
from scipy import stats


def bootstrap_mean(
    values: np.ndarray, resamples: int = 2000, seed: int = 0, confidence: float = 0.95
) -> tuple[np.ndarray, ...]:
    """Return mean and percentile bootstrap interval (Efron and Tibshirani, 1993, chapter 13).

    Args:
        values (np.ndarray): ``[images]`` or ``[images, columns]``.
        resamples (int): How often to draw images with replacement.
        seed (int): Seeds the draws.
        confidence (float): 0.95 for 95 % intervals.

    Returns:
        tuple[np.ndarray, np.ndarray, np.ndarray]: float64 mean and the interval's
        ends, each ``[]`` or ``[columns]``. For a single image the ends are NaN.
    """
    values = np.asarray(values, dtype=np.float64)
    mean = values.mean(axis=0)
    if len(values) < 2:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    # `batch` bounds the memory of the resampled copy to some 64 MB.
    batch = int(np.clip(2**23 // max(values.size, 1), 1, resamples))
    found = stats.bootstrap(
        (values,),
        np.mean,
        axis=0,
        vectorized=True,
        method='percentile',
        n_resamples=resamples,
        confidence_level=confidence,
        batch=batch,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return mean, found.low, found.high
