"""What a study's folder held before: what was planned then, and what it said.

More seeds, or fewer variants, do not make another study of it: what was planned counts
for the correction, and what was seen is told. A plan is written before the first job, so
that a run that was killed has planned too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lm4ve.files import read_json, write_json
from lm4ve.study.report_files import PLAN, SENTENCE, STUDY

_ORDINALS = ('first', 'second', 'third', 'fourth', 'fifth')


@dataclass(frozen=True)
class Earlier:
    """What earlier runs of a study have planned and said.

    Attributes:
        heads (list[dict[str, Any]]): The heads that they planned, in a study of heads.
        pairs (list[tuple[str, str]]): The comparisons that they planned.
        looks (list[tuple[int, str]]): The number of seeds of each earlier report, and
            its sentence.
    """

    heads: list[dict[str, Any]] = field(default_factory=list)
    pairs: list[tuple[str, str]] = field(default_factory=list)
    looks: list[tuple[int, str]] = field(default_factory=list)

    def join_heads(self, heads: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return heads with those that were planned before behind them, by name."""
        joined: dict[str, dict[str, Any]] = {}
        for head in [*heads, *self.heads]:
            joined.setdefault(head['name'], head)
        return list(joined.values())

    def join_pairs(self, pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return comparisons with those that were planned before behind them."""
        return list(dict.fromkeys([*pairs, *self.pairs]))


def write_plan(
    folder: Path,
    question: Mapping[str, Any],
    pairs: list[tuple[str, str]],
    seeds: int,
    margin: float,
    heads: list[dict[str, Any]] | None = None,
) -> None:
    """Write what a study will compare, before its first job.

    Args:
        folder (Path): The folder of its report.
        question (Mapping[str, Any]): See :func:`read_earlier`.
        pairs (list[tuple[str, str]]): The comparisons; those of earlier runs with the
            same question stay.
        seeds (int): How many seeds will run.
        margin (float): The smallest difference that matters.
        heads (list[dict[str, Any]], optional): The heads, in a study of heads.
    """
    earlier = read_earlier(folder, question, seeds)
    plan = dict(
        question=question,
        pairs=earlier.join_pairs(pairs),
        seeds=seeds,
        margin=margin,
        heads=earlier.join_heads(heads or []),
    )
    write_json(plan, folder / PLAN)


def read_earlier(folder: Path, question: Mapping[str, Any], seeds: int) -> Earlier:
    """Return what a folder's study has planned and said, if it asked the same question.

    Args:
        folder (Path): The folder.
        question (Mapping[str, Any]): What is asked, in JSON's types.
        seeds (int): How many seeds run now; a report of as many is no other look.
    """
    reported = _read_facts(folder / STUDY, question)
    planned = _read_facts(folder / PLAN, question)
    looks = [(count, sentence) for count, sentence in reported.get('looks', [])]
    path = folder / SENTENCE
    if reported.get('seeds', seeds) != seeds and path.is_file():
        sentence, *_ = path.read_text(encoding='utf-8').splitlines()
        looks.append((reported['seeds'], sentence))
    heads = []
    pairs = []
    for facts in (reported, planned):
        heads += facts.get('heads', [])
        pairs += [(variant, against) for variant, against in facts.get('pairs', [])]
    return Earlier(heads, pairs, looks)


def _read_facts(path: Path, question: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a file says of a study that asks a question; empty if of none."""
    facts = read_json(path)
    if not isinstance(facts, dict) or facts.get('question') != dict(question):
        return {}
    return facts


def describe_looks(looks: list[tuple[int, str]]) -> str:
    """Return the line that tells of earlier looks; '' without any.

    As in 'A second look: the first, of 8 seeds, said: Open: ...'.
    """
    if not looks:
        return ''
    told = []
    for place, (seeds, sentence) in enumerate(looks):
        noun = 'seed' if seeds == 1 else 'seeds'
        told.append(f'the {_ordinal(place)}, of {seeds} {noun}, said: {sentence}')
    return f'A {_ordinal(len(looks))} look: {" ".join(told)}'


def _ordinal(place: int) -> str:
    """Return the word for a place that counts from 0."""
    if place < len(_ORDINALS):
        return _ORDINALS[place]
    return f'{place + 1}th'
