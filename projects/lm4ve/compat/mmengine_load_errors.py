"""MMEngine answers a bad checkpoint with advice to run its code."""

from collections.abc import Callable
from typing import Any

import wrapt

from lm4ve.llm.torch_files import read_safetensors, safe_loading


def explain_bad_files(loader: Any) -> None:
    """MMEngine's loading ends in advice to run the code of a file that it refuses.

    True of MMEngine 0.10.7 (no upstream issue): torch's own errors reach the user, of
    damaged files, too; and it reads no safetensors. May go once one sentence names the
    file.
    """
    wrapt.wrap_function_wrapper(loader, 'load_checkpoint', _load_checkpoint)


def _load_checkpoint(
    load: Callable[..., Any], _: object, args: Any, kwargs: Any
) -> Any:
    path = str(kwargs.get('filename') or args[0])
    if path.endswith('.safetensors') and '://' not in path:
        return read_safetensors(path)
    with safe_loading(path):
        return load(*args, **kwargs)
