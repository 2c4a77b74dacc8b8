"""Runs the checks of a dry run one after the other, and prints a row for each."""

import shutil
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.logging import MMLogger

from lm4ve.dry_run import ranks
from lm4ve.dry_run.checks import CHECKS, Check
from lm4ve.dry_run.finding import Finding, Verdict, describe_failure
from lm4ve.dry_run.plan import Plan
from lm4ve.errors import StorageError, UserError
from lm4ve.files import is_storage_error
from lm4ve.runner.console import shorten
from lm4ve.runner.process_rank import is_first_process

#: Where the second and the third column of the table begin.
_VERDICT_AT = 12
_TEXT_AT = 25
#: Columns of text of the table where there is no terminal.
_WIDTH = 170


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
        StorageError: Storage did not give a file to the first one that has failed.
    """
    shorten(MMLogger.get_current_instance())
    _print('check', 'verdict', 'found')
    findings: dict[str, Finding] = {}
    with tempfile.TemporaryDirectory(prefix='lm4ve-dry-run-') as folder:
        plan = Plan(configure, Path(folder), device)
        for check in CHECKS:
            finding = _run_check(check, plan, findings)
            findings[check.name] = finding
            _print(check.name, finding.verdict.value, finding.text)
    _raise_first_failure(findings)


def _run_check(check: Check, plan: Plan, findings: dict[str, Finding]) -> Finding:
    """Run a check, and return what all processes have found; an error becomes a finding.

    Args:
        check (Check): The check.
        plan (Plan): Of the training.
        findings (dict[str, Finding]): Of the checks before it, by name.

    Raises:
        UserError: It has failed in this process, and the others wait for this one.
        StorageError: Likewise, since storage did not give a file.
    """
    for needed in check.needs:
        if findings[needed].verdict in (Verdict.FAILED, Verdict.UNCHECKED):
            return Finding(f'needs {needed}', Verdict.UNCHECKED)
    try:
        own = check.find(plan)
    except Exception as error:
        failure = describe_failure(error, plan.cfg)
        own = Finding(failure, Verdict.FAILED, is_of_storage=is_storage_error(error))
        if check.together and get_world_size() > 1:
            raise _error_of(
                check.name, ranks.with_rank(failure), own.is_of_storage
            ) from error
    return ranks.merge(own)


def _raise_first_failure(findings: dict[str, Finding]) -> None:
    """Raise an error with the name and the text of the first check that has failed, if any."""
    for name, finding in findings.items():
        if finding.verdict is Verdict.FAILED:
            raise _error_of(name, finding.text, finding.is_of_storage)


def _error_of(check: str, text: str, is_of_storage: bool) -> Exception:
    """Return the error that a dry run ends with when a check has failed."""
    message = f'{check}: {text}'
    if is_of_storage:
        return StorageError(message)
    return UserError(message)


def _print(check: str, verdict: str, text: str) -> None:
    """Print a row of the table as soon as it is known; the first process only.

    A process that the system ends in a check leaves the rows before it.
    """
    if not is_first_process():
        return
    start = check.ljust(_VERDICT_AT) + verdict.ljust(_TEXT_AT - _VERDICT_AT)
    row = textwrap.fill(
        start + ' '.join(text.split()),
        width=shutil.get_terminal_size((_WIDTH, 24)).columns,
        subsequent_indent=' ' * _TEXT_AT,
        drop_whitespace=True,
        break_long_words=False,
        break_on_hyphens=False,
    )
    print(row, flush=True)
