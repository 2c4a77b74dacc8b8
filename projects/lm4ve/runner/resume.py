"""Choose where a run starts, and find the newest whole checkpoint to continue from.

MMEngine resumes from the path in the work directory's file ``last_checkpoint``,
unchecked. A disk that was full or a machine that lost power leaves a damaged file
behind it; a work directory that was moved or copied leaves a path to nowhere.
"""

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from lm4ve.compat.mmengine_runner_state import resumed_from
from lm4ve.errors import CheckpointError, UserError, check, listing
from lm4ve.runner.checkpoint_files import meta_of, read_checkpoint
from lm4ve.runner.missing import SEARCHED, missing_start
from lm4ve.runner.process_rank import find_difference, is_first_process

_NAME = re.compile(r'(epoch|iter)_(\d+)\.pth')


def check_whole(path: str | Path) -> int:
    """Read a checkpoint file to its end, and check that a training can continue from it.

    Returns:
        int: After how many iterations it was written; 0 if it does not say so.

    Raises:
        CheckpointError: It does not exist, is damaged, or holds no state of a training.
    """
    content = read_checkpoint(path)
    if not {'meta', 'message_hub'} <= content.keys():
        raise CheckpointError(
            f"Training cannot continue from '{path}', which holds {listing(list(content))}; "
            'begin with its weights by load_from, without --resume.'
        )
    return int(meta_of(content).get('iter', 0))


@dataclass(frozen=True)
class _Saved:
    """A checkpoint under MMEngine's name, ``epoch_3.pth`` or ``iter_3.pth``.

    Attributes:
        unit (str): 'epoch' or 'iter'.
        number (int): How many epochs or iterations were done.
        path (Path): The file, or a folder of shards.
    """

    unit: str
    number: int
    path: Path


def newest_checkpoint(work_dir: str | Path) -> tuple[Path | None, list[str]]:
    """Find the first checkpoint of a work directory that is whole, from the newest on.

    The first candidate is the checkpoint named in the file ``last_checkpoint``: in this
    folder, or where the path leads (``out_dir`` of the hook) if this folder has no
    checkpoints. The others of MMEngine's names follow, the latest first, without those
    after the named one, which an earlier run may have left.

    Args:
        work_dir (str | Path): The run's folder.

    Returns:
        tuple[Path | None, list[str]]: The checkpoint, and why it is not the named one. If
        there is no checkpoint, None and an empty list, or the reason if
        ``last_checkpoint`` names one that is gone.

    Raises:
        UserError: There are checkpoints, and all are damaged.
    """
    folder = Path(work_dir)
    saved = _find_saved(folder)
    pointer = folder / 'last_checkpoint'
    target = _read_pointer(pointer)
    named = _find_named(folder, target, may_be_elsewhere=not saved)
    candidates: list[Path] = []
    notes: list[str] = []
    if named is not None:
        candidates.append(named)
    elif saved or pointer.is_file():
        notes.append(f"'{pointer}' is missing or damaged, or its file is gone.")
    candidates += [each.path for each in _in_order(saved, Path(target).name)]
    limit = _iterations_in(Path(target).name)
    for path in candidates:
        try:
            # A folder holds shards, whose format PyTorch checks when it loads them.
            iterations = 0 if path.is_dir() else check_whole(path)
        except (CheckpointError, OSError) as e:
            notes.append(str(e))
            continue
        if limit is None or iterations <= limit:
            return path, notes
        notes.append(
            f"'{path}' is of iteration {iterations}, after '{Path(target).name}': left out."
        )
    if candidates:
        raise UserError(
            f"No checkpoint in work_dir='{folder}' is whole: {listing(notes)}"
        )
    return None, notes


def _find_saved(folder: Path) -> list[_Saved]:
    """Return the checkpoints of a folder, whether they are whole or not."""
    saved = []
    for path in folder.glob('*.pth'):
        match = _NAME.fullmatch(path.name)
        if match is not None:
            saved.append(_Saved(match[1], int(match[2]), path))
    return saved


def _read_pointer(pointer: Path) -> str:
    """Return the text of a file ``last_checkpoint``, which may be damaged.

    Returns:
        str: The path of a checkpoint; '' if there is no such file.
    """
    if not pointer.is_file():
        return ''
    return pointer.read_bytes().decode(errors='replace').strip()


def _find_named(folder: Path, target: str, may_be_elsewhere: bool) -> Path | None:
    """Return the checkpoint that a pointer names, if it exists.

    Args:
        folder (Path): The work directory. If it was copied, the pointer leads to the old
            one; so a file of the same name in this folder comes first.
        target (str): The text of the pointer.
        may_be_elsewhere (bool): Whether a file outside this folder is accepted.
    """
    if not target:
        return None
    own = folder / Path(target).name
    if os.path.exists(own):
        return own
    if may_be_elsewhere and os.path.exists(target):
        return Path(target)
    return None


def _in_order(saved: list[_Saved], name: str) -> list[_Saved]:
    """Return the checkpoints before a named one, the latest first.

    Later ones may be of an earlier run and are left out. If an iteration is named, which
    was saved at a signal between two epochs, the checkpoints of epochs follow, the later
    ones too: only their content tells them apart.

    Args:
        saved (list[_Saved]): The checkpoints of a folder.
        name (str): The file name of the named checkpoint. If it is not one of MMEngine's
            names, all checkpoints are returned, ordered by their time of writing.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return sorted(saved, key=lambda each: each.path.stat().st_mtime, reverse=True)
    unit = match[1]
    earlier = []
    epochs = []
    for each in saved:
        if each.unit == unit and each.number < int(match[2]):
            earlier.append(each)
        elif each.unit == 'epoch' and unit == 'iter':
            epochs.append(each)
    earlier.sort(key=lambda each: each.number, reverse=True)
    epochs.sort(key=lambda each: each.number, reverse=True)
    return earlier + epochs


def _iterations_in(name: str) -> int | None:
    """Return the number in the file name of an iteration's checkpoint, else None."""
    match = _NAME.fullmatch(name)
    if match is None or match[1] != 'iter':
        return None
    return int(match[2])


def choose_start(cfg: Config) -> None:
    """Choose where a run starts: anew, with the weights of a checkpoint, or resumed.

    This is the one place. ``cfg.resume`` says how:

    - False: with the weights of ``load_from`` if it names a checkpoint, else anew;
    - True: resumed from ``load_from``; without one, as 'auto';
    - 'auto': resumed from the newest whole checkpoint of the work directory; if there is
      none, as with False;
    - 'newest': the same, but there has to be one.

    Args:
        cfg (Config): Its ``resume`` is True or False afterwards, and ``load_from`` names
            the checkpoint.

    Raises:
        UserError: There is no such checkpoint, or it is damaged.
    """
    how = cfg.get('resume') or False
    check('resume', how, choices=(False, True, *SEARCHED))
    if how in SEARCHED or (how and not cfg.get('load_from')):
        how = _find_newest(cfg, is_needed=how == 'newest')
        cfg.resume = how
        if how:
            return  # it is whole
    _require_load_from(cfg)
    path = cfg.get('load_from')
    if how and Path(path).is_file():
        check_whole(path)


def _find_newest(cfg: Config, is_needed: bool) -> bool:
    """Name the newest whole checkpoint of the work directory in ``load_from``, if there is one.

    Returns:
        bool: Whether there is one.

    Raises:
        UserError: All checkpoints are damaged, or there is none and one is needed.
    """
    path, notes = newest_checkpoint(cfg.work_dir)
    if path is None and is_needed:
        raise UserError(
            f"There is no checkpoint in work_dir='{cfg.work_dir}': use --resume auto."
        )
    if path is not None:
        cfg.load_from = str(path)
    if is_first_process():
        _log_choice(path, notes)
    return path is not None


def _require_load_from(cfg: Config) -> None:
    """Check that the checkpoint ``load_from`` exists, unless it is an address.

    Other runners than ``Runner``, such as that of DeepSpeed, may load a folder.

    Raises:
        UserError: It does not exist, or is a folder for ``Runner``.
    """
    for missing in missing_start(cfg):
        raise UserError(str(missing))
    path = cfg.get('load_from')
    if not path or '://' in str(path):
        return
    if cfg.get('runner_type', 'Runner') == 'Runner' and Path(path).is_dir():
        raise UserError(
            f"load_from='{path}' is a folder. Fix: name a checkpoint in it."
        )


def refuse_other_checkpoints(runner: Any) -> None:
    """Refuse processes that have not all loaded the checkpoint that the first one has.

    Each looks for it by itself, and a machine may lack the work directory of the others,
    or see an older state of it. Their weights would differ from then on: MMEngine makes
    them equal before it loads a checkpoint.

    Args:
        runner (Runner): After it has loaded the checkpoint. All processes have to call
            this together.

    Raises:
        UserError: It names two processes.
    """
    difference = find_difference(_describe_start(runner))
    if difference is None:
        return
    first, rank, other = difference
    raise UserError(
        f'resume: process 0 {first}, and process {rank} {other}. Fix: a work_dir that all '
        'machines share; or --resume CHECKPOINT on each.'
    )


def _describe_start(runner: Any) -> str:
    """Describe from where a runner trains; machines may have the file at other paths."""
    path = resumed_from(runner)
    if path is None:
        return 'begins anew'
    return f"continues from '{Path(path).name}' (iteration {runner.iter})"


def _log_choice(path: Path | None, notes: list[str]) -> None:
    """Log where training starts; a warning if that is not the named checkpoint."""
    if path is None:
        choice = 'Training begins anew.'
    else:
        choice = f"Training continues from '{path}'."
    level = logging.WARNING if notes else logging.INFO
    print_log(' '.join([*notes, choice]), logger='current', level=level)
