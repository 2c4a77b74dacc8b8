"""What the processes of a training share out while each of them builds its data.

Every rank builds the same data sets, in the same order. What takes long, such as reading
all files or a large list, is done once: shared out over the ranks, or done by one process
of each machine.
"""

import contextlib
import mmap
import multiprocessing
import pickle
import shutil
import signal
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mmengine.dist import all_gather_object, get_rank, get_world_size
from torch.utils.data import get_worker_info

from lm4ve.errors import StorageError, UserError
from lm4ve.files import machine, storage_error_behind

T = TypeVar('T')
#: The lengths at the beginning of a shared file have so many bytes each.
_LENGTH = 8


def in_group() -> bool:
    """Return whether several processes build the data together.

    The workers of a loader do not take part: each has the data of its own process.
    """
    if get_worker_info() is not None:
        return False
    return get_world_size() > 1


def gather(value: T) -> list[T]:
    """Return the value of every rank, by rank; all ranks have to call this."""
    if not in_group():
        return [value]
    values: list[T] = all_gather_object(value)
    return values


def own_share(items: list[T]) -> list[T]:
    """Return those items of a list, which all ranks have alike, that this rank works on."""
    if not in_group():
        return items
    return items[get_rank() :: get_world_size()]


@dataclass
class Outcome:
    """What the work of a process came to.

    Attributes:
        result: What it returned.
        error (str, optional): The message of the error that it raised.
        is_of_storage (bool): Whether that was a :class:`StorageError`; else it was one
            that the user must mend.
    """

    result: Any = None
    error: str | None = None
    is_of_storage: bool = False

    def raise_error(self) -> None:
        """Raise the error of the work, if there was one.

        Raises:
            UserError, StorageError: It has the same message.
        """
        if self.error is None:
            return
        if self.is_of_storage:
            raise StorageError(self.error)
        raise UserError(self.error)


def outcome_of(work: Callable[[], Any]) -> Outcome:
    """Do some work; an error of the user or of the storage becomes part of the outcome."""
    try:
        return Outcome(result=work())
    except UserError as error:
        return Outcome(error=str(error))
    except Exception as error:
        cause = storage_error_behind(error)
        if cause is None:
            raise
        return Outcome(error=str(cause), is_of_storage=True)


def once_a_machine(work: Callable[[], T]) -> T:
    """Let the first process of each machine do some work, and give all of them its result.

    All ranks have to call this.

    Args:
        work (Callable): Without arguments; its result is small and can be pickled.

    Raises:
        UserError, StorageError: The work raised an error on any machine. Every rank
            raises the same one.
        Exception: The work of this rank raised it. The other ranks raise a
            :class:`UserError` with its type and message.
    """
    if not in_group():
        return work()
    machines = gather(machine())
    leader = machines.index(machine())
    outcome = Outcome()
    own_error: Exception | None = None
    if leader == get_rank():
        try:
            outcome = outcome_of(work)
        except Exception as error:
            # The other ranks wait for word of it.
            own_error = error
            outcome = Outcome(error=f'{type(error).__name__}: {error}')
    outcomes = gather(outcome)
    if own_error is not None:
        raise own_error
    for each in outcomes:
        each.raise_error()
    result: T = outcomes[leader].result
    return result


def state_read_once(read: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """Let one process of each machine read large data, and map the same bytes in all.

    A process that ends afterwards does the reading, so that what it needed meanwhile,
    often ten times as much as remains, is free again. It writes what it read into a file
    that only this user may open, and that is removed as soon as all ranks have mapped
    it. All ranks have to call this.

    Args:
        read (Callable): Returns what was read, by name, which can be pickled. NumPy
            arrays in it stay in the file, and are read-only.

    Returns:
        Mapping[str, Any]: The same on all ranks.

    Raises:
        UserError: Reading raised it, or its process was killed.
        StorageError: Reading raised it.
    """
    folders: list[str] = []

    def write() -> str:
        folder = tempfile.mkdtemp(prefix='lm4ve-data-')
        folders.append(folder)
        path = Path(folder, 'state')
        _run_aside(lambda: write_state(read(), path))
        return str(path)

    try:
        state = read_state(Path(once_a_machine(write)))
        # Nobody removes the file before all have it.
        gather(None)
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
    return state


def _run_aside(work: Callable[[], None]) -> None:
    """Do some work in a copy of this process.

    Raises:
        UserError: The work raised it, or its process was killed.
        StorageError: The work raised it.
        RuntimeError: The work raised anything else; the copy has printed it.
    """
    context = multiprocessing.get_context('fork')
    receiver, sender = context.Pipe(duplex=False)

    def report() -> None:
        sender.send(outcome_of(work))

    process = context.Process(target=report)
    process.start()
    # Else the end of the copy would not end the waiting.
    sender.close()
    outcome = None
    with contextlib.suppress(EOFError):
        outcome = receiver.recv()
    process.join()
    if outcome is None:
        raise _end_of(process.exitcode)
    outcome.raise_error()


def _end_of(exit_code: int | None) -> Exception:
    """Return the error of a process that ended without an outcome."""
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        return UserError(
            f'The process that read the data was killed by {name}. Fix: if it was SIGKILL, '
            'more memory.'
        )
    return RuntimeError('The process that read the data failed; see its error above.')


def write_state(state: Mapping[str, Any], path: Path) -> None:
    """Write values by name into a file, NumPy arrays as they lie in memory.

    Raises:
        UserError: There is no room.
    """
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(dict(state), protocol=5, buffer_callback=buffers.append)
    parts = [memoryview(head), *(buffer.raw() for buffer in buffers)]
    try:
        with open(path, 'wb') as file:
            for number in (len(parts), *(len(part) for part in parts)):
                file.write(number.to_bytes(_LENGTH, 'little'))
            for part in parts:
                file.write(part)
    except OSError as error:
        raise UserError(
            f"'{path.parent}': the data that all processes share was not written "
            f'({error.strerror or error}). Fix: TMPDIR=a folder with more room.'
        ) from error


def read_state(path: Path) -> Mapping[str, Any]:
    """Return what :func:`write_state` wrote; its arrays are read from the file when used.

    Only for a file that this user's own processes have just written: pickle may run code.
    """
    with open(path, 'rb') as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    num_parts = int.from_bytes(data[:_LENGTH], 'little')
    start = _LENGTH * (1 + num_parts)
    parts = []
    for i in range(1, num_parts + 1):
        length = int.from_bytes(data[_LENGTH * i : _LENGTH * (i + 1)], 'little')
        parts.append(data[start : start + length])
        start += length
    state: Mapping[str, Any] = pickle.loads(parts[0], buffers=parts[1:])
    return state
