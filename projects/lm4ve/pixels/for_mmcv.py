"""Let mmcv's ``imresize`` use the compiled kernels where its backend is Pillow."""

import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import wrapt

from lm4ve.pixels.resample import resize


def resize_by_kernels(geometric: ModuleType) -> None:
    """Let every transform of mmcv that resizes do so by the kernels.

    Slow in mmcv 2.1.0 (not reported upstream): Pillow takes several times as long for the
    same pixels. May go once mmcv has a backend with these pixels in the kernels' time.

    Args:
        geometric (ModuleType): ``mmcv.image.geometric``.
    """
    wrapt.wrap_function_wrapper(geometric, 'imresize', _resize)
    # mmcv may be imported already, and then has the function under these names, too.
    for name in ('mmcv.image', 'mmcv'):
        package = sys.modules.get(name)
        if hasattr(package, 'imresize'):
            setattr(package, 'imresize', geometric.imresize)  # noqa: B010


def _resize(imresize: Callable[..., Any], _: None, args: tuple, kwargs: dict) -> Any:
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
