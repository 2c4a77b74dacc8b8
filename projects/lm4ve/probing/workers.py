"""Where heads are trained: in processes or in this one, with one CPU thread each.

The stored result of a training counts for every later study, so that it may not depend
on where it was made.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from typing import Any

import torch
from mmengine.logging import MMLogger

from lm4ve.ablation.trial import end_with_parent
from lm4ve.runner.devices import find_device

#: Calls a function for each argument, as ``map``, and yields the results in order.
Run = Callable[..., Iterable[Any]]


@contextmanager
def start_workers(processes: int) -> Iterator[Run]:
    """Start processes that build and train heads; they end with this one.

    Args:
        processes (int): 0: work in this process.

    Yields:
        Run: ``run(function, *arguments)`` yields the results in order.
    """
    if processes == 0:
        yield _map_with_one_thread
        return
    context = _start_method(find_device(None))
    with ProcessPoolExecutor(processes, context, _prepare_process) as pool:
        with _one_thread_for_libraries():
            # The first call starts the server, or the first process.
            pool.submit(int).result()
        try:
            yield pool.map
        except BaseException:
            # The pool would wait for the trainings that run, whose results nobody reads.
            for child in multiprocessing.active_children():
                child.terminate()
            raise


def _start_method(device: torch.device) -> BaseContext:
    """Return how processes start that train on a device.

    On a CPU, a server imports once and forks. With a GPU each process imports anew: torch
    and MMEngine ask for GPUs when they are imported, after which torch refuses CUDA in a
    forked process.
    """
    if device.type != 'cpu':
        return multiprocessing.get_context('spawn')
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['lm4ve.probing.training'])
    return context


def _map_with_one_thread(function: Callable[..., Any], *arguments: Any) -> Iterator:
    """Call a function for each argument in this process, as worker processes would."""
    threads = torch.get_num_threads()
    for values in zip(*arguments, strict=True):
        _compute_as_a_worker()
        try:
            result = function(*values)
        finally:
            torch.set_num_threads(threads)
            torch.set_flush_denormal(False)
        yield result


@contextmanager
def _one_thread_for_libraries() -> Iterator[None]:
    """Let the fork server that starts in this context, and its processes, use one thread.

    Libraries read the variable when they are loaded, or when they first compute. So it is
    gone before the encoder runs in this process, with all threads.
    """
    name = 'OMP_NUM_THREADS'
    before = os.environ.get(name)
    os.environ[name] = '1'
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _compute_as_a_worker() -> None:
    """Set what a training's numbers and time depend on."""
    torch.set_num_threads(1)
    # Some gradients of a block are denormal numbers, with which CPUs are slow.
    torch.set_flush_denormal(True)


def _prepare_process() -> None:
    """Set up a worker process before its first training."""
    # A session of its own: the terminal sends Ctrl-C to the command alone, which then
    # ends its workers.
    os.setsid()
    end_with_parent()
    _compute_as_a_worker()
    # Each block logs as information which weights it reads; a hundred trainings would
    # fill the screen with it.
    MMLogger.get_instance('lm4ve-try', log_level='WARNING')
