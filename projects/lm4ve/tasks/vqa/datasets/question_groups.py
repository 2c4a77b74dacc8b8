"""Several questions about one image in one training sample.

The image is encoded once for all of them, and what it shows is asked for from several sides
in the same step: with one question a sample, a small image encoder that starts at random
learns what is easiest to see, such as colors, and little else.
"""

from collections.abc import Collection, Sequence

import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner

from lm4ve.errors import UserError
from lm4ve.registry import HOOKS

#: What a sample has one of for each of its questions.
PER_QUESTION = ('gt_answers', 'question_id', 'question_type', 'answer_type')


def check_count(count: object) -> None:
    """Refuse a ``questions_per_image`` that is no number of questions.

    Raises:
        UserError: It is neither None nor 1 or more.
    """
    if count is not None and (type(count) is not int or count < 1):
        raise UserError(
            f'dataset.questions_per_image={count!r} must be a number of 1 or more, or None for one '
            'question a sample.'
        )


def group_by_image(entries: list[dict]) -> list[dict]:
    """Put the questions about each image together.

    Args:
        entries (list[dict]): One a question.

    Returns:
        list[dict]: One an image, in the order of their first questions: ``text`` has the Q
        questions; ``gt_answers``, ``question_id`` and types are lists with one entry a
        question.
    """
    groups: dict[str, list[dict]] = {}
    for entry in entries:
        groups.setdefault(entry['img_path'], []).append(entry)
    return [
        dict(
            group[0],
            text=[text for e in group for text in e['text']],
            **{k: [e.get(k) for e in group] for k in PER_QUESTION if k in group[0]},
        )
        for group in groups.values()
    ]


def draw_questions(entry: dict, count: int, answers: Collection[str] | None = None) -> dict:
    """Draw some of an image's questions; all, and some again, where it has fewer.

    Draws come from numpy's global generator, which the suite seeds for every batch.

    Args:
        entry (dict): One entry of what :func:`group_by_image` returns.
        count (int): How many questions.
        answers (Collection[str], optional): Draw from questions with one of these answers,
            if the image has any.
    """
    open_to = range(len(entry['text']))
    if answers is not None:
        fits = [i for i in open_to if not set(answers).isdisjoint(entry['gt_answers'][i])]
        open_to = fits or open_to
    rounds = [np.random.permutation(open_to) for _ in range(-(-count // len(open_to)))]
    chosen = np.concatenate(rounds)[:count].tolist()
    drawn = {k: [entry[k][i] for i in chosen] for k in ('text', *PER_QUESTION) if k in entry}
    return dict(entry, **drawn)


@HOOKS.register_module()
class AskFirstHook(Hook):
    """Let the first epochs ask only what has some answers, then everything.

    For data sets with several questions an image. A small image encoder that starts at
    random finds shapes when it is asked to name them; among questions that are mostly to be
    answered with yes or no it does not.

    Args:
        answers (Sequence[str]): Questions with one of these answers are asked first. Of an
            image without such a question any is asked.
        epochs (int): How many epochs.
    """

    def __init__(self, answers: Sequence[str], epochs: int) -> None:
        self.answers, self.epochs = frozenset(answers), epochs

    def before_train_epoch(self, runner: Runner) -> None:
        """Tell the data set.

        Raises:
            UserError: The data set has one question a sample, or its workers would not hear
                of it.
        """
        loader = runner.train_dataloader
        if getattr(loader.dataset, 'questions_per_image', None) is None:
            raise UserError(
                'AskFirstHook chooses among the questions of an image, and '
                f'{type(loader.dataset).__name__} has one a sample. Fix: set '
                'train_dataloader.dataset.questions_per_image.'
            )
        if loader.num_workers and loader.persistent_workers:
            raise UserError(
                'AskFirstHook does not reach the workers of train_dataloader, which outlive an '
                'epoch. Fix: set train_dataloader.persistent_workers=False.'
            )
        loader.dataset.asked = self.answers if runner.epoch < self.epochs else None
