"""The answers that a model of visual question answering chooses from, and their scores."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from lm4ve.errors import UserError, brief, listing
from lm4ve.tasks.base.language.answering import SCORES
from lm4ve.tasks.base.language.json_files import read_json
from lm4ve.tasks.vqa.answers import normalize_answer


def read_vocabulary(
    source: str | Path | Sequence[str], field: str = 'vocabulary'
) -> tuple[str, ...]:
    """Return the answers of a vocabulary; an answer's index is its label.

    Args:
        source (str | Path | Sequence[str]): A JSON file that holds a list, as
            ``tools/vision_language/make_vocabulary.py`` writes it, or the list.
        field (str): What messages call it.

    Raises:
        UserError: It is no list of different, non-empty texts.
    """
    if isinstance(source, (str, Path)):
        answers, name = read_json(source, list, field), f"{field}: '{source}'"
    else:
        answers, name = list(source), field
    wrong = [i for i, a in enumerate(answers) if not _is_answer(a)]
    twice = [a for a, n in Counter(a for a in answers if isinstance(a, str)).items() if n > 1]
    if wrong or twice or not answers:
        found = (
            f'the entries {listing(wrong)} are no texts of a line'
            if wrong
            else f'these answers occur more than once: {listing([brief(a) for a in twice])}'
            if twice
            else 'it is empty'
        )
        raise UserError(
            f'{name} is no vocabulary, a list of different answers: {found}. Fix: make it '
            'with tools/vision_language/make_vocabulary.py.'
        )
    return tuple(answers)


def _is_answer(value: object) -> bool:
    """Whether it is a text of one line; its fingerprint joins the lines, as UTF-8."""
    if not isinstance(value, str) or not value.strip() or '\n' in value:
        return False
    return not any('\ud800' <= c <= '\udfff' for c in value)


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


def majority(answers: Sequence[str]) -> str:
    """Return the answer that most annotators gave, the first of equal ones."""
    return Counter(answers).most_common(1)[0][0]


def soft_scores(answers: Sequence[str]) -> dict[str, float]:
    """Return the training target of each answer to one question.

    The score follows from how many annotators gave exactly this text, which METER
    compares with the vocabulary as it is: see :data:`SCORES`. An answer that all of them
    gave, also if there is only one annotator, has the score 1.

    Args:
        answers (Sequence[str]): The annotators' answers; may be empty.
    """
    return {
        answer: 1.0 if n == len(answers) else SCORES[min(n, len(SCORES) - 1)]
        for answer, n in Counter(answers).items()
    }
