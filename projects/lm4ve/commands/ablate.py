"""Run a grid of controlled ablations, and compare its variants.

    lm4ve ablate configs/ablations/digits_controls.py \\
        --work-dir work_dirs/ablations --workers 2

Started again after a kill, it goes on where it was. See docs/guides/ablations.md.
"""

import argparse
import dataclasses
from collections.abc import Sequence

from lm4ve.commands.engine import build_pool, run_only
from lm4ve.commands.flags import parser_of
from lm4ve.errors import check
from lm4ve.runner.rich_console import Console
from lm4ve.study.job import Job
from lm4ve.study.pool import Failure, Pool, require_success
from lm4ve.study.progress import Progress
from lm4ve.study.store import Result, Store
from lm4ve.study.trainings.grid import Grid
from lm4ve.study.trainings.grid_files import load_grid
from lm4ve.study.trainings.report import report_grid
from lm4ve.study.trainings.scopes import modules_of
from lm4ve.study.trainings.tuned import metric_of, select_tuned

#: Below the work folder, that of the jobs' results, which grids share.
JOBS = 'jobs'


def select_part(grid: Grid, args: argparse.Namespace) -> Grid:
    """Return a grid with only the seeds and variants of --seeds and --variants.

    Raises:
        UserError: The grid has no such seed or variant.
    """
    if args.variants:
        names = [variant.name for variant in grid.variants]
        for name in args.variants:
            check('--variants', name, choices=names)
        variants = tuple(v for v in grid.variants if v.name in args.variants)
        grid = dataclasses.replace(grid, variants=variants)
    if args.seeds:
        for seed in args.seeds:
            check('--seeds', seed, choices=grid.seeds)
        seeds = tuple(seed for seed in grid.seeds if seed in args.seeds)
        grid = dataclasses.replace(grid, seeds=seeds)
    return grid


def print_list(grid: Grid, store: Store, processes: int, console: Console) -> None:
    """Print the jobs, whether each is done, and how many wait for tuned values."""
    tuning = grid.tuning(processes)
    tests = grid.tests(select_tuned(grid, store, processes), processes)
    for job in tuning + tests:
        state = 'done' if store.result(job) else 'to do'
        console.print(f'{job.key}  {state:6} {job}', highlight=False, soft_wrap=True)
    waiting = len(grid.variants) * len(grid.seeds) - len(tests)
    if waiting:
        console.print(f'and {waiting} trainings, whose tuned values are not known yet')


def expect(grid: Grid, workers: int) -> Progress:
    """Return the bar of a grid's trainings, which are taken to cost the same."""
    count = len(grid.seeds)
    if grid.tune is not None:
        count += len(grid.tune.values) * len(grid.tune.seeds)
    names = [variant.name for variant in grid.variants]
    return Progress(dict.fromkeys(names, 1.0), dict.fromkeys(names, count), workers)


def run_grid(grid: Grid, pool: Pool, processes: int) -> list[Failure]:
    """Run the jobs of a grid that have no result yet; return those that failed.

    Args:
        grid (Grid): The grid.
        pool (Pool): Runs them.
        processes (int): How many processes train.
    """
    progress = expect(grid, pool.workers)

    def describe(result: Result) -> str:
        score = metric_of(grid, result)
        return f'{grid.metric} {score:.4f} ({result.seconds:.0f} s)'

    failures = pool.run(grid.tuning(processes), progress, describe)
    selected = select_tuned(grid, pool.store, processes)
    failures += pool.run(grid.tests(selected, processes), progress, describe)
    progress.close()
    return failures


def main(argv: Sequence[str] | None = None) -> None:
    """Run the trainings that are missing, and report those that are finished."""
    args = parser_of('ablate').parse_args(argv)
    check('--workers', args.workers, least=1)
    store = Store(args.work_dir / JOBS)
    if args.only:
        run_only(store, args.only)
        return
    whole = load_grid(args.grid)
    grid = select_part(whole, args)
    processes = args.gpus_per_trial
    console = Console()
    if args.list:
        print_list(grid, store, processes, console)
        return
    failures = []
    if not args.report_only:
        with store.lock('--work-dir'):
            pool = build_pool(store, args, processes, preload=modules_of(grid))
            failures = run_grid(grid, pool, processes)
    selected = select_tuned(whole, store, processes)
    jobs: list[Job] = whole.tuning(processes) + whole.tests(selected, processes)
    report_grid(whole, store, jobs, selected, args.work_dir / whole.name, console)
    require_success(failures)
