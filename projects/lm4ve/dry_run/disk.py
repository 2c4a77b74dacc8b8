"""Checks that checkpoints can be written, and that the disk has room for all to come."""

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process

from lm4ve.dry_run.finding import Finding, Verdict, warning_if
from lm4ve.dry_run.plan import Plan
from lm4ve.errors import UserError
from lm4ve.files import require_writable


def check_disk(plan: Plan) -> Finding:
    """Write into the work directory, and compare its free disk with the checkpoints to come.

    A new checkpoint is written before an old one is deleted, so that one more than are
    kept must fit. Quotas of a user are not seen.

    Raises:
        UserError: Nothing can be written there, or they do not fit.
    """
    if not is_main_process():
        return Finding('the first process writes the checkpoints')
    # Nothing stays of what is written.
    require_writable(_nearest_existing(Path(plan.cfg.work_dir)), 'work_dir')
    writer = (plan.cfg.get('default_hooks') or {}).get('checkpoint')
    if not writer or plan.done >= plan.iterations:
        return Finding('no checkpoints are written')
    if plan.checkpoint_bytes == 0:
        return Finding('the size of a checkpoint is not known', Verdict.WARNING)
    if writer.get('backend_args'):
        return Finding(f'backend_args={writer.backend_args} were not asked for room')
    saved = count_saved(writer, plan.iterations - plan.done, len(plan.loaders['train']))
    kept = checkpoints_at_once(writer, saved)
    folder = checkpoint_folder(plan.cfg, writer)
    needed = kept * plan.checkpoint_bytes - bytes_freed(plan, writer, saved)
    place = _nearest_existing(folder)
    free = shutil.disk_usage(place).free
    size = f'{kept} of {_size(plan.checkpoint_bytes)} at once'
    if needed > free:
        raise UserError(
            f"work_dir: checkpoints in '{folder}' need {_size(needed)} ({size}), but "
            f"'{place}' has {_size(free)} free. Fix: free some, use another --work-dir, or set "
            'default_hooks.checkpoint.max_keep_ckpts or interval.'
        )
    problem = ''
    if saved == 0:
        problem = (
            'None would be written: default_hooks.checkpoint.interval is too long.'
        )
    return warning_if(problem, f"{size}; '{place}' has {_size(free)} free")


def count_saved(writer: Mapping[str, Any], iterations: int, epoch_length: int) -> int:
    """Return how many checkpoints a training writes at its intervals and at its end.

    Args:
        writer (Mapping): The config of the checkpoint hook.
        iterations (int): How many are left to train.
        epoch_length (int): How many an epoch has.
    """
    interval = writer.get('interval', -1)
    length = iterations
    if writer.get('by_epoch', True):
        length = math.ceil(iterations / epoch_length)
    saved = 0
    if interval > 0:
        saved = length // interval
    is_last_saved = interval > 0 and length % interval == 0
    if writer.get('save_last', True) and length > 0 and not is_last_saved:
        saved += 1
    return saved


def checkpoints_at_once(writer: Mapping[str, Any], saved: int) -> int:
    """Return the largest number of checkpoints that exist at the same time.

    Args:
        writer (Mapping): The config of the checkpoint hook.
        saved (int): How many are written in all, without the best ones.
    """
    best = writer.get('save_best') or []
    if isinstance(best, str):
        best = [best]
    return _regular_at_once(writer, saved) + len(best)


def _regular_at_once(writer: Mapping[str, Any], saved: int) -> int:
    """Return :func:`checkpoints_at_once` without the best ones."""
    kept = writer.get('max_keep_ckpts', -1)
    if kept > 0:
        return min(saved, kept + 1)
    return saved


def bytes_freed(plan: Plan, writer: Mapping[str, Any], saved: int) -> int:
    """Return the bytes of earlier checkpoints that make room for the new ones in time.

    These are gone before the largest number of new ones exists: they have the names of
    new ones, or are deleted because of ``max_keep_ckpts``. A file counts no more than a
    new one, since a larger one may go later than its room is needed.

    Args:
        plan (Plan): Of the training.
        writer (Mapping): The config of the checkpoint hook.
        saved (int): How many are written in all, without the best ones.
    """
    # The last one is written before what it replaces is gone.
    before_last = max(0, _regular_at_once(writer, saved) - 1)
    if plan.done:
        room = writer.get('max_keep_ckpts', -1) - len(plan.kept_steps)
        steps = plan.kept_steps[: max(0, before_last - room)]
    elif writer.get('save_begin'):
        steps = []  # some of the first are not written
    else:
        interval = writer.get('interval', -1)
        steps = [interval * number for number in range(1, before_last + 1)]
    unit = 'epoch' if writer.get('by_epoch', True) else 'iter'
    template = writer.get('filename_tmpl') or f'{unit}_{{}}.pth'
    folder = checkpoint_folder(plan.cfg, writer)
    freed = 0
    for step in steps:
        path = folder / template.format(step)
        if path.is_file():
            freed += min(path.stat().st_size, plan.checkpoint_bytes)
    return freed


def checkpoint_folder(cfg: Config, writer: Mapping[str, Any]) -> Path:
    """Return the folder that a training writes its checkpoints to."""
    work_dir = Path(cfg.work_dir)
    if not writer.get('out_dir'):
        return work_dir
    return Path(writer['out_dir']) / work_dir.name


def _nearest_existing(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that exists."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return place


def _size(count: int) -> str:
    """Return a number of bytes as text."""
    if count >= 1e9:
        return f'{count / 1e9:,.1f} GB'
    return f'{count / 1e6:,.1f} MB'
