"""The processes that train heads, each with one CPU thread."""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.logging import MMLogger

from lm4ve.ablation.trial import end_with_parent

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
        yield map
        return
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['lm4ve.probing.training'])
    with ProcessPoolExecutor(processes, context, _prepare_process) as pool:
        with _one_thread_for_libraries():
            # The first call starts the processes.
            pool.submit(int).result()
        try:
            yield pool.map
        except BaseException:
            # The pool would wait for the trainings that run, whose results nobody reads.
            for child in multiprocessing.active_children():
                child.terminate()
            raise


@contextmanager
def _one_thread_for_libraries() -> Iterator[None]:
    """Let processes that start in this context use one thread each.

    Libraries read the variable when the fork server loads them. This process keeps its
    threads, with which the encoder runs.
    """
    name = 'OMP_NUM_THREADS'
    before = os.environ.get(name)
    os.environ[name] = '1'
    yield
    if before is None:
        del os.environ[name]
    else:
        os.environ[name] = before


def _prepare_process() -> None:
    """Set up a worker process before its first training."""
    # A session of its own: the terminal sends Ctrl-C to the command alone, which then
    # ends its workers.
    os.setsid()
    end_with_parent()
    torch.set_num_threads(1)
    # Some gradients of a block are denormal numbers, with which CPUs are slow.
    torch.set_flush_denormal(True)
    # Each block logs as information which weights it reads; a hundred trainings would
    # fill the screen with it.
    MMLogger.get_instance('lm4ve-try', log_level='WARNING')
