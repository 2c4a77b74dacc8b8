"""MMEngine deletes checkpoints of other runs."""

import re
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

import wrapt
from mmengine.logging import print_log


def delete_own_files_only(checkpoint_hook: Any) -> None:
    """A better checkpoint deletes the file or folder that a resumed checkpoint names as best.

    True of MMEngine 0.10.7 (no upstream issue): ``CheckpointHook`` takes the path from
    the message hub of the file. It may lie anywhere; after a work directory was copied,
    it lies in the old one. May go once the hook looks into its own directory only.
    """
    wrapt.wrap_function_wrapper(checkpoint_hook, 'before_train', _before_train)


def _before_train(
    before_train: Callable[..., None], hook: Any, args: Any, kwargs: Any
) -> None:
    runner = kwargs.get('runner') or args[0]
    info = runner.message_hub.runtime_info
    if 'keep_ckpt_ids' in info and not _is_list_of_ints(info['keep_ckpt_ids']):
        del info['keep_ckpt_ids']
    before_train(*args, **kwargs)
    # One of the two, by whether one score or several choose the best.
    best = getattr(hook, 'best_ckpt_path', None)
    if best is not None:
        hook.best_ckpt_path = _own_file(hook, best)
        info['best_ckpt'] = hook.best_ckpt_path
    best_by_score = getattr(hook, 'best_ckpt_path_dict', None) or {}
    for score, path in best_by_score.items():
        if path is not None:
            best_by_score[score] = _own_file(hook, path)
            info[f'best_ckpt_{score}'] = best_by_score[score]


def _is_list_of_ints(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int for item in value)


def _own_file(hook: Any, path: object) -> str | None:
    """Return the file of a path's name in the hook's own directory, or None.

    None: there is no such file, or the hook never gives a file such a name.
    """
    name = PurePath(str(path)).name
    own = hook.file_backend.join_path(hook.out_dir, name)
    if _is_name_of_best(hook, name) and hook.file_backend.exists(own):
        return str(own)
    print_log(
        f"The best checkpoint so far, '{path}', is not of this run and is kept.",
        logger='current',
    )
    return None


def _is_name_of_best(hook: Any, name: str) -> bool:
    """Return whether a hook may call its best checkpoint so: best_..._epoch_3.pth."""
    if not name.startswith('best_'):
        return False
    for number in re.findall(r'\d+', name):
        if name.endswith(f'_{hook.filename_tmpl.format(int(number))}'):
            return True
    return False
