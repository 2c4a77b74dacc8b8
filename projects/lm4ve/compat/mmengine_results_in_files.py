"""Collect the results of an evaluation through the process group, not through files."""

from collections.abc import Callable
from itertools import chain, zip_longest
from typing import Any

import wrapt
from mmengine.dist import all_gather_object, gather_object, is_main_process

#: How many results of each process are gathered at a time, since NCCL gathers them in
#: the memory of the main process's GPU.
_PIECE = 256


def collect_by_group(dist_module: Any) -> None:
    """Let processes send each other their results where ``collect_device='cpu'``.

    MMEngine 0.10.7 (no upstream issue) writes them to pickles below ``.dist_test`` of
    the current folder, and the main process reads them. On two machines, or after
    ``cd`` on one of them, that is not one folder, and the first validation fails. And
    whoever can write there has code run by the main process. May go once results are
    gathered by the group. With ``collect_dir`` MMEngine's files stay.
    """
    wrapt.wrap_function_wrapper(dist_module, 'collect_results_cpu', _collect)


def _collect(
    collect_by_files: Callable[..., Any], _: Any, args: Any, kwargs: Any
) -> Any:
    """Collect by the group, unless the user names a folder."""
    return _choose(collect_by_files, *args, **kwargs)


def _choose(
    collect_by_files: Callable[..., Any],
    result_part: list[Any],
    size: int,
    tmpdir: str | None = None,
) -> list[Any] | None:
    """Collect by the group, or by MMEngine's function in a folder that is named."""
    if tmpdir is not None:
        collected: list[Any] | None = collect_by_files(result_part, size, tmpdir)
        return collected
    return gather_results(result_part, size)


def gather_results(results: list[Any], size: int) -> list[Any] | None:
    """Gather the results of all processes. All of them have to call it.

    Args:
        results (list): The results of this process.
        size (int): How many samples there are. A sampler repeats some at the end, so
            that all processes have equally many; these are left out.

    Returns:
        list | None: In the order of the samples, of which processes take turns; None
        outside of the main process.
    """
    counts = all_gather_object(len(results))
    parts: list[list[Any]] = [[] for _ in counts]
    for start in range(0, max(counts), _PIECE):
        pieces = gather_object(results[start : start + _PIECE])
        if pieces is None:
            continue
        for part, piece in zip(parts, pieces, strict=True):
            part += piece
    if not is_main_process():
        return None
    # A result may be None itself.
    missing = object()
    in_turns = chain.from_iterable(zip_longest(*parts, fillvalue=missing))
    ordered = [result for result in in_turns if result is not missing]
    return ordered[:size]
