"""What a check of a dry run finds: a sentence, and what follows from it for the training."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from lm4ve.errors import StorageError, UserError
from lm4ve.runner.config.fields import dicts_in
from lm4ve.runner.error_lines import (
    new_log,
    with_traceback,
    without_traceback,
    words_of,
)

#: How Python names a file that the system does not give: the reason, and the path.
_NAMES_PATH = re.compile(r"\[Errno \d+\] (?P<reason>[^:]+): '(?P<path>.+?)'")
#: The parts of a config whose fields name files.
_HAVE_FILES = (
    'model',
    'train_dataloader',
    'val_dataloader',
    'val_evaluator',
    'default_hooks',
    'custom_hooks',
)


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
        is_of_storage (bool): Of a failure: storage did not give a file, so that another
            start may find it.
    """

    text: str
    verdict: Verdict = Verdict.OK
    facts: Mapping[str, object] = field(default_factory=dict)
    is_of_storage: bool = False


def warning_if(problem: str, text: str) -> Finding:
    """Return a finding with a problem at its end as a warning; without one it is ok."""
    if not problem:
        return Finding(text)
    return Finding(f'{text}. {problem}', Verdict.WARNING)


def describe_failure(error: Exception, cfg: Any) -> str:
    """Return what went wrong in a check, and what to do about it.

    Our own errors say so. Of a path that cannot be read the config's field is named. Any
    other error becomes a line, which names a temporary file with the traceback.

    Args:
        error (Exception): What the check raised.
        cfg (Config, optional): Of the training; None if it could not be read.
    """
    if isinstance(error, (UserError, StorageError)):
        return without_traceback(error)
    unread = _describe_path(words_of(error), cfg or {})
    if unread:
        return unread
    # The current log lies in a folder of the dry run's own.
    return with_traceback(error, new_log())


def _describe_path(message: str, cfg: Mapping[str, Any]) -> str:
    """Return a sentence on a path that the system does not give; '' if it is about none.

    Args:
        message (str): Of an error.
        cfg (Mapping): The config, whose fields are looked through for the path.
    """
    named = _NAMES_PATH.search(message)
    if named is None:
        return ''
    reason = named['reason'].lower()
    path = Path(named['path'])
    fields = _fields_that_name(path, cfg)
    if not fields:
        return f"'{path}': {reason}. Fix: put it there, or correct what names it."
    options = ' '.join(f'{name}=PATH' for name in fields)
    return (
        f"{' and '.join(fields)}: '{path}': {reason}. Fix: put it there, or name another "
        f'place: --cfg-options {options}'
    )


def _fields_that_name(path: Path, cfg: Mapping[str, Any]) -> list[str]:
    """Return the fields of a config that most likely have to change; [] if none has any.

    These are the fields with a folder that is not there; else those with the end of the
    path, since the folders before it are there; else those with its beginning. Among
    fields alike, the longest part of the path decides.
    """
    best = (False, False, 0)
    fields: list[str] = []
    for name, text in _texts_in(cfg):
        begins = path.is_relative_to(text)
        ends = str(path).endswith(f'/{text}')
        if not (begins or ends):
            continue
        rank = (begins and not Path(text).exists(), ends, len(text))
        if rank > best:
            best = rank
            fields = []
        if rank == best:
            fields.append(name)
    return fields


def _texts_in(cfg: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield every field of a config that may name a file, with its text."""
    for part in _HAVE_FILES:
        for place, node in dicts_in(cfg.get(part), part):
            for name, value in node.items():
                if isinstance(value, str) and value:
                    yield f'{place}.{name}', value
