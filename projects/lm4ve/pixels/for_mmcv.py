"""Let mmcv's ``imresize`` use the compiled kernels where its backend is Pillow.

Importing this module wraps the function. The package imports it right after mmcv's
module, so that every transform that resizes finds the wrapped one.
"""

import inspect
from collections.abc import Callable
from typing import Any

import wrapt

from lm4ve.pixels.resample import resize


@wrapt.patch_function_wrapper('mmcv.image.geometric', 'imresize')
def resize_by_kernels(
    imresize: Callable[..., Any], _: None, args: tuple, kwargs: dict
) -> Any:
    """Resize as mmcv does: the same pixels, whoever makes them.

    Args:
        imresize (Callable): mmcv's function, which is called where the kernels do not
            apply.
        args (tuple): Its positional arguments.
        kwargs (dict): Its keyword arguments.

    Returns:
        np.ndarray or tuple: The picture, with its scales in width and height if
        ``return_scale`` is true.
    """
    given = inspect.signature(imresize).bind(*args, **kwargs)
    given.apply_defaults()
    image, size, return_scale, interpolation, _, backend = given.args
    if backend != 'pillow':
        return imresize(*args, **kwargs)
    resized = resize(image, size, interpolation)
    if resized is None:
        return imresize(*args, **kwargs)
    if not return_scale:
        return resized
    width_scale = size[0] / image.shape[1]
    height_scale = size[1] / image.shape[0]
    return resized, width_scale, height_scale
