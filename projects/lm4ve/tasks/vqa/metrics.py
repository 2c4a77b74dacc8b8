"""Accuracy of answers and recall of retrieval, as their official evaluations compute them.

mmpretrain's ``VQAAcc`` and ``RetrievalRecall`` compute others: the first has neither
the leave-one-out mean nor answer types, the second counts an image once per caption
found. Pure functions first, MMEngine's metrics after them.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from torch import Tensor

from lm4ve.errors import check, require
from lm4ve.files import write_text
from lm4ve.registry import METRICS
from lm4ve.tasks.vqa.datasets.answers import clean_answer, normalize_answer

#: The official answer types, and what the results call them.
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
    predicted, given = clean_answer(prediction), [clean_answer(a) for a in answers]
    total = len(given)
    if total == 1 or len(set(given)) > 1:
        predicted, given = (
            normalize_answer(predicted),
            [normalize_answer(a) for a in given],
        )
    agreed = given.count(predicted)
    if total == 1:
        return float(agreed)
    needed = min(_AGREE, total - 1)
    without, with_all = min(1.0, max(0, agreed - 1) / needed), min(1.0, agreed / needed)
    return (agreed * without + (total - agreed) * with_all) / total


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
    scores, owner = torch.as_tensor(scores), torch.as_tensor(image_of_caption).long()
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
    return {
        f'{name}/R@{k}': 100 * float((ranks < k).double().mean())
        for name, ranks in (('image_to_text', by_image), ('text_to_image', by_caption))
        for k in ks
    }


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
            answers = sample.get('gt_answers')
            accuracy = vqa_accuracy(sample['pred_answer'], answers) if answers else None
            kept = (sample.get('question_id'), sample['pred_answer'], accuracy)
            self.results.append((*kept, sample.get('answer_type')))

    def compute_metrics(self, results: list[tuple]) -> dict[str, float]:
        if self.result_file is not None:
            # In the form of VQA's evaluation server, one for each question.
            ids = {r[0] for r in results} - {None}
            require(
                len(ids) == len(results),
                f'{len(results)} results have {len(ids)} different values of question_id. Fix: a '
                'question_id for each, or no result_file.',
            )
            answers = [dict(question_id=r[0], answer=r[1]) for r in results]
            write_text(json.dumps(answers), self.result_file)
        by_type = defaultdict(list)
        for _, _, accuracy, answer_type in results:
            if accuracy is not None:
                by_type['overall'].append(accuracy)
                if answer_type in ANSWER_TYPES:
                    by_type[ANSWER_TYPES[answer_type]].append(accuracy)
        scored = len(by_type['overall'])
        if self.result_file is None:
            check(
                'VQAAccuracy without result_file: questions with an answer',
                scored,
                least=1,
            )
        if scored < len(results):
            text = f'VQAAccuracy: {scored} of {len(results)} questions have an answer and count.'
            print_log(text, logger='current', level=logging.WARNING)
        order = ('overall', *ANSWER_TYPES.values())
        return {k: 100 * float(np.mean(by_type[k])) for k in order if by_type[k]}


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
            found = recall_at(sample['scores'], sample['image_of_caption'], self.ks)
            self.results.append(dict(found, mean=float(np.mean(list(found.values())))))

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        return {k: float(np.mean([r[k] for r in results])) for k in results[0]}
