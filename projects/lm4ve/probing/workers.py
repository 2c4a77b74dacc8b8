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
from lm4ve.probing.features import Features
from lm4ve.probing.training import Trainer

#: Calls a method of :class:`Trainer` for each argument, and yields the results in order.
Run = Callable[..., Iterable[Any]]


@contextmanager
def start_workers(features: Features, processes: int) -> Iterator[Run]:
    """Start processes that train; they end with this one.

    Args:
        features (Features): The tokens.
        processes (int): 0: train in this process.

    Yields:
        Run: ``run(method, *arguments)`` yields the results in order, as ``map``.
    """
    if processes == 0:
        trainer = Trainer(features)

        def run_here(method: str, *arguments: Iterable[Any]) -> Iterable[Any]:
            return map(getattr(trainer, method), *arguments)

        yield run_here
        return
    # Here too: the trainer computes the tokens' mean, whose last digits depend on it.
    torch.set_num_threads(1)
    # Libraries read it when the fork server loads them.
    os.environ['OMP_NUM_THREADS'] = '1'
    trainer = Trainer(features)
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(processes, context, _prepare_process) as pool:

        def run_in_pool(method: str, *arguments: Iterable[Any]) -> Iterable[Any]:
            return pool.map(getattr(trainer, method), *arguments)

        try:
            yield run_in_pool
        except BaseException:
            # The pool would wait for the trainings that run, whose results nobody reads.
            for child in multiprocessing.active_children():
                child.terminate()
            raise


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
