"""Remembers which files were whole, so that the next start does not read them again.

A test reads all of its files when it starts, and a study starts a hundred tests. A file
is known by its path, size and time of change, and by who looked at it: another version of
a decoder may find what the last one did not.
"""

import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.logging import print_log

from lm4ve.data.ranks import gather, own_share
from lm4ve.files import cache_folder, map_in_threads

#: A file's size in bytes, and its time of change in nanoseconds.
Stamp = tuple[int, int]
#: SQLite's limit on the number of values in a question was 999 for long.
_AT_ONCE = 500
#: Seconds to wait for another run that writes.
_PATIENCE = 10


def stamp_of(path: str) -> Stamp | None:
    """Return the stamp of a local file, or None where there is none to ask for."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns


def stamps_of(paths: Sequence[str]) -> dict[str, Stamp | None]:
    """Return the stamps of files, by path; see :func:`stamp_of`."""
    return dict(zip(paths, map_in_threads(stamp_of, paths), strict=True))


class WholeFiles:
    """The files that a check has found whole, in a small data base that runs share.

    It lies in :func:`lm4ve.files.cache_folder`. One that cannot be read or written, or is
    damaged, remembers nothing: files are then read again.

    Args:
        check (str): What looked at the files, and how, with its version.
    """

    def __init__(self, check: str) -> None:
        self.check = check

    def unchanged(self, stamps: Mapping[str, Stamp | None]) -> set[str]:
        """Return the paths of files that were whole when they had these stamps.

        Args:
            stamps (Mapping): Path -> the file's present stamp.
        """
        path_at = {os.path.abspath(path): path for path in stamps}
        places = list(path_at)
        unchanged = set()
        with _tolerating_damage(), _connection() as connection:
            for start in range(0, len(places), _AT_ONCE):
                some = places[start : start + _AT_ONCE]
                marks = ','.join('?' * len(some))
                rows = connection.execute(
                    f'SELECT path, size, time FROM whole WHERE "check" = ? AND path IN ({marks})',
                    [self.check, *some],
                )
                for place, size, time in rows:
                    path = path_at[place]
                    if stamps[path] == (size, time):
                        unchanged.add(path)
        return unchanged

    def add(self, stamps: Mapping[str, Stamp]) -> None:
        """Remember that files with these stamps are whole.

        Args:
            stamps (Mapping): Path -> the stamp before the file was read.
        """
        rows = []
        for path, (size, time) in stamps.items():
            rows.append((self.check, os.path.abspath(path), size, time))
        with _tolerating_damage(), _connection() as connection:
            connection.executemany('REPLACE INTO whole VALUES (?, ?, ?, ?)', rows)


class KnownFiles:
    """Which files of a data set are whole, as far as any process of a training has read them.

    The workers of a loader share it, so that a file is read twice, by the check and by the
    decoder, in one of them only. :meth:`exchange` adds what the other ranks have found.

    Args:
        paths (list[str]): The files, alike on all ranks, which have to call this together.
        memory (WholeFiles, optional): Remembers them from one training to the next.
    """

    def __init__(self, paths: list[str], memory: WholeFiles | None = None) -> None:
        self._memory = memory
        self._row_of = {path: row for row, path in enumerate(paths)}
        #: A byte a file: 1 if it is whole.
        self._flags = torch.zeros(len(paths), dtype=torch.uint8).share_memory_()
        #: The stamps of this rank's share of the files, from before they are read.
        self._stamps: dict[str, Stamp] = {}
        if memory is not None:
            self._recall(memory, own_share(paths))
        #: The flags of which the memory has been told.
        self._remembered = self._flags.clone()
        self.exchange()

    def _recall(self, memory: WholeFiles, paths: list[str]) -> None:
        """Take over what the memory has of some files, if they are unchanged."""
        stamps = stamps_of(paths)
        for path, stamp in stamps.items():
            if stamp is not None:
                self._stamps[path] = stamp
        for path in memory.unchanged(stamps):
            self.add(path)

    def add(self, path: str) -> None:
        """Note that a file is whole, for all workers of this process; others are ignored."""
        row = self._row_of.get(path)
        if row is not None:
            self._flags[row] = 1

    def add_all(self) -> None:
        """Note that all files are whole."""
        self._flags.fill_(1)

    def __contains__(self, path: str) -> bool:
        row = self._row_of.get(path)
        return row is not None and bool(self._flags[row])

    def exchange(self) -> None:
        """Take over what other ranks have found, and remember it; all ranks have to call this."""
        count = len(self._flags)
        for packed in gather(np.packbits(self._flags.numpy())):
            self._flags |= torch.from_numpy(np.unpackbits(packed, count=count))
        if self._memory is None:
            return
        new = {}
        for path, stamp in self._stamps.items():
            row = self._row_of[path]
            if self._flags[row] and not self._remembered[row]:
                new[path] = stamp
        self._remembered.copy_(self._flags)
        everybody: dict[str, Stamp] = {}
        for some in gather(new):
            everybody |= some
        if everybody and is_main_process():
            self._memory.add(everybody)


@contextlib.contextmanager
def _tolerating_damage() -> Iterator[None]:
    """Log, and go on after, whatever is wrong with the data base."""
    try:
        yield
    # Names of files that are no Unicode are a ValueError.
    except (OSError, ValueError, sqlite3.Error) as error:
        print_log(
            f"'{_path()}' remembers nothing ({error}); files are read again.",
            'current',
            logging.INFO,
        )


@contextlib.contextmanager
def _connection() -> Iterator[sqlite3.Connection]:
    """Yield the open data base, with its table; what was changed is written at the end."""
    _path().parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(_path(), _PATIENCE)) as connection:
        connection.execute(
            'CREATE TABLE IF NOT EXISTS whole '
            '("check" TEXT, path TEXT, size INTEGER, time INTEGER, PRIMARY KEY ("check", path))'
        )
        with connection:
            yield connection


def _path() -> Path:
    """Return where the data base lies."""
    return cache_folder() / 'whole_files.sqlite'
