"""Find the newest whole checkpoint, and continue training from it.

MMEngine resumes from the path in the work directory's file ``last_checkpoint``,
unchecked. A disk that was full or a machine that lost power leaves a damaged file
behind it; a work directory that was moved or copied leaves a path to nowhere.
"""

import logging
import os
import re
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log

from lm4ve.errors import CheckpointError, UserError, listing
from lm4ve.runner.checkpoint_files import read_checkpoint

_NAME = re.compile(r'(epoch|iter)_(\d+)\.pth')


def check_whole(path: str | Path) -> None:
    """Read a checkpoint file.

    Raises:
        CheckpointError: It does not exist, is damaged, or holds no state of a training.
    """
    content = read_checkpoint(path)
    if not {'meta', 'message_hub'} <= content.keys():
        raise CheckpointError(
            f"Training cannot continue from '{path}', which holds {listing(list(content))}; "
            'begin with its weights by load_from, without --resume.'
        )


def newest_checkpoint(work_dir: str | Path) -> tuple[Path | None, list[str]]:
    """Find the checkpoint to resume from.

    Args:
        work_dir (str | Path): The run's folder. The file of the name in its
            ``last_checkpoint`` comes first, in this folder, or where the path leads
            (``out_dir`` of the hook) if this folder has none; then the other
            checkpoints of MMEngine's
            names, from the latest, but none that comes after the named one: an earlier
                run may
            have left it.

    Returns:
        tuple[Path | None, list[str]]: The file, and why it is not the named one. None
        without
        a reason: there is no checkpoint.

    Raises:
        UserError: There are checkpoints, and all are damaged.
    """
    folder, notes = Path(work_dir), list[str]()
    pointer = folder / 'last_checkpoint'
    found = [
        (m[1], int(m[2]), p)
        for p in folder.glob('*.pth')
        if (m := _NAME.fullmatch(p.name))
    ]
    found.sort(key=lambda f: f[2].stat().st_mtime, reverse=True)
    text = (
        pointer.read_bytes().decode(errors='replace').strip()
        if pointer.is_file()
        else ''
    )
    # A work directory that was copied names files of the other one.
    places = [str(folder / Path(text).name), *[text] * (not found)] if text else []
    paths = [Path(place) for place in places if os.path.exists(place)][:1]
    if not paths and (found or pointer.is_file()):
        notes.append(f"'{pointer}' is missing or damaged, or its file is gone.")
    if m := _NAME.fullmatch(Path(text).name):
        found = sorted(
            (f for f in found if f[0] == m[1] and f[1] < int(m[2])), reverse=True
        )
    paths += [path for *_, path in found]
    for path in paths:
        try:
            if not path.is_dir():  # a folder of shards, whose format checks itself
                check_whole(path)
            return path, notes
        except (CheckpointError, OSError) as e:
            notes.append(str(e))
    if paths:
        raise UserError(
            f"No checkpoint in work_dir='{folder}' is whole: {listing(notes)}"
        )
    return None, notes


def resume_newest(cfg: Config, needed: bool = False) -> None:
    """Make a config continue from the newest checkpoint of its work directory.

    Args:
        cfg (Config): Gets ``resume`` and ``load_from``; without a checkpoint, it
            trains from the beginning.
        needed (bool): Raise an error instead of training from the beginning.

    Raises:
        UserError: All checkpoints are damaged, or there is none and one is needed.
    """
    path, notes = newest_checkpoint(cfg.work_dir)
    if path is None and needed:
        raise UserError(
            f"There is no checkpoint in work_dir='{cfg.work_dir}': use --resume auto."
        )
    cfg.resume = path is not None
    if path is not None:
        cfg.load_from = str(path)
    if os.environ.get('RANK', '0') == '0':
        then = f"Training continues from '{path}'." if path else 'Training begins anew.'
        level = logging.WARNING if notes else logging.INFO
        print_log(' '.join([*notes, then]), logger='current', level=level)
