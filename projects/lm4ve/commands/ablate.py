"""Run a grid of controlled ablations, and compare its variants.

    lm4ve ablate configs/ablations/digits_controls.py \\
        --work-dir work_dirs/ablations --workers 2

Started again after a kill, it goes on where it was. See docs/guides/ablations.md.
"""

import argparse
import dataclasses
import shlex
import sys
from pathlib import Path

from lm4ve.commands.engine import build_pool, run_only, say_after_stop
from lm4ve.errors import check
from lm4ve.files import write_text
from lm4ve.runner.rich_console import Console
from lm4ve.study.compare import RULE
from lm4ve.study.earlier import write_plan
from lm4ve.study.pool import require_success
from lm4ve.study.report import claim_folder, write_report
from lm4ve.study.store import Store
from lm4ve.study.trainings.contents import report_of
from lm4ve.study.trainings.grid import Grid
from lm4ve.study.trainings.grid_files import load_grid, read_name
from lm4ve.study.trainings.scopes import modules_of
from lm4ve.study.trainings.scores import is_of_labels
from lm4ve.study.trainings.stored import (
    question_of,
    read_grid_study,
    write_grid_study,
)
from lm4ve.study.trainings.study import GridStudy
from lm4ve.study.trainings.trial import try_variants

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


def print_list(study: GridStudy, console: Console) -> None:
    """Print the jobs, whether each is done, and how many wait for tuned values."""
    tests = study.tests()
    for job in [*study.tuning(), *study.draws(), *tests]:
        state = 'to do'
        if study.store.result(job) is not None:
            state = 'done'
        elif study.store.failure(job) is not None:
            state = 'failed'
        console.print(f'{job.key}  {state:6} {job}', highlight=False, soft_wrap=True)
    waiting = len(study.grid.variants) * len(study.grid.seeds) - len(tests)
    if waiting:
        console.print(f'and {waiting} trainings, whose tuned values are not known yet')


def write_rule(grid: Grid, out: Path) -> str:
    """Write plan and rule of a grid into its folder, and return the rule.

    Raises:
        UserError: It holds the report of something else.
    """
    out.mkdir(parents=True, exist_ok=True)
    claim_folder(out, dict(grid=grid.name))
    counted = 'seeds alone, since scores are of whole trainings'
    if is_of_labels(grid.metric):
        counted = 'seeds and test samples, each of which is a group'
    rule = (
        f'{RULE}\n\nHere: the interval counts {counted}; {grid.metric}, margin '
        f'{grid.margin:g}, {len(grid.seeds)} seeds, {len(grid.pairs)} comparisons.'
    )
    write_text(f'{rule}\n', out / 'rule.txt')
    write_plan(out, question_of(grid), grid.pairs, len(grid.seeds), grid.margin)
    return rule


def run(args: argparse.Namespace) -> None:
    """Run the trainings that are missing, and report those that are finished."""
    check('--workers', args.workers, least=1)
    if args.only:
        run_only(args, [args.work_dir / JOBS])
        return
    store = Store(args.work_dir / JOBS)
    console = Console()
    if args.report_only:
        out = args.work_dir / read_name(args.grid)
        write_report(report_of(read_grid_study(out)), out, console)
        return
    whole = load_grid(args.grid)
    if args.margin is not None:
        check('--margin', args.margin, above=0)
        whole = dataclasses.replace(whole, margin=args.margin)
    out = args.work_dir / whole.name
    processes = args.gpus_per_trial
    part = GridStudy(select_part(whole, args), store, processes)
    if args.list:
        print_list(part, console)
        return
    say_after_stop(args.work_dir)
    with store.lock('--work-dir'):
        rule = write_rule(whole, out)
        try_variants(part)
        pool = build_pool(store, args, modules_of(part.grid), processes)
        failures = part.run(pool)
        command = shlex.join(['lm4ve', 'ablate', *sys.argv[1:]])
        if write_grid_study(GridStudy(whole, store, processes), rule, command, out):
            write_report(report_of(read_grid_study(out)), out, console)
    require_success(failures)
