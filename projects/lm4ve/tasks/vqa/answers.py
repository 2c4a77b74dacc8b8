"""Answers in the form in which VQA's official evaluation compares them, and vocabularies of them.

mmpretrain carries the rules of ``vqaEval.py`` (github.com/GT-Vision-Lab/VQA), its slips
included: a figure counts only if it agrees with what the evaluation server computes. METER
makes its vocabulary with the same rules.
"""

import functools
from collections import Counter
from collections.abc import Iterable

from mmpretrain.evaluation.metrics.vqa import _process_digit_article, _process_punctuation

from lm4ve.errors import UserError


def clean_answer(answer: str) -> str:
    """Return an answer without tabs, line breaks and space around it."""
    return answer.replace('\n', ' ').replace('\t', ' ').strip()


@functools.lru_cache(maxsize=100_000)
def normalize_answer(answer: str) -> str:
    """Return the form of an answer in which VQA's evaluation compares it.

    Punctuation goes: a mark that stands beside a space somewhere in the answer, or any
    mark if there is a number with a comma, is removed; others become a space. Periods go
    unless a digit follows. Then words in lower case: zero to ten become digits ("none"
    is 0), articles are left out, and contractions get their apostrophe back.

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

    Raises:
        UserError: No answer is left.
    """
    counts = Counter(normalize_answer(a) if normalize else a.strip() for a in answers)
    kept = [a for a, n in counts.items() if a and n >= min_count]
    if not kept:
        raise UserError(
            f'None of the {len(counts)} answers of {counts.total()} questions occurs {min_count} '
            'times or more. Fix: give all annotation files, or a smaller minimum.'
        )
    return kept
