"""Runs the checks of a dry run one after the other, and prints their table."""

import os
import signal
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch.distributed
from mmengine.config import Config
from mmengine.logging import MMLogger
from tqdm import tqdm

from lm4ve.dry_run import ranks
from lm4ve.dry_run.checks import CHECKS, Check
from lm4ve.dry_run.finding import Finding, Verdict, describe_failure
from lm4ve.dry_run.plan import Plan
from lm4ve.errors import UserError
from lm4ve.runner.console import shorten
from lm4ve.runner.error_boundary import report
from lm4ve.runner.tables import print_table


@dataclass(frozen=True)
class Row:
    """A row of the table: a check and what it has found."""

    check: str
    finding: Finding


def dry_run(
    configure: Callable[..., Config],
    device: str | None = None,
) -> None:
    """Check all that a training needs, and print a table; the training is not started.

    Nothing is written to the work directory.

    Args:
        configure (Callable): See :class:`lm4ve.dry_run.plan.Plan`.
        device (str, optional): See :class:`lm4ve.dry_run.plan.Plan`.

    Raises:
        UserError: A check has failed. The message is that of the first one.
    """
    shorten(MMLogger.get_current_instance())
    with tempfile.TemporaryDirectory(prefix='lm4ve-dry-run-') as folder:
        plan = Plan(configure, Path(folder), device)
        rows = _run_checks(plan)
    _print(rows)
    failure = _describe_first_failure(rows)
    if not failure:
        return
    if torch.distributed.is_initialized():
        # The launcher ends all processes once one has; all have the same exit code.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise UserError(failure)


def _run_checks(plan: Plan) -> list[Row]:
    """Run all checks that can be run, and return a row for each."""
    rows: list[Row] = []

    def end(word: str) -> None:
        """Report the table while the main thread waits for a process that has failed."""
        failed = CHECKS[len(rows)].name
        ending = [*rows, Row(failed, Finding(word, Verdict.FAILED))]
        for check in CHECKS[len(ending) :]:
            ending.append(Row(check.name, Finding('', Verdict.UNCHECKED)))
        _print(ending)
        report(_describe_first_failure(ending))

    is_silent = None if _rank() == 0 else True  # None: where there is no terminal
    for check in tqdm(CHECKS, 'checking', disable=is_silent, leave=False):
        missing = _missing(check, rows)
        if missing:
            finding = Finding(f'needs {", ".join(missing)}', Verdict.UNCHECKED)
        else:
            finding = _run_check(check, plan, len(rows), end)
        rows.append(Row(check.name, finding))
    return rows


def _missing(check: Check, rows: Sequence[Row]) -> list[str]:
    """Return the checks that a check builds on and that have failed or were left out."""
    without_result = (Verdict.FAILED, Verdict.UNCHECKED)
    missing = []
    for row in rows:
        if row.check in check.needs and row.finding.verdict in without_result:
            missing.append(row.check)
    return missing


def _run_check(
    check: Check, plan: Plan, number: int, end: Callable[[str], None]
) -> Finding:
    """Run a check in this process, and return what it has found in all of them.

    Args:
        check (Check): The check.
        plan (Plan): Of the training.
        number (int): The number of the check.
        end (Callable): See :func:`lm4ve.dry_run.ranks.watched`.
    """
    if not check.together:
        return ranks.merge(_find(check, plan))
    with ranks.watched(end):
        finding = _find(check, plan)
    failure = ''
    if finding.verdict is Verdict.FAILED:
        failure = finding.text
    ranks.meet(number, failure, end)
    return ranks.merge(finding)


def _find(check: Check, plan: Plan) -> Finding:
    """Run a check; an error becomes a finding."""
    try:
        return check.find(plan)
    except Exception as e:
        return Finding(describe_failure(e), Verdict.FAILED)


def _describe_first_failure(rows: Sequence[Row]) -> str:
    """Return the name and the text of the first check that has failed, or ''."""
    for row in rows:
        if row.finding.verdict is Verdict.FAILED:
            return f'{row.check}: {row.finding.text}'
    return ''


def _rank() -> int:
    """Return the rank of this process, also before the processes have met."""
    return int(os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0')))


def _print(rows: Sequence[Row]) -> None:
    """Print the table; the first process only."""
    if _rank() != 0:
        return
    table = []
    for row in rows:
        cells = {
            'check': row.check,
            'verdict': row.finding.verdict.value,
            'found': row.finding.text,
        }
        table.append(cells)
    print_table('dry run', table, texts=('verdict', 'found'))
