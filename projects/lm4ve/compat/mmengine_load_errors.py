"""Let MMEngine raise an error that names the file when a checkpoint is bad."""

from collections.abc import Callable
from typing import Any

import wrapt

from lm4ve.llm.torch_files import read_safetensors, safe_loading


def explain_bad_files(loader: Any) -> None:
    """Let ``CheckpointLoader.load_checkpoint`` explain bad files, and read safetensors.

    Broken in MMEngine 0.10.7 (no upstream issue): the user gets torch's own errors of
    files that are damaged or refused, which do not name the file and advise to run its
    code with ``weights_only=False``; and MMEngine cannot read safetensors. May go once
    the error names the file and its cause.
    """
    wrapt.wrap_function_wrapper(loader, 'load_checkpoint', _load_or_explain)


def _load_or_explain(
    load: Callable[..., Any], loader: object, args: Any, kwargs: Any
) -> Any:
    """Load a checkpoint by MMEngine's ``load``, or by ours if it is a local safetensors file.

    Raises:
        CheckpointError: The file is missing, damaged or not safe to load.
    """
    path = str(kwargs.get('filename') or args[0])
    if path.endswith('.safetensors') and '://' not in path:
        return read_safetensors(path)
    with safe_loading(path):
        return load(*args, **kwargs)
