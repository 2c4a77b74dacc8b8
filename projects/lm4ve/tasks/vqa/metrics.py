"""Accuracy of answers and recall of retrieval, as their official evaluations compute them.

mmpretrain's ``VQAAcc`` and ``RetrievalRecall`` compute others: the first has neither
the leave-one-out mean nor answer types, the second counts an image once per caption
found. Pure functions first, MMEngine's metrics after them.
"""

import json
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from torch import Tensor

from lm4ve.errors import check, require
from lm4ve.files import write_text
from lm4ve.registry import METRICS
from lm4ve.tasks.vqa.datasets.answers import clean_answer, normalize_answer

#: The official answer types -> the names of their metrics.
ANSWER_TYPES = {'yes/no': 'yes-no', 'number': 'number', 'other': 'other'}
#: How many other annotators have to agree.
_AGREE = 3


def vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Return VQA's accuracy of one answer: the official one, for ten annotators.

    The mean over all sets that leave one annotator out of ``min(1, n / 3)``, where n of
    the others gave the predicted answer. Both sides are normalized
    (:func:`lm4ve.tasks.vqa.datasets.answers.normalize_answer`) only if the
    annotators' answers differ.

    For fewer annotators there is no official definition. Here with two or three, all of
    the others have to agree instead of 3 of them; with one, the accuracy is 1 or 0 and
    both sides are normalized.

    Args:
        prediction (str): The predicted answer.
        answers (Sequence[str]): The annotators' answers, at least one.

    Returns:
        float: In [0, 1].

    Raises:
        ValueError: There is no answer.
    """
    check('the answers of annotators', answers, kind=(list, tuple))
    check('the number of answers of annotators', len(answers), least=1)
    predicted = clean_answer(prediction)
    given = [clean_answer(answer) for answer in answers]
    total = len(given)
    if total == 1 or len(set(given)) > 1:
        predicted = normalize_answer(predicted)
        given = [normalize_answer(answer) for answer in given]
    agreed = given.count(predicted)
    if total == 1:
        return float(agreed)
    needed = min(_AGREE, total - 1)
    # Where one of those who agree is left out, and where one of the others is.
    without_one = min(1.0, max(0, agreed - 1) / needed)
    with_all = min(1.0, agreed / needed)
    return (agreed * without_one + (total - agreed) * with_all) / total


def recall_at(
    scores: Tensor | np.ndarray,
    image_of_caption: Sequence[int] | Tensor | np.ndarray,
    ks: Sequence[int] = (1, 5, 10),
) -> dict[str, float]:
    """Return the recall of images by captions and of captions by images.

    Args:
        scores (Tensor | np.ndarray): ``[I, T]``, of every image and caption; higher
            is better. Of equal scores the one that comes first is ranked first.
        image_of_caption (Sequence[int]): ``[T]``, the image that each caption
            describes. An image may have several captions, or none.
        ks (Sequence[int]): How many of the best ranked ones are looked at.

    Returns:
        dict[str, float]: ``text_to_image/R@k``, the share of captions whose image is
        among the k best, and ``image_to_text/R@k``, the share of images (of those with
        a caption) with any of their captions among the k best, both in percent.

    Raises:
        UserError: A score is not a number, or an index is negative.
    """
    scores = torch.as_tensor(scores)
    owner = torch.as_tensor(image_of_caption).long()
    images, captions = scores.shape
    # Either would give a number that is wrong.
    check('scores that are no number', int(scores.isnan().sum()), most=0)
    check('the first index of an image', int(owner.min()), least=0)
    columns = torch.arange(captions, device=scores.device)
    by_caption = _rank(scores.T, columns, owner)
    # Of an image's captions the one that is ranked best counts.
    best = torch.full((images,), captions, device=scores.device)
    best = best.scatter_reduce(0, owner, _rank(scores, owner, columns), 'amin')
    by_image = best[owner.bincount(minlength=images) > 0]
    recalls = {}
    for k in ks:
        recalls[f'image_to_text/R@{k}'] = _percent(by_image < k)
    for k in ks:
        recalls[f'text_to_image/R@{k}'] = _percent(by_caption < k)
    return recalls


def _percent(hits: Tensor) -> float:
    return 100 * float(hits.double().mean())


def _rank(scores: Tensor, rows: Tensor, columns: Tensor, chunk: int = 1024) -> Tensor:
    """Return how many entries of ``scores[row]`` come before ``scores[row, column]``, ``[P]``."""
    ranks = []
    places = torch.arange(scores.shape[1], device=scores.device)
    for row, column in zip(rows.split(chunk), columns.split(chunk), strict=True):
        part = scores[row]
        value = part.gather(1, column[:, None])
        earlier = (part == value) & (places < column[:, None])
        ranks.append(((part > value) | earlier).sum(1))
    return torch.cat(ranks)


class ScoredAnswer(NamedTuple):
    """What :class:`VQAAccuracy` keeps of a question.

    Attributes:
        question_id (int | str | None): None where it is not known.
        predicted (str): The predicted answer.
        accuracy (float | None): From 0 to 1; None without a right answer.
        answer_type (str | None): A key of :data:`ANSWER_TYPES`, or another one.
    """

    question_id: int | str | None
    predicted: str
    accuracy: float | None
    answer_type: str | None


@METRICS.register_module()
class VQAAccuracy(BaseMetric):
    """Mean of :func:`vqa_accuracy` over questions, and the file for EvalAI.

    Args:
        result_file (str, optional): Also write the answers to this JSON file, a list
            of ``{"question_id": ..., "answer": ...}``, as the server takes it.
        **kwargs: Passed to MMEngine's ``BaseMetric``.

    Data samples have ``question_id``, ``pred_answer``, and where they are known
    ``gt_answers`` and ``answer_type``.

    Results, in percent: ``vqa/overall``, and ``vqa/yes-no``, ``vqa/number`` and
    ``vqa/other`` for those types of answers that occur. Nothing but the file if no
    question has an answer: for test sets.

    Raises:
        UserError: No question has an answer and no file is to be written; two samples
            have one question id.
    """

    default_prefix = 'vqa'

    def __init__(self, result_file: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.result_file = result_file

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Score a batch; keep a few values a question."""
        for sample in data_samples:
            predicted = sample['pred_answer']
            answers = sample.get('gt_answers')
            accuracy = vqa_accuracy(predicted, answers) if answers else None
            scored = ScoredAnswer(
                sample.get('question_id'),
                predicted,
                accuracy,
                sample.get('answer_type'),
            )
            self.results.append(scored)

    def compute_metrics(self, results: list[tuple]) -> dict[str, float]:
        """Write the file for EvalAI if there is one, and average over questions.

        Questions without a right answer do not count. A type without questions has no
        metric.

        Raises:
            UserError: No question counts, and no file is to be written.
        """
        # Gathered from other processes they are plain tuples.
        answers = [ScoredAnswer(*result) for result in results]
        if self.result_file is not None:
            write_answers(answers, self.result_file)
        by_type: dict[str, list[float]] = {'overall': []}
        for name in ANSWER_TYPES.values():
            by_type[name] = []
        for answer in answers:
            if answer.accuracy is None:
                continue
            by_type['overall'].append(answer.accuracy)
            if answer.answer_type in ANSWER_TYPES:
                by_type[ANSWER_TYPES[answer.answer_type]].append(answer.accuracy)
        num_scored = len(by_type['overall'])
        if self.result_file is None:
            check(
                'VQAAccuracy without result_file: questions with an answer',
                num_scored,
                least=1,
            )
        if num_scored < len(answers):
            print_log(
                f'VQAAccuracy: {num_scored} of {len(answers)} questions have an answer and count.',
                logger='current',
                level=logging.WARNING,
            )
        metrics = {}
        for name, accuracies in by_type.items():
            if accuracies:
                metrics[name] = 100 * float(np.mean(accuracies))
        return metrics


def write_answers(answers: Sequence[ScoredAnswer], path: str) -> None:
    """Write answers in the form of VQA's evaluation server, one for each question.

    Raises:
        UserError: Two answers have one question id, or one has none.
    """
    ids = {answer.question_id for answer in answers} - {None}
    require(
        len(ids) == len(answers),
        f'{len(answers)} results have {len(ids)} different values of question_id. Fix: a '
        'question_id for each, or no result_file.',
    )
    rows = []
    for answer in answers:
        rows.append(dict(question_id=answer.question_id, answer=answer.predicted))
    write_text(json.dumps(rows), path)


@METRICS.register_module()
class RetrievalRecall(BaseMetric):
    """:func:`recall_at` of the scores of all pairs, from the loops of :mod:`.loops`.

    Args:
        ks (Sequence[int]): How many of the best ranked ones are looked at.
        **kwargs: Passed to MMEngine's ``BaseMetric``.

    Results, in percent: ``retrieval/image_to_text/R@k``,
    ``retrieval/text_to_image/R@k`` and ``retrieval/mean``, their mean.
    """

    default_prefix = 'retrieval'

    def __init__(self, ks: Sequence[int] = (1, 5, 10), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ks = tuple(ks)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Rank; keep a few numbers, since the scores are too many to send between ranks."""
        for sample in data_samples:
            recalls = recall_at(sample['scores'], sample['image_of_caption'], self.ks)
            mean = float(np.mean(list(recalls.values())))
            self.results.append(recalls | dict(mean=mean))

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        metrics = {}
        for name in results[0]:
            metrics[name] = float(np.mean([result[name] for result in results]))
        return metrics
