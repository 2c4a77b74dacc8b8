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
    numpy: Any = np  # as untyped: which names it has depends on its version
    if not hasattr(numpy, 'trapz'):
        numpy.trapz = numpy.trapezoid
    if not hasattr(numpy, 'in1d'):
        numpy.in1d = _is_in


def _is_in(elements: ArrayLike, test_elements: ArrayLike) -> np.ndarray:
    """Return of each element, in one dimension, whether it is among others."""
    return np.isin(np.ravel(elements), test_elements)
