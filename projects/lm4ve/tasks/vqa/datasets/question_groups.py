"""Several questions about one image in one training sample.

The image is encoded once for all of them, and all of them are about it in the same step:
with one question a sample, a small image encoder that starts at random learns what is
easiest to see, such as colors, and little else.
"""

from collections.abc import Collection, Sequence

import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner

from lm4ve.errors import UserError, check
from lm4ve.registry import HOOKS

#: What a sample has one of for each of its questions.
PER_QUESTION = ('gt_answers', 'question_id', 'question_type', 'answer_type')


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
    candidates = range(len(entry['text']))
    if answers is not None:
        fits = [i for i in candidates if not set(answers).isdisjoint(entry['gt_answers'][i])]
        candidates = fits or candidates
    rounds = [np.random.permutation(candidates) for _ in range(-(-count // len(candidates)))]
    chosen = np.concatenate(rounds)[:count].tolist()
    drawn = {k: [entry[k][i] for i in chosen] for k in ('text', *PER_QUESTION) if k in entry}
    return dict(entry, **drawn)


@HOOKS.register_module()
class AskFirstHook(Hook):
    """Train the first epochs on questions with some answers only, then on all questions.

    For data sets with several questions an image. A small image encoder that starts at
    random finds shapes when it is asked to name them; among questions that are mostly to be
    answered with yes or no it does not.

    Args:
        answers (Sequence[str]): The first epochs have questions with one of these answers.
            Of an image without such a question they may have any.
        epochs (int): How many epochs.
    """

    def __init__(self, answers: Sequence[str], epochs: int) -> None:
        self.answers, self.epochs = frozenset(answers), epochs

    def before_train_epoch(self, runner: Runner) -> None:
        """Set the answers of the epoch's questions in the data set.

        Raises:
            UserError: The data set has one question a sample, or its workers outlive an epoch
                and would not see the change.
        """
        loader = runner.train_dataloader
        if getattr(loader.dataset, 'questions_per_image', None) is None:
            raise UserError('AskFirstHook needs train_dataloader.dataset.questions_per_image.')
        if loader.num_workers:
            field = 'train_dataloader.persistent_workers with AskFirstHook'
            check(field, loader.persistent_workers, choices=(False,))
        loader.dataset.asked = self.answers if runner.epoch < self.epochs else None
