"""What the processes of a dry run tell one another.

After each check all of them know what each has found, so that all leave out the same
checks and end alike. Within a check in which they wait for one another, as in the sum
of gradients, a process that fails can no longer answer the others, which would wait for
half an hour. It leaves word in the store of the group, which a thread of every other
process watches.
"""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch.distributed
from mmengine.dist import all_gather_object, get_rank, get_world_size

from lm4ve.dry_run.finding import Finding, Verdict

#: What a dry run exits with that has found a mistake.
EXIT = 2
#: Where a process that has failed leaves word.
_FAILED = 'lm4ve_dry_run_failed'
#: How many processes have come out of a check.
_ARRIVED = 'lm4ve_dry_run_arrived'
#: Seconds between two looks at the store.
_INTERVAL = 0.2
#: Seconds that the others have to come out by themselves once a process has failed.
_GRACE = 5.0
_ORDER = [Verdict.FAILED, Verdict.UNCHECKED, Verdict.WARNING, Verdict.OK]


def merge(own: Finding) -> Finding:
    """Return what all processes have found: the worst of it, with the rank that found it.

    Findings that differ in what must be the same everywhere are a failure. All
    processes have to call it; each gets the same result.
    """
    if get_world_size() == 1:
        return own
    findings = all_gather_object(own)
    hosts = all_gather_object(socket.gethostname())
    difference = _find_difference(findings)
    if difference:
        return Finding(difference, Verdict.FAILED)
    ranks = range(len(findings))
    worst = min(ranks, key=lambda rank: _ORDER.index(findings[rank].verdict))
    finding: Finding = findings[worst]
    verdicts = {each.verdict for each in findings}
    if len(verdicts) == 1:
        # Alike everywhere; numbers may differ a little.
        return Finding(findings[0].text, finding.verdict)
    return Finding(f'rank {worst} ({hosts[worst]}): {finding.text}', finding.verdict)


def _find_difference(findings: Sequence[Finding]) -> str:
    """Return the first fact in which a process differs from the first one, or ''.

    Processes that have failed have no facts.
    """
    expected = findings[0].facts
    for rank, finding in enumerate(findings):
        for name, value in finding.facts.items():
            if name in expected and expected[name] != value:
                return f'{name}: {expected[name]} in rank 0, but {value} in rank {rank}'
    return ''


@contextlib.contextmanager
def watched(end: Callable[[str], None]) -> Iterator[None]:
    """Watch the other processes while they and this one wait for one another.

    Args:
        end (Callable): Gets the word of a process that has failed, and reports it. This
            process then exits, since its main thread may wait forever.
    """
    if not torch.distributed.is_initialized() or get_world_size() == 1:
        yield
        return
    store = _store()
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(_INTERVAL):
            if _has_failed(store) and not is_over.wait(_GRACE):
                end(store.get(_FAILED).decode())
                os._exit(EXIT)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def meet(round_number: int, failure: str, end: Callable[[str], None]) -> None:
    """Wait until all processes have come out of a check in which they wait for one another.

    If one has failed and others do not come, this process ends.

    Args:
        round_number (int): The number of the check.
        failure (str): How this process has failed; '' if it has not.
        end (Callable): See :func:`watched`.
    """
    if not torch.distributed.is_initialized() or get_world_size() == 1:
        return
    store = _store()
    arrived = f'{_ARRIVED}_{round_number}'
    if failure:
        store.set(_FAILED, f'rank {get_rank()} ({socket.gethostname()}): {failure}')
    store.add(arrived, 1)
    failed_at = 0.0
    with _without_sigterm():
        while store.add(arrived, 0) < get_world_size():
            time.sleep(_INTERVAL)
            if not _has_failed(store):
                continue
            failed_at = failed_at or time.monotonic()
            # A little longer than the thread of another process waits.
            if time.monotonic() - failed_at > 2 * _GRACE:
                end(store.get(_FAILED).decode())
                os._exit(EXIT)


@contextlib.contextmanager
def _without_sigterm() -> Iterator[None]:
    """Ignore SIGTERM within this context.

    A launcher sends it to all processes as soon as one of them has ended; each of them
    has to end with the exit code of a mistake.
    """
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _has_failed(store: Any) -> bool:
    """Return whether a process has left word; the process ends if the store is gone."""
    try:
        return bool(store.check([_FAILED]))
    except Exception:  # the process that has it has ended
        os._exit(EXIT)


def _store() -> Any:
    """Return the store of the group of processes."""
    return torch.distributed.distributed_c10d._get_default_store()
