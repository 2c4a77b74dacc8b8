"""What a study's folder held before: what was planned then, and what it said.

More seeds, or fewer variants, do not make another study of it: what was planned counts
for the correction, and what was seen is told.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lm4ve.files import read_json
from lm4ve.study.report_files import SENTENCE, STUDY

_ORDINALS = ('first', 'second', 'third', 'fourth', 'fifth')


@dataclass(frozen=True)
class Earlier:
    """What earlier runs of a study have planned and said.

    Attributes:
        facts (dict[str, Any]): Their study.json; empty without one.
        pairs (list[tuple[str, str]]): The comparisons that they planned.
        looks (list[tuple[int, str]]): The number of seeds of each earlier report, and
            its sentence.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    pairs: list[tuple[str, str]] = field(default_factory=list)
    looks: list[tuple[int, str]] = field(default_factory=list)

    def join_pairs(self, pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return comparisons with those that were planned before behind them."""
        return list(dict.fromkeys([*pairs, *self.pairs]))


def read_earlier(folder: Path, question: Mapping[str, Any], seeds: int) -> Earlier:
    """Return what a folder's study has planned and said, if it asked the same question.

    Args:
        folder (Path): The folder.
        question (Mapping[str, Any]): What study.json says of what is asked, in JSON's
            types.
        seeds (int): How many seeds run now; a report of as many is no other look.
    """
    facts = read_json(folder / STUDY)
    if not isinstance(facts, dict) or facts.get('question') != dict(question):
        return Earlier()
    looks = [(count, sentence) for count, sentence in facts['looks']]
    path = folder / SENTENCE
    if facts['seeds'] != seeds and path.is_file():
        sentence, *_ = path.read_text(encoding='utf-8').splitlines()
        looks.append((facts['seeds'], sentence))
    pairs = [(variant, against) for variant, against in facts['pairs']]
    return Earlier(facts, pairs, looks)


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
