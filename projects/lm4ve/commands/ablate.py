"""Run a grid of controlled ablations, and compare its variants.

    lm4ve ablate configs/ablations/digits_controls.py \\
        --work-dir work_dirs/ablations --workers 2

Started again after a kill, it goes on where it was. See docs/guides/ablations.md.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

from lm4ve.ablation import Grid, Store, load_grid, select_tuned
from lm4ve.ablation.report import report
from lm4ve.ablation.store import metric_of
from lm4ve.ablation.workers import Workers
from lm4ve.commands.flags import parser_of
from lm4ve.errors import UserError, check, require
from lm4ve.runner.rich_console import Console


def part_of(grid: Grid, args: argparse.Namespace) -> Grid:
    """Return the part of a grid that --seeds and --variants select."""
    names = [v.name for v in grid.variants]
    wanted, seeds = args.variants or names, args.seeds or grid.seeds
    for field, values, known in (
        ('--variants', wanted, names),
        ('--seeds', seeds, grid.seeds),
    ):
        for value in values:
            check(field, value, choices=known)
    variants = tuple(v for v in grid.variants if v.name in wanted)
    seeds = tuple(s for s in grid.seeds if s in seeds)
    return dataclasses.replace(grid, seeds=seeds, variants=variants)


def print_list(grid: Grid, store: Store, console: Console) -> None:
    trials = grid.tuning() + grid.main(select_tuned(grid, store))
    for t in trials:
        state = 'done' if store.result(t) else 'to do'
        console.print(f'{t.id}  {state:6} {t}', highlight=False, soft_wrap=True)
    waiting = len(grid.variants) * len(grid.seeds) - sum(
        t.stage == 'main' for t in trials
    )
    if waiting:
        console.print(
            f'and {waiting} main trials, whose tuned values are not known yet'
        )


def build_executor(
    grid: Grid, store: Store, args: argparse.Namespace, console: Console
) -> Any:
    """Return the executor that the flags name."""
    shared = store, args.workers, args.threads, grid.keep_checkpoints, console
    if args.executor == 'local':
        gpus = [g for g in args.gpus.split(',') if g]
        if gpus or args.gpus_per_trial > 1:
            needed = args.workers * args.gpus_per_trial
            check('the number of devices in --gpus', len(gpus), least=needed)
        return Workers(*shared, gpus)
    if args.gpus:
        raise UserError(
            '--gpus is for this machine. For Slurm: --slurm gpus_per_node=1.'
        )
    from lm4ve.ablation.slurm import SlurmJobs

    for word in args.slurm:
        require(
            '=' in word,
            f"--slurm '{word}' is not NAME=VALUE. Fix: for example time=120.",
        )
    return SlurmJobs(*shared, dict(word.split('=', 1) for word in args.slurm))


def main(argv: Sequence[str] | None = None) -> None:
    args = parser_of('ablate').parse_args(argv)
    check('--workers', args.workers, least=1)
    whole = load_grid(args.grid)
    grid = part_of(whole, args)
    store, console = Store(args.work_dir, args.gpus_per_trial), Console()

    def describe(result: dict) -> str:
        return f'{grid.metric} {metric_of(grid, result):.4f} ({result["wall_seconds"]:.0f} s)'

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
    report(whole, store, whole.tuning() + whole.main(selected), selected, console)
    if failures:
        lines = '\n'.join(f'  {f.trial}: {f.reason}\n    {f.log}' for f in failures)
        raise UserError(
            f'{len(failures)} trial(s) failed; the same command tries them again:\n{lines}'
        )
