"""MMEngine deletes the files and folders that a resumed checkpoint names.

True of MMEngine 0.10.7 (no upstream issue): ``CheckpointHook`` takes the path of the best
checkpoint so far from the message hub of the file, and removes what is there once a
better one is saved. It may lie anywhere; after a work directory was copied, it lies in the
old one. May go once the hook looks into its own directory only.
"""

import inspect
import re
from pathlib import PurePath
from types import ModuleType
from typing import Any

import wrapt
from mmengine.logging import print_log


def is_needed(checkpoint_hook: ModuleType) -> bool:
    """Return whether MMEngine's hook still takes the path as it is.

    Args:
        checkpoint_hook (ModuleType): ``mmengine.hooks.checkpoint_hook``.
    """
    text = inspect.getsource(checkpoint_hook.CheckpointHook.before_train)
    return "get_info(\n                        'best_ckpt')" in text


def repair(checkpoint_hook: ModuleType) -> None:
    """Let the hook know the files of its own directory only."""
    wrapt.wrap_function_wrapper(checkpoint_hook, 'CheckpointHook.before_train', _before_train)


def _before_train(wrapped: Any, hook: Any, args: Any, kwargs: Any) -> None:
    info = (kwargs.get('runner') or args[0]).message_hub.runtime_info
    ids = info.get('keep_ckpt_ids', [])
    if not isinstance(ids, list) or not all(type(i) is int for i in ids):
        del info['keep_ckpt_ids']
    wrapped(*args, **kwargs)
    if getattr(hook, 'best_ckpt_path', None) is not None:
        hook.best_ckpt_path = info['best_ckpt'] = _own(hook, hook.best_ckpt_path)
    for key, path in (getattr(hook, 'best_ckpt_path_dict', None) or {}).items():
        if path is not None:
            own = hook.best_ckpt_path_dict[key] = _own(hook, path)
            info[f'best_ckpt_{key}'] = own


def _own(hook: Any, path: object) -> str | None:
    """Return the file of that name in the hook's own directory, if it may be the hook's."""
    name = PurePath(str(path)).name
    endings = {f'_{hook.filename_tmpl.format(int(n))}' for n in re.findall(r'\d+', name)}
    own = hook.file_backend.join_path(hook.out_dir, name)
    if name.startswith('best_') and name.endswith(tuple(endings)) and hook.file_backend.exists(own):
        return str(own)
    print_log(
        f"The best checkpoint so far, '{path}', is none of this run's and stays as it is.",
        logger='current',
    )
    return None
