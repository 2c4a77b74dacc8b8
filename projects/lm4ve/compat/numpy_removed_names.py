"""Give numpy the two names that metrics of mmaction2 and mmpretrain use, where it lacks them."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def restore_removed_names(metrics: Any) -> None:
    """Set ``np.trapz`` and ``np.in1d``, which numpy 2.4 has removed.

    Broken in mmaction2 1.2.0 and mmpretrain 1.2.0 (mended in OneDL's forks): the average
    recall of proposals and the metrics of retrieval call them. numpy has both under other
    names, with the same values. May go once the released hosts call these.

    Args:
        metrics (ModuleType): A module of a host that calls them by ``np``.
    """
    if not hasattr(np, 'trapz'):
        np.trapz = np.trapezoid  # type: ignore[assignment,attr-defined,unused-ignore]
    if not hasattr(np, 'in1d'):
        np.in1d = _is_in  # type: ignore[assignment,attr-defined,unused-ignore]


def _is_in(elements: ArrayLike, test_elements: ArrayLike) -> np.ndarray:
    """Return of each element, in one dimension, whether it is among others."""
    return np.isin(np.ravel(elements), test_elements)
