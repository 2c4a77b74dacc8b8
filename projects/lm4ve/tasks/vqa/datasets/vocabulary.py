"""The answers that a model of visual question answering chooses from, and their scores."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lm4ve.errors import UserError, listing
from lm4ve.tasks.base.language.answering import SCORES
from lm4ve.tasks.base.language.json_files import read_json


def read_vocabulary(
    source: str | Path | Sequence[str], field: str = 'vocabulary'
) -> tuple[str, ...]:
    """Return the answers of a vocabulary; an answer's index is its label.

    Args:
        source (str | Path | Sequence[str]): A JSON file that holds a list, as
            ``tools/vision_language/make_vocabulary.py`` writes it, or the list.
        field (str): The config's field, for messages.

    Raises:
        UserError: It is no list of different, non-empty lines.
    """
    is_file = isinstance(source, (str, Path))
    answers = read_json(source, list, field) if is_file else list(source)
    # The fingerprint in checkpoints joins the answers by line breaks.
    wrong = [a for a in answers if not isinstance(a, str) or not a.strip() or '\n' in a]
    if wrong or not answers or len(set(answers)) < len(answers):
        raise UserError(
            f'{field} must be a list of different answers of one line, or its JSON file '
            f'({listing(wrong) or "it is empty or has an answer twice"}). Fix: make it with '
            'tools/vision_language/make_vocabulary.py.'
        )
    return tuple(answers)


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
