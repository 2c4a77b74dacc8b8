"""Let mmcv read a PNG without a line of libpng for each odd color profile."""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import wrapt

from lm4ve.pixels.png import without_notes


def decode_without_notes(io: ModuleType) -> None:
    """Give OpenCV the chunks of a PNG that it uses, wherever mmcv decodes one.

    Broken in mmcv 2.1.0 with any OpenCV (not reported upstream): each PNG with, for
    example, an sRGB profile that libpng dislikes prints a line past Python and its log,
    in every worker and epoch, in which the warnings of a training are lost. May go once
    OpenCV switches libpng's warnings off, or mmcv drops such chunks.
    """
    wrapt.wrap_function_wrapper(io, 'imfrombytes', _decode)
    # mmcv may be imported already, and then has the function under these names, too.
    for name in ('mmcv.image', 'mmcv'):
        package = sys.modules.get(name)
        if hasattr(package, 'imfrombytes'):
            setattr(package, 'imfrombytes', io.imfrombytes)  # noqa: B010


def _decode(imfrombytes: Callable[..., Any], _: Any, args: Any, kwargs: Any) -> Any:
    """Decode by mmcv's ``imfrombytes``."""
    if 'content' in kwargs:
        kwargs = dict(kwargs, content=without_notes(kwargs['content']))
    else:
        content, *others = args
        args = (without_notes(content), *others)
    return imfrombytes(*args, **kwargs)
