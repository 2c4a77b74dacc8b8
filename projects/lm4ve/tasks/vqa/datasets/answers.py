"""Answers: their official normal form, vocabularies of them, and their training targets.

mmpretrain carries the rules of ``vqaEval.py`` (github.com/GT-Vision-Lab/VQA), its slips
included: a figure counts only if it agrees with what the evaluation server computes.
METER makes its vocabulary with the same rules.
"""

import functools
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmpretrain.evaluation.metrics.vqa import (
    _process_digit_article,
    _process_punctuation,
)

from lm4ve.errors import check, require
from lm4ve.text.annotation_files import read_json
from lm4ve.text.vocabulary import SCORES


def clean_answer(answer: str) -> str:
    """Return an answer without tabs, line breaks and space around it."""
    return answer.replace('\n', ' ').replace('\t', ' ').strip()


@functools.lru_cache(maxsize=100_000)
def normalize_answer(answer: str) -> str:
    """Return the form of an answer in which VQA's evaluation compares it.

    Punctuation goes: a mark that stands beside a space somewhere in the answer, or any
    mark if there is a number with a comma, is removed; others become a space. Periods
    go unless a digit follows. Then words in lower case: zero to ten become digits
    ("none" is 0), articles are left out, and contractions get their apostrophe back.

    Args:
        answer (str): Any text.

    Returns:
        str: Words with single spaces between; empty for "the", for example.
    """
    return _process_digit_article(_process_punctuation(clean_answer(answer)))


def build_vocabulary(
    answers: Iterable[str], min_count: int = 9, normalize: bool = True
) -> list[str]:
    """Return the answers that occur often enough, in the order of their first occurrence.

    Args:
        answers (Iterable[str]): One answer a question: the majority's. METER reads
            VQAv2's training questions first, then those of its validation set.
        min_count (int): How many questions must have the answer.
        normalize (bool): Count answers in their official normal form, as METER does.

    The empty answer counts as any other: METER's 3,129 contain it, since "a" and "the"
    normalize to it.

    Raises:
        UserError: No answer is left.
    """
    as_counted = normalize_answer if normalize else str.strip
    counts = Counter(as_counted(answer) for answer in answers)
    kept = [answer for answer, count in counts.items() if count >= min_count]
    check(
        f'answers of {counts.total()} questions with a count of {min_count}',
        len(kept),
        least=1,
    )
    return kept


def read_vocabulary(
    source: str | Path | Sequence[str], field: str = 'vocabulary'
) -> tuple[str, ...]:
    """Return the answers of a vocabulary; an answer's index is its label.

    Args:
        source (str | Path | Sequence[str]): A JSON file that holds a list, as
            ``tools/vqa/make_vocabulary.py`` writes it, or the list.
        field (str): The config's field, for messages.

    Raises:
        UserError: It is no list of different lines.
    """
    if isinstance(source, (str, Path)):
        answers = read_json(source, list, field)
    else:
        answers = list(source)
    for answer in answers:
        check(f'{field}: an answer', answer, kind=str)
    # The fingerprint in checkpoints joins the answers by line breaks.
    lines = {answer for answer in answers if '\n' not in answer}
    require(answers, f'{field} has no answers. Fix: a line for each answer.')
    require(
        len(lines) == len(answers),
        f'{field}: {len(answers)} answers are only {len(lines)} different lines. Fix: name each '
        'answer once, without line breaks.',
    )
    return tuple(answers)


def majority(answers: Sequence[str]) -> str:
    """Return the answer that most annotators gave, the first of equal ones."""
    return Counter(answers).most_common(1)[0][0]


def soft_scores(answers: Sequence[str]) -> dict[str, float]:
    """Return the training target of each answer to one question.

    The score follows from how many annotators gave exactly this text, which METER
    compares with the vocabulary as it is: see :data:`SCORES`. An answer that all of
    them gave, also if there is only one annotator, has the score 1.

    Args:
        answers (Sequence[str]): The annotators' answers; may be empty.
    """
    scores = {}
    for answer, count in Counter(answers).items():
        if count == len(answers):
            scores[answer] = 1.0
        else:
            scores[answer] = SCORES[min(count, len(SCORES) - 1)]
    return scores
