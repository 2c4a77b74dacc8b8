"""Checks that the disk has room for all checkpoints to come."""

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process

from lm4ve.dry_run.finding import Finding, warning_if
from lm4ve.dry_run.plan import Plan
from lm4ve.errors import UserError


def check_disk(plan: Plan) -> Finding:
    """Compare the free disk with the checkpoints that the training will keep.

    A new checkpoint is written before an old one is deleted, so that one more than are
    kept must fit. Quotas of a user are not seen.

    Raises:
        UserError: They do not fit.
    """
    if not is_main_process():
        return Finding('the first process writes the checkpoints')
    writer = (plan.cfg.get('default_hooks') or {}).get('checkpoint')
    if not writer or plan.checkpoint_bytes == 0:
        return Finding('no checkpoints are written')
    if writer.get('backend_args'):
        return Finding(f'backend_args={writer.backend_args} were not asked for room')
    saved = count_saved(writer, plan.iterations - plan.done, len(plan.loaders['train']))
    kept = checkpoints_at_once(writer, saved)
    folder = checkpoint_folder(plan.cfg, writer)
    existing = [path.stat().st_size for path in folder.glob('*.pth')]
    needed = max(0, kept * plan.checkpoint_bytes - sum(existing))
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
    kept = writer.get('max_keep_ckpts', -1)
    at_once = saved
    if kept > 0:
        at_once = min(saved, kept + 1)
    best = writer.get('save_best') or []
    if isinstance(best, str):
        best = [best]
    return at_once + len(best)


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
