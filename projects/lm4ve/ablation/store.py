"""Where a grid's trials and tables lie, and who may write there.

    <work dir>/lock                         held while the tool runs
    <work dir>/trials/<id>/result.json      there: done; not there: to be done
    <work dir>/trials/<id>/log.txt          what the trial printed
    <work dir>/<grid name>/results.csv      and tables, plot, timings

Grids that share a folder share their trials: the same config with the same seed is
trained once.
"""

import contextlib
import csv
import fcntl
import io
import json
import math
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from lm4ve.ablation.grid import Grid, Trial
from lm4ve.errors import UserError
from lm4ve.files import write_text

#: Seconds that a trial of a killed tool may take to end.
ORPHANS = 30.0
#: What to do when a file cannot be written.
WRITE_FIX = 'make room, or set another --work-dir'


class Store:
    """A work folder.

    Args:
        work_dir (Path): Made when something is written.
        world_size (int): Processes that a trial trains with. Their number changes
            the batch: results of another number do not count.
    """

    def __init__(self, work_dir: Path, world_size: int = 1) -> None:
        self.work_dir, self.world_size = Path(work_dir), world_size

    def folder(self, trial: Trial) -> Path:
        return self.work_dir / 'trials' / trial.id

    def result(self, trial: Trial) -> dict | None:
        """Return a trial's result; None where there is no whole one."""
        try:
            found = json.loads((self.folder(trial) / 'result.json').read_text())
        except (OSError, ValueError):
            return None
        if not isinstance(found, dict) or not isinstance(found.get('metrics'), dict):
            return None
        same = found.get('id') == trial.id and found.get('world_size', 1) == self.world_size
        return found if same else None

    def clear(self, trial: Trial) -> Path:
        """Empty a trial's folder, or make it.

        Raises:
            UserError: A trial of an earlier tool still writes there.
        """
        folder = self.folder(trial)
        if folder.exists():
            _wait_until_free(folder)
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        return folder

    # --------------------------------------------------------------- one owner
    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Own the folder inside of the context.

        The lock is the kernel's (flock): however its owner ends, it ends with it.

        Raises:
            UserError: Another tool runs in the folder.
        """
        self.work_dir.mkdir(parents=True, exist_ok=True)
        path = self.work_dir / 'lock'
        with open(path, 'a+') as f:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                f.seek(0)
                raise UserError(
                    f"'{self.work_dir}' is in use by {f.read().strip()} ('{path}'). Fix: wait for "
                    'it, end it, or set another --work-dir.'
                ) from None
            f.truncate(0)
            f.write(f'process {os.getpid()} on {socket.gethostname()}\n')
            f.flush()
            yield


def hold(folder: Path) -> TextIO:
    """Mark a trial's folder as in use until the returned file is closed.

    All processes of a trial may hold it; the kernel lets go when the last ends.
    """
    f = open(folder / 'lock', 'w')
    fcntl.flock(f, fcntl.LOCK_SH)
    return f


def _wait_until_free(folder: Path) -> None:
    """Wait for a trial of a killed tool, which ends within a moment."""
    end = time.monotonic() + ORPHANS
    with open(folder / 'lock', 'w') as f:
        while True:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > end:
                    raise UserError(
                        f"'{folder}' is still written to by a trial of a tool that "
                        'is gone. Fix: end that process, then start again.'
                    ) from None
            time.sleep(0.1)


# --------------------------------------------------------------------- tables
def write_tables(grid: Grid, store: Store, trials: list[Trial], chosen: dict[str, Any]) -> None:
    """Write ``results.csv``, ``timings.csv`` and, where a grid tunes, ``tuning.csv``.

    Config and seed determine the first and the last; numbers that differ from run to
    run are in ``timings.csv``.
    """
    done = [(t, r) for t in trials if (r := store.result(t)) is not None]
    metrics = sorted({m for _, r in done for m in r['metrics']})
    xs = {v.name: v.x for v in grid.variants}
    out = store.work_dir / grid.name

    def row(t: Trial, r: dict) -> dict:
        return {
            'variant': t.variant,
            **(dict(x=xs[t.variant]) if grid.is_sweep else {}),
            **(dict(value=t.value) if grid.tune else {}),
            'seed': t.seed,
            **{m: r['metrics'].get(m) for m in metrics},
            'trainable': r['trainable'],
            'frozen': r['frozen'],
            'trial': t.id,
        }

    main = [row(t, r) for t, r in done if t.stage == 'main']
    _csv(out / 'results.csv', main)
    if grid.tune:
        tuning = [
            row(t, r) | dict(chosen=int(chosen.get(t.variant) == t.value))
            for t, r in done
            if t.stage == 'tune'
        ]
        _csv(out / 'tuning.csv', tuning)
    times = ('step_seconds', 'wall_seconds', 'threads', 'device')
    timings = [
        dict(stage=t.stage, variant=t.variant, seed=t.seed, **{k: r[k] for k in times}, trial=t.id)
        for t, r in done
    ]
    _csv(out / 'timings.csv', timings)


def _csv(path: Path, rows: list[dict]) -> None:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)
    write_text(text.getvalue(), path, WRITE_FIX)


def choose(grid: Grid, store: Store) -> dict[str, Any]:
    """Return the best value of each variant whose tuning is complete.

    The best value has the best mean of the metric over the tuning seeds. A score that
    is not finite counts as the worst; of equal ones the first in the grid wins.

    Raises:
        UserError: A result lacks the grid's metric.
    """
    scores: dict[str, dict[Any, list]] = {}
    for t in grid.tuning():
        found = store.result(t)
        score = None if found is None else metric_of(grid, found)
        scores.setdefault(t.variant, {}).setdefault(t.value, []).append(score)
    best = {}
    for variant, by_value in scores.items():
        if all(s is not None for found in by_value.values() for s in found):
            sign = 1 if grid.greater_is_better else -1
            means = {v: sign * sum(s) / len(s) for v, s in by_value.items()}
            best[variant] = max(means, key=lambda v: (math.isfinite(means[v]), means[v]))
    return best


def metric_of(grid: Grid, result: dict) -> float:
    """Return the metric of a result.

    Raises:
        UserError: It is not there.
    """
    if grid.metric not in result['metrics']:
        raise UserError(
            f"metric='{grid.metric}' is not what the test reported: "
            f'{", ".join(sorted(result["metrics"]))}. Fix: set metric '
            'to one of them; finished trials are kept.'
        )
    return result['metrics'][grid.metric]
