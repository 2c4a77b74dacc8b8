"""Checks that checkpoints can be written, and that the disk has room for the newest ones."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process

from lm4ve.dry_run.finding import Finding, Verdict
from lm4ve.dry_run.plan import Plan
from lm4ve.errors import UserError
from lm4ve.files import require_writable


def check_disk(plan: Plan) -> Finding:
    """Write into the work directory, and compare its free disk with the newest checkpoints.

    Their size is that of the one that the steps have saved. Quotas of a user are not
    seen.

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
    folder = checkpoint_folder(plan.cfg, writer)
    newest = count_newest(writer)
    needed = newest * plan.checkpoint_bytes - _bytes_of_checkpoints(folder)
    # A new one is written before an old one is deleted.
    needed = max(needed, plan.checkpoint_bytes)
    place = _nearest_existing(folder)
    free = shutil.disk_usage(place).free
    size = f'{newest} of {_size(plan.checkpoint_bytes)} at once'
    if writer.get('max_keep_ckpts', -1) <= 0:
        size = f'each {_size(plan.checkpoint_bytes)}, and all are kept'
    if needed > free:
        raise UserError(
            f"work_dir: checkpoints in '{folder}' need {_size(needed)} ({size}), but "
            f"'{place}' has {_size(free)} free. Fix: free some, use another --work-dir, or set "
            'default_hooks.checkpoint.max_keep_ckpts.'
        )
    return Finding(f"{size}; '{place}' has {_size(free)} free")


def count_newest(writer: Mapping[str, Any]) -> int:
    """Return how many checkpoints exist while a new one is written.

    Args:
        writer (Mapping): The config of the checkpoint hook. Where it keeps all, two
            count: the newest and the one before it.
    """
    kept = max(writer.get('max_keep_ckpts', -1), 1)
    best = writer.get('save_best') or []
    if isinstance(best, str):
        best = [best]
    return int(kept) + 1 + len(best)


def _bytes_of_checkpoints(folder: Path) -> int:
    """Return the bytes of the checkpoints in a folder, which new ones replace."""
    return sum(path.stat().st_size for path in folder.glob('*.pth'))


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
