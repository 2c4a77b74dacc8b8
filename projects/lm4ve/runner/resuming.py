"""Which checkpoint a run continues from: the newest one that is whole.

MMEngine reads the path in the work directory's file ``last_checkpoint`` and believes it.
A disk that was full or a machine that lost power leaves a damaged file behind it; a work
directory that was moved or copied leaves a path to nowhere.
"""

import logging
import os
import re
import zipfile
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log

from lm4ve.errors import CheckpointError, UserError, listing
from lm4ve.runner.checkpoint_files import read_checkpoint
from lm4ve.runner.resumable import find_gap

#: Characters that a path may have.
_LONGEST = 4096
_NAME = re.compile(r'(epoch|iter)_(\d+)\.pth')


def check_resumable(path: str | Path) -> None:
    """Look whether training can continue from a file, before anything is built.

    All of it is read: the parts of a zip file have checksums.

    Args:
        path (str | Path): A file. Folders and addresses are left to what reads them.

    Raises:
        CheckpointError: It is damaged, or something in it is missing or of another type.
    """
    path = Path(path)
    if not path.is_file():
        return
    content = read_checkpoint(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as parts:
            if (part := parts.testzip()) is not None:
                raise CheckpointError(
                    f"'{path}' is damaged: the checksum of its part '{part}' is wrong. Fix: copy "
                    'it again, or take another checkpoint of that run.'
                )
    if (gap := find_gap(content)) is not None:
        raise CheckpointError(
            f"Training cannot continue from '{path}': {gap}. Fix: take another checkpoint of that "
            'run, or begin a new one with its weights by load_from, without --resume.'
        )


def find_defect(path: Path) -> str | None:
    """Say why training cannot continue from a file, or None."""
    try:
        check_resumable(path)
    except (CheckpointError, zipfile.BadZipFile, OSError) as e:
        return str(e)
    return None


def newest_checkpoint(work_dir: str | Path) -> tuple[Path | None, list[str]]:
    """Find the checkpoint to resume from.

    Args:
        work_dir (str | Path): The run's folder. The file that its ``last_checkpoint``
            names comes first; then the one of that name in this folder; then the
            other checkpoints of MMEngine's names, from the latest, but none that
            comes after the named one: an earlier run may have left it.

    Returns:
        tuple[Path | None, list[str]]: The file, and what stands in its way if it is not
        the named one. None without a reason: there is no checkpoint.

    Raises:
        UserError: There are checkpoints, and all are damaged.
    """
    folder = Path(work_dir)
    notes: list[str] = []
    named: Path | None = None
    pointer = folder / 'last_checkpoint'
    others = [(m[1], int(m[2]), p) for p in folder.glob('*.pth') if (m := _NAME.fullmatch(p.name))]
    if pointer.is_file():
        text = pointer.read_bytes().decode(errors='replace').strip('\0 \r\n')
        named = Path(text) if text.isprintable() and 0 < len(text) <= _LONGEST else None
        if named is None:
            notes.append(f"'{pointer}' is {'damaged' if text else 'empty'}.")
    elif others:
        notes.append(f"'{pointer}' is missing.")
    candidates = []
    if named is not None:
        candidates.append(named)
        if not named.exists():
            notes.append(f"'{pointer}' names '{named}', which is not there.")
            candidates = [folder / named.name]
        if m := _NAME.fullmatch(named.name):
            others = [o for o in others if o[0] == m[1] and o[1] < int(m[2])]
    others.sort(key=lambda o: o[2].stat().st_mtime if named is None else o[1], reverse=True)
    candidates += [path for _, _, path in others]
    damaged: list[str] = []
    for path in candidates:
        if path.is_dir():  # in shards, whose format checks itself
            return path, notes
        if not path.exists():
            continue
        if (defect := find_defect(path)) is None:
            return path, notes + damaged
        damaged.append(defect)
    if damaged:
        raise UserError(
            f"No checkpoint in work_dir='{folder}' can be resumed: {listing(damaged)} Fix: copy "
            'a whole one there, or begin anew in another folder.'
        )
    return None, notes


def resume_newest(cfg: Config, needed: bool = False) -> None:
    """Let a config continue from the newest checkpoint of its work directory.

    Args:
        cfg (Config): Gets ``resume`` and ``load_from``; without a checkpoint, it
            trains from the beginning.
        needed (bool): Refuse to train from the beginning.

    Raises:
        UserError: All checkpoints are damaged, or there is none and one is needed.
    """
    path, notes = newest_checkpoint(cfg.work_dir)
    if path is None and needed:
        raise UserError(
            f"--resume: there is no checkpoint in work_dir='{cfg.work_dir}'. Fix: correct "
            '--work-dir, leave out --resume, or give --resume auto, which begins anew then.'
        )
    cfg.resume = path is not None
    if path is not None:
        cfg.load_from = str(path)
    if os.environ.get('RANK', '0') == '0':
        then = f"Training continues from '{path}'." if path else 'Training begins anew.'
        print_log(
            ' '.join([*notes, then]),
            logger='current',
            level=logging.WARNING if notes else logging.INFO,
        )
