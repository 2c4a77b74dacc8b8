"""mmpretrain computes in float64, pixel by pixel, what is a table of 256 values.

Slow in mmpretrain 1.2.0 (not reported upstream): ``Solarize``, ``SolarizeAdd`` and
``Posterize`` map each value of a picture by itself, ``SolarizeAdd`` in 9 ms a photograph.
Asked for the 256 values of uint8 they give the table by which a picture is looked up, with
the same result, bit for bit. May go once mmpretrain does so.
"""

import inspect
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import wrapt

NAMES = ('Solarize', 'SolarizeAdd', 'Posterize')


def is_needed(auto_augment: ModuleType) -> bool:
    """Return whether the operations compute on the picture itself."""
    source = inspect.getsource(inspect.unwrap(auto_augment.SolarizeAdd.transform))
    return 'np.where(img' in source


def repair(auto_augment: ModuleType) -> None:
    """Let the operations see 256 values instead of a uint8 picture.

    Args:
        auto_augment (ModuleType): ``mmpretrain.datasets.transforms.auto_augment``.
    """
    for name in NAMES:
        wrapt.wrap_function_wrapper(auto_augment, f'{name}.transform', _by_table)


def _by_table(original: Any, _: Any, args: Any, kwargs: Any) -> Any:
    results = args[0] if args else kwargs['results']
    img = results['img']
    if img.dtype != np.uint8:
        return original(results)
    results['img'] = values = np.arange(256, dtype=np.uint8)
    results = original(results)
    # Left as they are where the operation was not drawn.
    table = results['img']
    results['img'] = img if table is values else cv2.LUT(img, table)
    return results
