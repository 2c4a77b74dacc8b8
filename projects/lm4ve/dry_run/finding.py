"""What a check of a dry run finds: a sentence, and what follows from it for the training."""

import tempfile
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from lm4ve.errors import UserError, first_line
from lm4ve.runner.building import find_built_field
from lm4ve.runner.error_boundary import without_traceback


class Verdict(Enum):
    """What a finding means for the training."""

    OK = 'ok'
    #: The training would run, but perhaps not as its user means it.
    WARNING = 'warning'
    #: The training would fail here, now or hours later.
    FAILED = 'failed'
    #: Nothing is known, because a check that this one builds on has failed.
    UNCHECKED = 'not checked'


@dataclass(frozen=True)
class Finding:
    """The result of a check.

    Attributes:
        text (str): What was found. Of a failure: the field or file, what was found
            there, and the fix.
        verdict (Verdict): What it means.
        facts (Mapping[str, object]): What must be the same in all processes of a
            training, by name.
    """

    text: str
    verdict: Verdict = Verdict.OK
    facts: Mapping[str, object] = field(default_factory=dict)


def warning_if(problem: str, text: str) -> Finding:
    """Return a finding with a problem at its end as a warning; without one it is ok."""
    if not problem:
        return Finding(text)
    return Finding(f'{text}. {problem}', Verdict.WARNING)


def describe_failure(error: Exception) -> str:
    """Return what went wrong in a check.

    The message of an error that the user can mend says all. Any other one becomes a
    line, which names a temporary file with the traceback.
    """
    if isinstance(error, UserError):
        return without_traceback(error)
    with tempfile.NamedTemporaryFile(
        'w', prefix='lm4ve-error-', suffix='.log', delete=False
    ) as log:
        log.write(''.join(traceback.format_exception(error)))
    built = find_built_field(error)
    place = '' if built is None else f'{built}: '
    sentence = f'{place}{type(error).__name__}: {first_line(error)[:300]}'
    return f'{sentence} (traceback: {log.name})'
