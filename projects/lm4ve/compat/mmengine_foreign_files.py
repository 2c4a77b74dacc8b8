"""Keep MMEngine from deleting the checkpoints of other runs."""

import re
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

import wrapt
from mmengine.logging import print_log


def delete_own_files_only(checkpoint_hook: Any) -> None:
    """Let a resumed ``CheckpointHook`` delete only best checkpoints in its own directory.

    Broken in MMEngine 0.10.7 (no upstream issue): a resumed hook reads the path of the
    best checkpoint so far from the message hub of the resumed file, and deletes what is
    there (a file or a folder) as soon as there is a better one. The path may be any;
    after a work directory was copied, it leads to the old one. May go once the hook
    deletes in its own directory only.
    """
    wrapt.wrap_function_wrapper(
        checkpoint_hook, 'before_train', _before_train_with_own_files
    )


def _before_train_with_own_files(
    before_train: Callable[..., None], hook: Any, args: Any, kwargs: Any
) -> None:
    """Run ``CheckpointHook.before_train``, and keep it from deleting foreign files later.

    MMEngine's method reads two things from the message hub, which a resumed file may
    have filled:

    - ``keep_ckpt_ids``, the numbers of the checkpoints that are kept. They become names
      of files to delete. A value that is not a list of integers is dropped before the
      method runs.
    - The paths of the best checkpoints. After the method has run, each is replaced, in
      the hook and in the message hub: by the path of the file of this name in the hook's
      own directory, or by None.

    Args:
        before_train (Callable): MMEngine's method, bound to the hook.
        hook (CheckpointHook): The hook.
        args, kwargs: The arguments of the call: the runner alone, with or without name.
    """
    runner = kwargs['runner'] if 'runner' in kwargs else args[0]
    info = runner.message_hub.runtime_info
    if 'keep_ckpt_ids' in info and not _is_list_of_ints(info['keep_ckpt_ids']):
        del info['keep_ckpt_ids']
    before_train(*args, **kwargs)
    # A hook has one of the two attributes: the first if one score chooses the best
    # checkpoint, the second if each of several scores has a best one.
    best = getattr(hook, 'best_ckpt_path', None)
    if best is not None:
        own_path = _find_in_own_directory(hook, best)
        hook.best_ckpt_path = own_path
        info['best_ckpt'] = own_path
    best_by_score = getattr(hook, 'best_ckpt_path_dict', None) or {}
    for score, path in list(best_by_score.items()):
        if path is not None:
            own_path = _find_in_own_directory(hook, path)
            best_by_score[score] = own_path
            info[f'best_ckpt_{score}'] = own_path


def _is_list_of_ints(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int for item in value)


def _find_in_own_directory(hook: Any, path: object) -> str | None:
    """Find the best checkpoint of a stored path in the hook's own directory, by its name.

    Args:
        hook (CheckpointHook): The hook that will delete the file once it is outdated.
        path: A path from the resumed file, in any directory.

    Returns:
        str | None: The path in the hook's directory. None, after a message: there is no
        such file, or the name is none that this hook gives to its best checkpoints.
    """
    name = PurePath(str(path)).name
    own_path = hook.file_backend.join_path(hook.out_dir, name)
    if _is_name_of_best(hook, name) and hook.file_backend.exists(own_path):
        return str(own_path)
    print_log(
        f"The best checkpoint so far, '{path}', is not of this run and is kept.",
        logger='current',
    )
    return None


def _is_name_of_best(hook: Any, name: str) -> bool:
    """Return whether a hook names its best checkpoints like this: ``best_*_epoch_3.pth``."""
    if not name.startswith('best_'):
        return False
    for number in re.findall(r'\d+', name):
        if name.endswith(f'_{hook.filename_tmpl.format(int(number))}'):
            return True
    return False
