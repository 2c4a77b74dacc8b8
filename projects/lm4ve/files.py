"""Read files, and write result files: whole or not at all.

What a file holds is one thing, and what storage gives of it another: a file that is
missing or damaged stays so, but a server that does not answer (EIO, ESTALE, EACCES) says
nothing about the file. Such an error is a :class:`lm4ve.errors.StorageError`.

A full disk or a killed job must not leave half of a file under a name that
somebody trusts. So every file is written beside its name, synced to disk, and
renamed.
"""

import contextlib
import datetime
import errno
import fcntl
import functools
import hashlib
import json
import logging
import math
import os
import re
import secrets
import socket
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.pool import ThreadPool
from numbers import Integral, Real
from pathlib import Path, PurePath
from typing import Any, TextIO, TypeVar
from urllib.error import HTTPError, URLError

from mmengine.logging import print_log

from lm4ve.errors import StorageError, UserError

T = TypeVar('T')
R = TypeVar('R')
# The names that `replacing` gives to files that are not whole yet.
_TEMPORARY = re.compile(
    r'\..+\.(?P<machine>[^/]+)-(?P<process>\d+)-[0-9a-f]{8}\.tmp(\.[^.]*)?'
)
# Threads that wait for files more than they compute.
_THREADS = 16
# What begins a formula in a spreadsheet: https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA_STARTS = tuple('=+-@\t\r\n＝＋－＠')
# What ends a cell or a row in some program, in some language, unless it is in quotes.
_SEPARATORS = frozenset(',;\t\r\n"')
# Seconds after which a file of another machine is taken for abandoned.
_ABANDONED = 3600
#: What tells two machines, or two containers, apart that have one name.
_IDENTITIES = (
    '/proc/sys/kernel/random/boot_id',
    '/proc/self/ns/pid',
    '/proc/self/ns/mnt',
)
#: Seconds between two tries to get a lock.
_LOCK_INTERVAL = 0.25
#: Seconds after which a process that waits for a lock says so.
_LOCK_PATIENCE = 10.0
#: The errors of a file system that has no locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
#: Seconds that the children of a killed process may need to end; they keep its locks.
ORPHANS = 30.0
#: The errors of the system that say that no file is there.
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)
#: The errors of the system that may pass: no room, or storage that does not answer.
_MAY_PASS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT)
#: What a server answers where no file is.
_NOT_THERE_BY_HTTP = (404, 410)
#: Bytes that are read at a time.
_CHUNK = 1 << 20


def cache_folder() -> Path:
    """Return ``$LM4VE_CACHE``, or ``~/.cache/lm4ve``: for what can be made again."""
    return Path(os.environ.get('LM4VE_CACHE', '~/.cache/lm4ve')).expanduser()


def map_in_threads(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Return a function's results, in order; for work that waits for files.

    Args:
        function (Callable): Called in several threads at once.
        items (Iterable): One argument each.
    """
    with ThreadPool(_THREADS) as pool:
        return pool.map(function, items)


def is_storage_error(error: BaseException) -> bool:
    """Return whether an error is of the storage, and neither of a file nor "not there".

    Decoders raise an ``OSError`` for damage, too: without the system's number (Pillow,
    h5py), or with a number of their own (PyAV).
    """
    if isinstance(error, StorageError):
        return True
    if isinstance(error, HTTPError):
        return error.code not in _NOT_THERE_BY_HTTP
    if isinstance(error, (URLError, ConnectionError, TimeoutError)):
        return True
    is_of_ffmpeg = type(error).__module__.partition('.')[0] == 'av'
    if not isinstance(error, OSError) or is_of_ffmpeg:
        return False
    return error.errno is not None and error.errno not in _NOT_THERE


def storage_error_behind(error: BaseException) -> BaseException | None:
    """Return the error of the storage that is an error, or that led to it; or None."""
    cause: BaseException | None = error
    while cause is not None and not is_storage_error(cause):
        if cause.__suppress_context__:
            cause = cause.__cause__
        else:
            cause = cause.__context__
    return cause


def may_pass(error: BaseException) -> bool:
    """Return whether an error, or one that led to it, may pass: a full disk, a lost mount."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _MAY_PASS:
            return True
        cause = cause.__cause__
    return False


def describe_storage_error(error: BaseException) -> str:
    """Return what the system says of an error, in words that follow a file's name."""
    if isinstance(error, OSError) and error.strerror:
        name = errno.errorcode.get(error.errno or 0, 'unknown')
        return f'is not given by its storage ({name}: {error.strerror})'
    return f'is not given by its storage ({error})'


@contextlib.contextmanager
def naming_storage_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raise a :class:`StorageError` that names a file where its storage fails inside.

    Errors that an error of the storage has led to count as well. Others pass.

    Args:
        path (str | Path): The file that is read inside.

    Raises:
        StorageError: See :func:`is_storage_error`.
    """
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        cause = storage_error_behind(error)
        if cause is None:
            raise
        if isinstance(cause, StorageError):
            raise cause from error
        raise StorageError(
            f"'{path}' {describe_storage_error(cause)}. This says nothing about the file. "
            'Fix: mend the disk, the mount or the permissions, and start again.'
        ) from error


def is_file(path: str | os.PathLike[str]) -> bool:
    """Return whether a regular file is there; links are followed.

    ``os.path.isfile`` also returns False where nobody knows.

    Raises:
        StorageError: Storage does not say whether it is there.
    """
    with naming_storage_errors(path):
        try:
            status = os.stat(path)
        # A name with a null byte is a ValueError.
        except (OSError, ValueError) as error:
            if is_storage_error(error):
                raise
            return False
    return stat.S_ISREG(status.st_mode)


def require_given(path: str | Path) -> None:
    """Read a file to its end, if it is there, to see that storage gives all of it.

    Libraries that open a file by themselves do not always say why they failed.

    Raises:
        StorageError: Storage does not give it.
    """
    if not is_file(path):
        return
    with naming_storage_errors(path), open(path, 'rb') as file:
        while file.read(_CHUNK):
            pass


def leads_outside(name: str, folder: str | Path) -> bool:
    """Return whether a name in a list leads out of the folder it is relative to.

    Only the name counts: links in the folder are followed, since data sets are put
    together of links. An address (``http://``) leads out too, unless the folder has
    one.

    Args:
        name (str): A relative path, or an absolute one that begins with the folder's.
        folder (str | Path): The folder.
    """
    if '://' in name:
        is_below = '://' in str(folder) and name.startswith(str(folder))
        return not is_below
    path = PurePath(name)
    if '..' in path.parts:
        return True
    return path.is_absolute() and not path.is_relative_to(os.path.abspath(folder))


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a path to write to; on leaving, the written file replaces ``path``.

    For libraries that take a path. The temporary name ends as ``path`` does, since
    many libraries choose the format by the ending, and holds machine, process and a
    random part, since several machines may share a folder. After any error
    ``path`` is as it was and nothing is left beside it.

    Args:
        path (str | Path): The file; its folder is made if it does not exist.

    Yields:
        Path: A file that does not exist yet, in the folder of ``path``. The body writes
        it, and nothing else: its ``OSError`` is reported as one of ``path``.

    Raises:
        UserError: There is no room or no permission, or the body wrote nothing.
    """
    path = Path(path)
    unique = f'{machine()}-{os.getpid()}-{secrets.token_hex(4)}'
    beside = path.with_name(f'.{path.stem}.{unique}.tmp{path.suffix}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        with open(beside, 'rb') as f:
            os.fsync(f.fileno())
        os.replace(beside, path)
    except OSError as e:
        raise UserError(
            f"'{path}' was not written and is as before: {e.strerror or e}."
        ) from e
    finally:
        beside.unlink(missing_ok=True)


def write_atomically(data: bytes | memoryview, path: str | Path) -> None:
    """Write bytes so that ``path`` holds either the old or the new content."""
    with replacing(path) as beside:
        beside.write_bytes(data)


def write_text(text: str, path: str | Path) -> None:
    """Write a text as UTF-8, with :func:`write_atomically`."""
    write_atomically(text.encode(), path)


def write_json(value: Any, path: str | Path) -> None:
    """Write plain data as indented JSON, with :func:`write_atomically`."""
    write_text(json.dumps(value, indent=1), path)


def write_csv(
    columns: Iterable[Any],
    rows: Iterable[Iterable[Any]],
    path: str | Path,
    digits: int | None = None,
) -> None:
    """Write a table as CSV, with :func:`write_atomically`.

    Files and classes may have any names, and a spreadsheet runs text such as
    ``=cmd|...`` as a formula. So such text gets an apostrophe in front, which
    spreadsheets do not show. Numbers stay as they are, negative ones too.

    Text is UTF-8: bytes of a path that are not become ``\\udcXX``, with the byte's hex
    digits XX.

    Args:
        columns (Iterable): The names of the columns.
        rows (Iterable[Iterable]): The cells of each row. None and NaN become empty; what
            is no number is written as its ``str``.
        path (str | Path): The file.
        digits (int, optional): Of floats, after the point. Default: as many as identify
            the number.
    """
    lines = []
    for row in [columns, *rows]:
        cells = [_csv_cell(value, digits) for value in row]
        lines.append(','.join(cells) + '\n')
    # A byte that is no UTF-8 would make the whole file unreadable to other programs.
    data = ''.join(lines).encode('utf-8', errors='backslashreplace')
    write_atomically(data, path)


def _csv_cell(value: Any, digits: int | None) -> str:
    """Return a value as a cell of a CSV file; see :func:`write_csv`."""
    if value is None:
        return ''
    if isinstance(value, Real) and not isinstance(value, Integral):
        if math.isnan(value):
            return ''
        return str(value) if digits is None else f'{value:.{digits}f}'
    text = str(value)
    if text.startswith(_FORMULA_STARTS) and not _is_number(text):
        text = f"'{text}"
    # Python's csv leaves semicolons bare, and in 3.11 a lone carriage return.
    if not _SEPARATORS.isdisjoint(text):
        text = text.replace('"', '""')
        return f'"{text}"'
    return text


def _is_number(text: str) -> bool:
    """Return whether a text is a number, such as the answer '-1' to a question."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_json(path: str | Path) -> Any:
    """Return the content of a JSON file; None if the file is missing or damaged.

    For files of ours that are made anew in that case. Callers check the content.
    """
    try:
        return json.loads(Path(path).read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError):
        return None


def find_write_problem(folder: str | Path) -> str | None:
    """Try to write a mebibyte into a folder; return why it failed, or None if it worked.

    Args:
        folder (str | Path): The folder, which is made if it does not exist. The file is
            deleted again.
    """
    probe = Path(folder) / f'.probe.{secrets.token_hex(4)}'
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        try:
            with open(probe, 'wb') as file:
                file.write(bytes(1 << 20))
                file.flush()
                os.fsync(file.fileno())
        finally:
            probe.unlink(missing_ok=True)
    except OSError as e:
        return e.strerror or str(e)
    return None


def require_writable(folder: str | Path, field: str) -> None:
    """Raise an error if nothing can be written into a folder, before hours of work for it.

    Args:
        folder (str | Path): The folder, which is made if it does not exist.
        field (str): The flag or field that names the folder, for the error.

    Raises:
        UserError: Writing failed; the message gives the reason.
    """
    problem = find_write_problem(folder)
    if problem:
        raise UserError(f"{field}='{folder}' cannot be written to: {problem}.")


@functools.cache
def machine() -> str:
    """Return a name that two processes share if they see each other's ids and files.

    The host name alone is not enough: containers of several machines may share one. So
    the name has a hash of the kernel's start and of the process's namespaces in it.
    """
    known = []
    for path in _IDENTITIES:
        # Other systems than Linux have none of them.
        with contextlib.suppress(OSError):
            if os.path.islink(path):
                known.append(os.readlink(path))
            else:
                known.append(Path(path).read_text())
    identity = hashlib.sha256('\n'.join(known).encode()).hexdigest()[:8]
    return f'{socket.gethostname()}-{identity}'


@contextlib.contextmanager
def sole_use(lock: str | Path, wait: float = 0.0) -> Iterator[None]:
    """Hold a lock file inside the context, so that no other run writes where this one does.

    The system frees the lock when the process ends, however it ends. The file stays, and
    names the process that held it last. On a file system without locks the context warns
    and goes on.

    Args:
        lock (str | Path): The file. Its folder is made if it does not exist.
        wait (float): Seconds to wait for another run; ``math.inf``: without end.

    Raises:
        UserError: Another run holds it. The message names host, process and time.
        StorageError: The file cannot be written.
    """
    try:
        Path(lock).parent.mkdir(parents=True, exist_ok=True)
        # Not 'w': another run's name stands in it until the lock is ours.
        file = open(lock, 'a', encoding='utf-8')
    except OSError as error:
        raise StorageError(
            f"'{lock}' cannot be written: {error.strerror}. Fix: mend the disk, the mount or "
            'the permissions.'
        ) from error
    with file:
        has_lock = _acquire(file, wait)
        if has_lock:
            _write_holder(file)
        try:
            yield
        finally:
            # Forked workers of a dataloader have the file open, too.
            if has_lock:
                fcntl.flock(file, fcntl.LOCK_UN)


def _acquire(file: TextIO, wait: float) -> bool:
    """Lock an open file; return whether its file system has locks.

    Raises:
        UserError: See :func:`sole_use`.
    """
    start = time.monotonic()
    has_told = False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            print_log(
                f"The file system of '{file.name}' has no locks ({error.strerror}). Two runs "
                "at a time would replace each other's files here.",
                logger='current',
                level=logging.WARNING,
            )
            return False
        waited = time.monotonic() - start
        if waited >= wait:
            raise UserError(
                f'Another run works here: {_read_holder(file)}. Fix: wait for it, or name '
                'another folder. If its machine is gone, remove the file.'
            )
        if waited > _LOCK_PATIENCE and not has_told:
            has_told = True
            print_log(f'Waiting: {_read_holder(file)}.', logger='current')
        time.sleep(_LOCK_INTERVAL)


def _write_holder(file: TextIO) -> None:
    """Write into a locked file which process holds it, and since when."""
    holder = dict(host=socket.gethostname(), pid=os.getpid(), since=time.time())
    # A full disk does not take the lock away.
    with contextlib.suppress(OSError):
        file.truncate(0)
        file.write(json.dumps(holder))
        file.flush()


def _read_holder(file: TextIO) -> str:
    """Return in words which process holds a file, and how long it has held it."""
    holder = read_json(file.name)
    if not isinstance(holder, dict) or holder.keys() != {'host', 'pid', 'since'}:
        return f"somebody holds '{file.name}'"
    age = datetime.timedelta(seconds=int(time.time() - holder['since']))
    return (
        f"process {holder['pid']} on {holder['host']} has held '{file.name}' for {age}"
    )


def clear_left_behind(folder: str | Path) -> list[Path]:
    """Delete the temporary files of processes that were killed while writing.

    A file of this machine is deleted if the process in its name has ended. A file of
    another machine, whose processes cannot be seen from here, is deleted after an hour
    without a change. Other files than those of :func:`replacing` stay.

    Call it before this process writes into the folder: files with its own id count as
    those of an earlier process, since a restarted container gives the same ids again.

    Args:
        folder (str | Path): The folder; those inside it are not searched.

    Returns:
        list[Path]: The deleted files.
    """
    deleted = []
    for path in sorted(Path(folder).glob('.*.tmp*')):
        # Another process may clear the same folder at the same time.
        with contextlib.suppress(OSError):
            if path.is_file() and _is_abandoned(path):
                path.unlink()
                deleted.append(path)
    return deleted


def _is_abandoned(path: Path) -> bool:
    """Return whether a file is one of :func:`replacing` that nobody writes any more.

    Any such file is taken for abandoned after an hour without a change, and one of this
    machine as soon as its process has ended.
    """
    name = _TEMPORARY.fullmatch(path.name)
    if name is None:
        return False
    if name['machine'] == machine() and _has_ended(int(name['process'])):
        return True
    return time.time() - path.stat().st_mtime > _ABANDONED


def _has_ended(process: int) -> bool:
    """Return whether a process of this machine has ended, by its id.

    This process's own id counts as that of an earlier process that has ended; see
    :func:`clear_left_behind`.
    """
    if process == os.getpid():
        return True
    try:
        os.kill(process, 0)  # signal 0 only asks whether the process exists
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # it runs, as another user's
        return False
    return False


def decoded(data: bytes, path: str | Path) -> str:
    """Decode a file's content as UTF-8, without the byte order mark that some editors write.

    Args:
        data (bytes): The content.
        path (str | Path): The file, for the error.

    Raises:
        UserError: The content is not UTF-8.
    """
    try:
        return data.decode('utf-8-sig')
    except UnicodeDecodeError as e:
        raise UserError(
            f"'{path}' is not a text in UTF-8: {e.reason} at byte {e.start}."
        ) from e
