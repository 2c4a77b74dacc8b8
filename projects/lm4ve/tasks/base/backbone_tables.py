"""Which fields let a block into a host's backbones, as tables for users and for tests.

Each host has its table beside its task (``image/backbones.py``, ``video/backbones.py``). The
pages of the documentation are made from them by ``tools/dev/write_tables.py``, and a test
trains a step of each entry at tiny size and sees each refusal fail as it says.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any


@dataclass(frozen=True)
class Entry:
    """A backbone that takes the block.

    Attributes:
        type (str): Its name in the host's registry, or in another one with the scope.
        backbone (dict): The fields that let it give features before its final norm.
        neck (dict): The fields of ``LLMBlockNeck`` beside ``in_channels`` and ``block``.
        then (tuple): Configs of the necks that follow.
        norms (tuple): The norms that ``lm4ve.WithoutNorms`` takes out.
        insert (dict): The fields of ``LLMBlockInsert`` beside ``backbone`` and ``neck``, where
            the block stands inside the backbone.
        model (str): The host's model; empty where the task has only one.
        head (str): The head that takes the features; empty for the usual one.
        note (str): What else a user has to know, a clause.
        unused (str): What the host itself leaves without a gradient; empty as a rule.
    """

    type: str
    backbone: dict[str, Any] = field(default_factory=dict)
    neck: dict[str, Any] = field(default_factory=dict)
    then: tuple[dict[str, Any], ...] = ()
    norms: tuple[str, ...] = ()
    insert: dict[str, Any] = field(default_factory=dict)
    model: str = ''
    head: str = ''
    note: str = ''
    unused: str = ''


@dataclass(frozen=True)
class Refused:
    """A backbone that does not take the block.

    Attributes:
        type (str): Its name in the host.
        reason (str): Why, a sentence without a full stop.
        error (str): What building or running it says; empty if it is not registered.
    """

    type: str
    reason: str
    error: str = ''


def config_lines(entry: Entry, host: str) -> tuple[str, str]:
    """Return what the documentation shows of an entry: the backbone's fields, the neck's.

    Args:
        entry (Entry): A row.
        host (str): The scope of names that have none.
    """
    backbone = ', '.join([f"type='{full_type(entry.type, host)}'", *_fields(entry.backbone)])
    if entry.norms:
        backbone = f"type='lm4ve.WithoutNorms', norms={[*entry.norms]}, backbone=dict({backbone})"
    neck = ', '.join(_fields(entry.neck))
    neck = f'`{neck}`' if neck else 'nothing'
    if entry.insert:
        insert = ', '.join(_fields(entry.insert))
        backbone = f"type='LLMBlockInsert', {insert}, backbone=dict({backbone}), neck=..."
        neck = 'inside the backbone' if neck == 'nothing' else f'inside the backbone: {neck}'
    then = ''.join(f', then `{_follower(cfg)}`' for cfg in entry.then)
    return f'`{backbone}`', neck + then


def full_type(name: str, host: str) -> str:
    """Return a registered name with its scope."""
    return name if '.' in name else f'{host}.{name}'


def tables(
    task: str, entries: Iterable[Entry], refused: Iterable[Refused], host: str
) -> dict[str, Callable[[], str]]:
    """Return what makes the tables of a host, by the names of their markers in a page."""
    return {
        f'{task} backbones': partial(works_table, entries, host),
        f'refused {task} backbones': partial(refused_table, refused),
    }


def works_table(entries: Iterable[Entry], host: str) -> str:
    """Return the Markdown table of the backbones that take the block."""
    entries = list(entries)
    models = any(e.model for e in entries)
    titles = ['`backbone=dict(...)`: these fields and your sizes']
    titles += ["`neck=dict(type='LLMBlockNeck', ...)`: beside `in_channels` and `block`"]
    titles += ['model and head'] if models else []
    rows = []
    for entry in entries:
        backbone, neck = config_lines(entry, host)
        if models:
            cells = [backbone, neck, ', '.join(f'`{n}`' for n in (entry.model, entry.head) if n)]
        else:
            cells = [backbone, neck + (f', head `{entry.head}`' if entry.head else '')]
        cells[-1] += f'; {entry.note}' if entry.note else ''
        rows.append(_row(cells))
    return '\n'.join([_row(titles), '|---' * len(titles) + '|', *rows])


def refused_table(refused: Iterable[Refused]) -> str:
    """Return the Markdown table of the backbones that do not take it, with the reasons."""
    rows = [_row([f'`{r.type}`', r.reason]) for r in refused]
    return '\n'.join([_row(['backbone', 'why']), '|---|---|', *rows])


def _row(cells: Iterable[str]) -> str:
    return f'| {" | ".join(cells)} |'


def _follower(cfg: dict[str, Any]) -> str:
    fields = _fields({k: v for k, v in cfg.items() if k != 'type'})
    return f'{cfg["type"]}({", ".join(fields)})' if fields else cfg['type']


def _fields(values: dict[str, Any]) -> list[str]:
    return [f'{k}={_call(v)}' for k, v in values.items()]


def _call(value: Any) -> str:
    return f'dict({", ".join(_fields(value))})' if isinstance(value, dict) else repr(value)
