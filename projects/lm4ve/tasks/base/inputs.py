"""The files and arrays that a user hands to a model: named ones, and those of folders.

A file that is named itself has to be whole, or its error ends the call. A folder or a
pattern stands for whatever it holds: files of other kinds are left out, damaged ones are
skipped, and warnings name them. Of these files each real one is read once, also where
folders and patterns overlap or it is named itself.
"""

import glob
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from mmengine.logging import print_log

from lm4ve.data.folder_listing import (
    OTHER_ENDING,
    FolderListing,
    list_files,
    warn_left_out,
)
from lm4ve.errors import UserError, check, first_line, listing, require
from lm4ve.tasks.base.task import Task

#: A file, or an array for a task that reads arrays.
Input = str | Path | np.ndarray
Read = TypeVar('Read')
#: How many skipped files a warning names.
_NAMED = 20


@dataclass
class Inputs:
    """What a model is to predict for.

    Attributes:
        sources (list[Path | np.ndarray]): Files, folders that are one input, and arrays,
            in the order in which they were named; those of a folder sorted.
        found (set[Path]): The files among them that a folder or a pattern gave, and that
            are not named themselves.
        known (set[str]): The real paths of what is named itself, and of what was found.
        skipped (dict[Path, str]): Files that :meth:`read_each` has skipped, and why.
    """

    sources: list[Path | np.ndarray] = field(default_factory=list)
    found: set[Path] = field(default_factory=set)
    known: set[str] = field(default_factory=set)
    skipped: dict[Path, str] = field(default_factory=dict)

    def add_found(self, files: Sequence[Path]) -> None:
        """Add the files of a folder or of a pattern, but for those that are known."""
        for file in files:
            real_path = os.path.realpath(file)
            if real_path not in self.known:
                self.known.add(real_path)
                self.sources.append(file)
                self.found.add(file)

    def read_each(
        self, read: Callable[[Path | np.ndarray], Read]
    ) -> Iterator[tuple[int, Read]]:
        """Read the sources one by one; skip damaged files that were only found.

        Args:
            read (Callable): Reads a source, and raises a ``UserError`` for a damaged
                file.

        Yields:
            tuple[int, Read]: The place of a source in :attr:`sources`, and what ``read``
            has returned.

        Raises:
            UserError: A source that was named itself cannot be read, or no source can.
        """
        for place, source in enumerate(self.sources):
            try:
                content = read(source)
            except UserError as error:
                if isinstance(source, Path) and source in self.found:
                    self.skipped[source] = first_line(error).removesuffix('.')
                    continue
                raise
            yield place, content
        self._report_skipped()

    def _report_skipped(self) -> None:
        """Warn of the files that were skipped, in one line.

        Raises:
            UserError: All of them were.
        """
        if not self.skipped:
            return
        count = len(self.skipped)
        reasons = listing(list(self.skipped.values()), _NAMED)
        text = f'{count} of {len(self.sources)} files cannot be read: {reasons}.'
        require(count < len(self.sources), text)
        print_log(f'Skipped: {text}', logger='current', level=logging.WARNING)


def find_inputs(inputs: Input | Sequence[Input], task: Task) -> Inputs:
    """Replace folders and patterns by their files, and check the files that are named.

    Args:
        inputs (str | Path | np.ndarray | Sequence): One or several files, folders,
            patterns such as ``'photos/**/*.jpg'``, or arrays. A folder stands for all
            files of the task's kinds in it, at any depth. One without such files is an
            input itself for a task that reads folders, such as of a video's frames.
        task (Task): Declares the endings of its files.

    Raises:
        UserError: A file does not exist or is of another kind, or a folder has no file.
    """
    if isinstance(inputs, (str, Path, np.ndarray)):
        inputs = [inputs]
    found = Inputs()
    for item in inputs:
        if not isinstance(item, np.ndarray) and Path(item).exists():
            found.known.add(os.path.realpath(item))
    for item in inputs:
        if isinstance(item, np.ndarray):
            found.sources.append(item)
            continue
        path = Path(item)
        if path.is_dir():
            _add_folder(found, path, task)
        elif path.exists():
            _check_ending(path, task)
            found.sources.append(path)
        else:
            _add_pattern(found, str(item), task)
    return found


def _add_folder(found: Inputs, folder: Path, task: Task) -> None:
    """Add the files of a folder, or the folder itself where it is one input.

    Raises:
        UserError: There are no files of the task's kinds, and the task reads no folders.
    """
    content = list_files(folder, lambda path: _has_ending(Path(path), task))
    if content.files:
        warn_left_out(content, folder, 'inputs')
        found.add_found([folder / path for path in content.files])
        return
    if task.takes_folders:
        found.sources.append(folder)
        return
    left_out = content.describe_left_out() or 'it is empty'
    raise UserError(
        f"The folder '{folder}' has no file for the config, which takes {task.input_noun} "
        f'({", ".join(task.input_suffixes)}): {left_out}.'
    )


def _add_pattern(found: Inputs, pattern: str, task: Task) -> None:
    """Add the files that a pattern of :mod:`glob` stands for, sorted.

    Raises:
        UserError: There is none; the message says what the pattern stands for instead.
    """
    files = []
    folders = []
    others = FolderListing()
    for name in sorted(glob.glob(pattern, recursive=True)):
        path = Path(name)
        is_input = path.is_dir() and task.takes_folders
        if is_input or (_has_ending(path, task) and not path.is_dir()):
            files.append(path)
        elif path.is_dir():
            folders.append(name)
        else:
            others.leave_out(OTHER_ENDING, name)
    if files:
        warn_left_out(others, pattern, 'inputs')
        found.add_found(files)
        return
    if others.left_out:
        raise UserError(
            f"'{pattern}' stands for no file for the config, which takes {task.input_noun}: "
            f'{others.describe_left_out()}.'
        )
    if folders:
        raise UserError(
            f"'{pattern}' stands for folders only: {listing(folders)}. Fix: name a folder, "
            'which stands for all files in it.'
        )
    raise UserError(f"'{pattern}' does not exist.")


def _has_ending(path: Path, task: Task) -> bool:
    """Return whether a file's ending is one of the task's."""
    return path.suffix.lower() in task.input_suffixes


def _check_ending(path: Path, task: Task) -> None:
    """Refuse a file whose ending the task does not read.

    Raises:
        UserError: The message names the path, the task's input and its endings.
    """
    # check continues this beginning of its message: "...; its ending='.gif' must be ...".
    ending_of_path = (
        f"'{path}' does not fit: the config takes {task.input_noun}; its ending"
    )
    check(ending_of_path, path.suffix.lower(), choices=task.input_suffixes)
