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
    """Resize a picture by the kernels if they apply, else by mmcv; the pixels are the same.

    Args:
        imresize (Callable): mmcv's function.
        _: Not used: wrapt passes an instance where it wraps a method.
        args (tuple): The positional arguments of the call.
        kwargs (dict): The keyword arguments of the call.

    Returns:
        np.ndarray or tuple: The picture, with its scales in width and height if
        ``return_scale`` is true.
    """
    call = inspect.signature(imresize).bind(*args, **kwargs)
    call.apply_defaults()
    image = call.arguments['img']
    size = call.arguments['size']
    if call.arguments['backend'] != 'pillow':
        return imresize(*args, **kwargs)
    resized = resize(image, size, call.arguments['interpolation'])
    if resized is None:  # the kernels do not apply
        return imresize(*args, **kwargs)
    if not call.arguments['return_scale']:
        return resized
    width_scale = size[0] / image.shape[1]
    height_scale = size[1] / image.shape[0]
    return resized, width_scale, height_scale
