"""Lists the pictures or clouds of a folder, for `lm4ve try` and for the data sets of configs.

Links are followed, since data sets are put together of links, but each file and folder
is read once: a link that leads back would multiply them, under names without end. Names
that begin with a dot (``.git``, ``.ipynb_checkpoints``, ``._x.jpg`` of macOS) belong to
programs. Whatever else is left out is counted and named.
"""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from mmengine.logging import print_log

from lm4ve.errors import StorageError, UserError, listing
from lm4ve.files import is_storage_error

#: Why a file is left out.
OTHER_ENDING = 'with another ending'
READ_ALREADY = 'links to what is read already, or to a folder above'
OUTSIDE = 'outside of the folders of classes'

# A file or folder on a disk, whatever its name: device and number.
_Identity = tuple[int, int]


@dataclass
class FolderListing:
    """The files below a folder that are wanted, and those that are not.

    Attributes:
        files (list[str]): Relative paths with ``/``, sorted as texts. Links that lead
            nowhere and what is no regular file are among them, so that the policy for
            damaged files applies.
        folders (set[str]): The folders directly in the folder, also those without such
            files.
        left_out (dict[str, list[str]]): Reason -> relative paths.
    """

    files: list[str] = field(default_factory=list)
    folders: set[str] = field(default_factory=set)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, reason: str, path: str) -> None:
        """Note that a file is left out."""
        self.left_out.setdefault(reason, []).append(path)

    def describe_left_out(self) -> str:
        """Return what was left out and why, with the first names; empty: nothing was."""
        parts = []
        for reason, names in self.left_out.items():
            counted = f'{len(names)} {reason}'
            if reason == OTHER_ENDING:
                counted = count_endings(names)
            parts.append(f'{counted} ({listing(sorted(names), 3)})')
        return '; '.join(parts)


def count_endings(paths: Iterable[str]) -> str:
    """Return how many files have each ending, as '4 .HEIC, 2 without an ending'."""
    endings = Counter(PurePath(path).suffix for path in paths)
    parts = []
    for ending, count in endings.most_common():
        parts.append(f'{count} {ending or "without an ending"}')
    return listing(parts)


def list_files(root: str | Path, is_wanted: Callable[[str], bool]) -> FolderListing:
    """List the files below a folder, each real one once.

    Args:
        root (str | Path): A local folder.
        is_wanted (Callable): Decides by a file's relative path.

    Raises:
        UserError: A folder is not there.
        StorageError: Storage does not give one.
    """
    walk = _Walk(str(root), is_wanted)
    walk.run()
    walk.found.files.sort()
    return walk.found


class _Walk:
    """One walk through a folder.

    Folders are read under their own names before links to folders are followed, so that
    the name of a link never takes the place of the real one.
    """

    def __init__(self, root: str, is_wanted: Callable[[str], bool]) -> None:
        self.root = root
        self.is_wanted = is_wanted
        #: What the walk has listed so far.
        self.found = FolderListing()
        #: The folders and files that were read, whatever name led to them.
        self.read: set[_Identity] = set()
        #: Links that are still to be followed, by their relative paths.
        self.linked_folders: list[str] = []
        self.linked_files: list[str] = []

    def run(self) -> None:
        """Read the root and all below it, then the linked folders, and last the linked files.

        Links come after what they may lead to: a file or folder that has been read under
        its own name is not read once more.
        """
        self._note_folders_above()
        self._read_folder('')
        # Reading a linked folder may add further links to the list.
        while self.linked_folders:
            path = self.linked_folders.pop(0)
            if self._identity(path) in self.read:
                self.found.leave_out(READ_ALREADY, path)
            else:
                self._read_folder(path)
        for path in self.linked_files:
            self._add_linked_file(path)

    def _add_linked_file(self, path: str) -> None:
        """Add a link to a file, unless the file has been read under another name."""
        identity = self._identity(path)
        if identity is None:
            # A link that leads nowhere is a damaged file.
            self.found.files.append(path)
        elif identity in self.read:
            self.found.leave_out(READ_ALREADY, path)
        else:
            self.read.add(identity)
            self.found.files.append(path)

    def _note_folders_above(self) -> None:
        """Count the folders above the root as read, so that no link leads out to them.

        A link to one of them would add the root once more, and all that is beside it.
        """
        for folder in Path(self.root).resolve().parents:
            status = os.stat(folder)
            self.read.add((status.st_dev, status.st_ino))

    def _identity(self, path: str) -> _Identity | None:
        """Return the identity of the file or folder that a path leads to, or None without one."""
        try:
            status = os.stat(os.path.join(self.root, path))
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _read_folder(self, folder: str) -> None:
        """List the files of a folder and of the folders in it, and keep links for later.

        Args:
            folder (str): Its path below the root; '' for the root itself.

        Raises:
            UserError: A folder is not there.
        StorageError: Storage does not give one.
        """
        device, entries = self._open_folder(folder)
        if folder and len(PurePath(folder).parts) == 1:
            self.found.folders.add(folder)
        for entry in entries:
            if folder:
                path = f'{folder}/{entry.name}'
            else:
                path = entry.name
            identity = device, entry.inode()
            if entry.is_symlink():
                self._note_link(path)
            elif entry.is_dir():
                # A link may have led into this folder before.
                if identity in self.read:
                    self.found.leave_out(READ_ALREADY, path)
                else:
                    self._read_folder(path)
            elif self.is_wanted(path):
                self.read.add(identity)
                self.found.files.append(path)
            else:
                self.found.leave_out(OTHER_ENDING, path)

    def _open_folder(self, folder: str) -> tuple[int, list[os.DirEntry[str]]]:
        """Return a folder's device and its visible entries, sorted; count it as read."""
        where = os.path.join(self.root, folder)
        try:
            status = os.stat(where)
            with os.scandir(where) as entries:
                visible = [entry for entry in entries if not entry.name.startswith('.')]
        except OSError as error:
            message = f"The folder '{where}' cannot be read: {error.strerror}."
            if is_storage_error(error):
                raise StorageError(message) from error
            raise UserError(message) from error
        self.read.add((status.st_dev, status.st_ino))
        return status.st_dev, sorted(visible, key=lambda entry: entry.name)

    def _note_link(self, path: str) -> None:
        """Keep a link to a folder or to a wanted file for later; leave out any other."""
        if os.path.isdir(os.path.join(self.root, path)):
            self.linked_folders.append(path)
        elif self.is_wanted(path):
            self.linked_files.append(path)
        else:
            self.found.leave_out(OTHER_ENDING, path)


def by_folder(found: FolderListing) -> dict[str, list[str]]:
    """Return the folders of classes, sorted, each with the paths of its files.

    Files beside the folders have no class: ``found`` notes that they are left out.

    Args:
        found (FolderListing): Of the folder that holds the folders of classes.
    """
    files: dict[str, list[str]] = {name: [] for name in sorted(found.folders)}
    for path in found.files:
        folder, _, rest = path.partition('/')
        if rest:
            files[folder].append(path)
        else:
            found.leave_out(OUTSIDE, path)
    return files


def warn_left_out(found: FolderListing, root: str | Path, origin: str) -> None:
    """Log what was left out, if anything was.

    Args:
        found (FolderListing): The listing.
        root (str | Path): Its folder.
        origin (str): Who lists it.
    """
    if not found.left_out:
        return
    text = f"{origin}: left out of '{root}': {found.describe_left_out()}."
    print_log(text, logger='current', level=logging.WARNING)
