"""Run a grid of controlled ablations, and compare its variants.

    lm4ve ablate configs/ablations/digits_controls.py \\
        --work-dir work_dirs/ablations --workers 2

Started again after a kill, it goes on where it was. See docs/guides/ablations.md.
"""

import argparse
import dataclasses
from collections.abc import Sequence

from lm4ve.ablation import Grid, Store, load_grid, select_tuned
from lm4ve.ablation.report import report_grid
from lm4ve.ablation.store import metric_of
from lm4ve.ablation.workers import Executor, Workers
from lm4ve.commands.flags import parser_of
from lm4ve.errors import UserError, check, require
from lm4ve.runner.rich_console import Console


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


def print_list(grid: Grid, store: Store, console: Console) -> None:
    """Print the trials, whether each is done, and how many wait for tuned values."""
    tuning = grid.tuning()
    main = grid.main(select_tuned(grid, store))
    for trial in tuning + main:
        state = 'done' if store.result(trial) else 'to do'
        console.print(f'{trial.id}  {state:6} {trial}', highlight=False, soft_wrap=True)
    waiting = len(grid.variants) * len(grid.seeds) - len(main)
    if waiting:
        console.print(
            f'and {waiting} main trials, whose tuned values are not known yet'
        )


def build_executor(
    grid: Grid, store: Store, args: argparse.Namespace, console: Console
) -> Executor:
    """Return the executor that runs the grid's trials, on this machine or by Slurm.

    Raises:
        UserError: There are too few devices, a flag is of the other executor, or an
            option of sbatch is not NAME=VALUE.
    """
    shared = (store, args.workers, args.threads, grid.keep_checkpoints, console)
    if args.executor == 'local':
        gpus = [name for name in args.gpus.split(',') if name]
        if gpus or args.gpus_per_trial > 1:
            needed = args.workers * args.gpus_per_trial
            check('the number of devices in --gpus', len(gpus), least=needed)
        return Workers(*shared, gpus)
    if args.gpus:
        raise UserError(
            '--gpus is for this machine. For Slurm: --slurm gpus_per_node=1.'
        )
    from lm4ve.ablation.slurm import SlurmJobs

    options = {}
    for word in args.slurm:
        name, separator, value = word.partition('=')
        require(
            separator,
            f"--slurm '{word}' is not NAME=VALUE. Fix: for example time=120.",
        )
        options[name] = value
    return SlurmJobs(*shared, options)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the trials that are missing, and report those that are finished."""
    args = parser_of('ablate').parse_args(argv)
    check('--workers', args.workers, least=1)
    whole = load_grid(args.grid)
    grid = select_part(whole, args)
    store = Store(args.work_dir, args.gpus_per_trial)
    console = Console()

    def describe(result: dict) -> str:
        score = metric_of(grid, result)
        return f'{grid.metric} {score:.4f} ({result["wall_seconds"]:.0f} s)'

    if args.list:
        print_list(grid, store, console)
        return
    failures = []
    if not args.report_only:
        with store.lock():
            executor = build_executor(grid, store, args, console)
            failures = executor.run(grid.tuning(), describe)
            failures += executor.run(grid.main(select_tuned(grid, store)), describe)
    selected = select_tuned(whole, store)
    trials = whole.tuning() + whole.main(selected)
    report_grid(whole, store, trials, selected, console)
    if failures:
        lines = [f'  {f.trial}: {f.reason}\n    {f.log}' for f in failures]
        raise UserError(
            f'{len(failures)} trial(s) failed; the same command tries them again:\n'
            + '\n'.join(lines)
        )
