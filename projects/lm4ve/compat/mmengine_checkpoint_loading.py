"""MMEngine executes pickles that it downloads, and tells bad files by tracebacks.

True of MMEngine 0.10.7 (no upstream issue): it loads ``http://`` checkpoints, and so
``torchvision://`` and ``open-mmlab://`` ones, by ``torch.hub``'s function, which does not
check what a pickle holds. May go once MMEngine passes ``weights_only=True`` there and can
be told which further objects are safe.
"""

import functools
import inspect
from types import ModuleType
from typing import Any

import wrapt

from lm4ve.llm.torch_files import is_safetensors, read_safetensors, safe_loading


def is_needed(checkpoint: ModuleType) -> bool:
    """Return whether downloads are still loaded without a check.

    Args:
        checkpoint (ModuleType): ``mmengine.runner.checkpoint``.
    """
    return 'weights_only' not in inspect.getsource(checkpoint.load_from_http)


def repair(checkpoint: ModuleType) -> None:
    """Load every checkpoint with :func:`lm4ve.llm.torch_files.safe_loading`."""
    checkpoint.load_url = functools.partial(checkpoint.load_url, weights_only=True)

    @wrapt.patch_function_wrapper(checkpoint, 'CheckpointLoader.load_checkpoint')
    def _(wrapped: Any, _: Any, args: Any, kwargs: Any) -> Any:
        path = kwargs.get('filename') or args[0]
        if is_safetensors(path) and '://' not in str(path):
            return read_safetensors(path)
        with safe_loading(path):
            return wrapped(*args, **kwargs)
