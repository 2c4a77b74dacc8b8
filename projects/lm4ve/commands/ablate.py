"""Run a grid of controlled ablations, and compare its variants.

    lm4ve ablate configs/ablations/digits_controls.py \\
        --work-dir work_dirs/ablations --workers 2

Started again after a kill, it goes on where it was. See docs/guides/ablations.md.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

import lm4ve  # noqa: F401  (registers before a config is read)
from lm4ve.ablation import Grid, Store, choose, load_grid
from lm4ve.ablation.executor import Executor
from lm4ve.ablation.report import report
from lm4ve.ablation.runner import Workers
from lm4ve.ablation.store import metric_of
from lm4ve.errors import UserError


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('grid', type=Path, help='grid file')
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/ablations'),
        help='trials and tables; grids may share it',
    )
    parser.add_argument('--workers', type=int, default=1, help='trials at a time')
    parser.add_argument('--threads', type=int, default=1, help='CPU threads of each')
    parser.add_argument(
        '--gpus',
        default='',
        help='device numbers to share out among the workers, for example 0,1,2,3',
    )
    parser.add_argument(
        '--gpus-per-trial', type=int, default=1, help='of more than one, a trial trains distributed'
    )
    parser.add_argument(
        '--executor',
        choices=['local', 'slurm'],
        default='local',
        help='where trials run: on this machine, or as jobs of its Slurm cluster (submitit)',
    )
    parser.add_argument(
        '--slurm',
        nargs='+',
        default=[],
        metavar='NAME=VALUE',
        help='options of sbatch, for example partition=gpu time=120 gpus_per_node=1 (minutes)',
    )
    parser.add_argument('--seeds', type=int, nargs='+', help='only these')
    parser.add_argument('--variants', nargs='+', help='only these')
    parser.add_argument(
        '--list', action='store_true', help='print the trials and what is done; run nothing'
    )
    parser.add_argument(
        '--report-only', action='store_true', help='tables and plot of what is done; run nothing'
    )
    args = parser.parse_args(argv)
    for name in ('workers', 'threads', 'gpus_per_trial'):
        if getattr(args, name) < 1:
            parser.error(f'--{name.replace("_", "-")} must be at least 1')
    return args


def part_of(grid: Grid, args) -> Grid:
    """Return the part of a grid that --seeds and --variants ask for.

    Raises:
        UserError: They name something that the grid lacks.
    """
    for given, there, name in (
        (args.seeds, grid.seeds, '--seeds'),
        (args.variants, [v.name for v in grid.variants], '--variants'),
    ):
        for item in given or ():
            if item not in there:
                raise UserError(
                    f'{name} {item}: the grid has {", ".join(map(str, there))}. Fix: name these.'
                )
    return dataclasses.replace(
        grid,
        seeds=tuple(s for s in grid.seeds if s in (args.seeds or grid.seeds)),
        variants=tuple(v for v in grid.variants if not args.variants or v.name in args.variants),
    )


def check_gpus(args) -> list:
    """Return the device numbers; there must be enough for every worker."""
    gpus = [g for g in args.gpus.split(',') if g]
    needed = args.workers * args.gpus_per_trial
    if (gpus or args.gpus_per_trial > 1) and len(gpus) < needed:
        raise UserError(
            f'--gpus names {len(gpus)} devices, {args.workers} workers with {args.gpus_per_trial} '
            f'each need {needed}. Fix: fewer workers, or more devices.'
        )
    return gpus


def print_list(grid: Grid, store: Store, console: Console) -> None:
    trials = grid.tuning() + grid.main(choose(grid, store))
    for t in trials:
        state = 'done' if store.result(t) else 'to do'
        console.print(f'{t.id}  {state:6} {t}', highlight=False, soft_wrap=True)
    waiting = len(grid.variants) * len(grid.seeds) - sum(t.stage == 'main' for t in trials)
    if waiting:
        console.print(f'and {waiting} main trials, whose tuned values are not known yet')


def run(grid: Grid, store: Store, args, console: Console) -> list:
    """Run the tuning trials, then the main ones; return what failed."""

    def say(result: dict) -> str:
        return f'{grid.metric} {metric_of(grid, result):.4f} ({result["wall_seconds"]:.0f} s)'

    executor = executor_of(grid, store, args, console)
    failed = executor.run(grid.tuning(), say)
    return failed + executor.run(grid.main(choose(grid, store)), say)


def executor_of(grid: Grid, store: Store, args, console: Console) -> Executor:
    """Return what runs the trials.

    Raises:
        UserError: Flags do not go together, or a package or Slurm is missing.
    """
    if args.executor == 'local':
        if args.slurm:
            raise UserError('--slurm goes with --executor slurm. Fix: add it, or leave both out.')
        gpus = check_gpus(args)
        return Workers(store, args.workers, args.threads, gpus, grid.keep_checkpoints, console)
    if args.gpus:
        raise UserError(
            '--gpus shares out the devices of this machine, and Slurm does it for --executor '
            'slurm. Fix: --slurm gpus_per_node=1.'
        )
    try:
        from lm4ve.ablation.slurm import SlurmJobs
    except ImportError as e:
        raise UserError(
            f"--executor slurm needs the package '{e.name}'. Fix: pip install 'lm4ve[slurm]'."
        ) from e
    options = {}
    for word in args.slurm:
        name, equals, value = word.partition('=')
        if not equals or not value:
            raise UserError(f"--slurm '{word}' must be NAME=VALUE. Fix: correct it.")
        options[name] = value
    return SlurmJobs(store, args.workers, args.threads, options, grid.keep_checkpoints, console)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    whole = load_grid(args.grid)
    grid = part_of(whole, args)
    store = Store(args.work_dir, args.gpus_per_trial)
    console = Console()
    if args.list:
        print_list(grid, store, console)
        return
    failed = []
    if not args.report_only:
        with store.lock():
            failed = run(grid, store, args, console)
    chosen = choose(whole, store)
    report(whole, store, whole.tuning() + whole.main(chosen), chosen, console)
    if failed:
        lines = '\n'.join(f'  {f.trial}: {f.reason}\n    {f.log}' for f in failed)
        raise UserError(
            f'{len(failed)} trial(s) failed:\n{lines}\nFix: see their '
            'logs; the same command tries them again.'
        )
