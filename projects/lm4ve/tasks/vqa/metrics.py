"""Accuracy of answers and recall of retrieval, as their official evaluations compute them.

mmpretrain's ``VQAAcc`` and ``RetrievalRecall`` are others: the first knows neither the
leave-one-out mean nor answer types, the second counts an image once per caption found.
Pure functions first, MMEngine's metrics after them.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from torch import Tensor

from lm4ve.errors import UserError, listing
from lm4ve.files import write_text
from lm4ve.registry import METRICS
from lm4ve.tasks.vqa.answers import clean_answer, normalize_answer

#: The official answer types, and what the results call them.
ANSWER_TYPES = {'yes/no': 'yes-no', 'number': 'number', 'other': 'other'}
#: How many other annotators have to agree.
_AGREE = 3


def vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Return VQA's accuracy of one answer: the official one, for ten annotators.

    The mean over all sets that leave one annotator out of ``min(1, n / 3)``, where n of
    the others gave the predicted answer. Both sides are normalized
    (:func:`lm4ve.tasks.vqa.answers.normalize_answer`) only if the
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
    if isinstance(answers, str) or not answers:
        raise ValueError(f'answers={answers!r} must be a list of at least one string')
    predicted, given = clean_answer(prediction), [clean_answer(a) for a in answers]
    total = len(given)
    if total == 1 or len(set(given)) > 1:
        predicted, given = normalize_answer(predicted), [normalize_answer(a) for a in given]
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
        among the k best, and ``image_to_text/R@k``, the share of images (of those with a
        caption) with any of their captions among the k best, both in percent.

    Raises:
        ValueError: Shapes do not fit, an index is out of range, a score is NaN, or k
            is not positive.
    """
    scores, owner = torch.as_tensor(scores), torch.as_tensor(image_of_caption).long()
    if scores.ndim != 2 or owner.shape != scores.shape[1:] or not scores.numel():
        raise ValueError(
            f'scores {list(scores.shape)} and image_of_caption {list(owner.shape)} do not fit: '
            'expected [I, T] and [T], neither of them empty'
        )
    images, captions = scores.shape
    if owner.min() < 0 or owner.max() >= images:
        raise ValueError(f'image_of_caption must lie in 0 to {images - 1}')
    if not ks or min(ks) < 1:
        raise ValueError(f'ks={ks} must be positive numbers')
    if scores.isnan().any():
        raise ValueError('a score is not a number')
    by_caption = _rank(scores.T, owner)
    # Of an image's captions the best one counts, the first of equal ones.
    columns = torch.arange(captions, device=scores.device)
    values = scores[owner, columns]
    best = scores.new_full((images,), -torch.inf).scatter_reduce(0, owner, values, 'amax')
    equal = torch.where(values == best[owner], columns, captions)
    own = torch.full_like(best, captions, dtype=torch.long).scatter_reduce(0, owner, equal, 'amin')
    has_caption = own < captions
    by_image = _rank(scores[has_caption], own[has_caption])
    return {
        f'{name}/R@{k}': 100 * float((ranks < k).double().mean())
        for name, ranks in (('image_to_text', by_image), ('text_to_image', by_caption))
        for k in ks
    }


def _rank(scores: Tensor, wanted: Tensor, rows: int = 1024) -> Tensor:
    """Return how many entries of each row come before the wanted one, ``[rows]``."""
    ranks = []
    places = torch.arange(scores.shape[1], device=scores.device)
    for part, index in zip(scores.split(rows), wanted.split(rows), strict=True):
        value = part.gather(1, index[:, None])
        earlier = (part == value) & (places < index[:, None])
        ranks.append(((part > value) | earlier).sum(1))
    return torch.cat(ranks)


@METRICS.register_module()
class VQAAccuracy(BaseMetric):
    """Mean of :func:`vqa_accuracy` over questions, and the file for EvalAI.

    Args:
        result_file (str, optional): Also write the answers to this JSON file, a list
            of ``{"question_id": ..., "answer": ...}``, as the server takes it.
        collect_device, prefix: Passed to MMEngine's ``BaseMetric``.

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

    def __init__(
        self, result_file: str | None = None, collect_device: str = 'cpu', prefix: str | None = None
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if result_file is not None and not result_file.endswith('.json'):
            raise UserError(
                f"VQAAccuracy.result_file='{result_file}' must end in '.json': EvalAI takes JSON."
            )
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
            write_results(self.result_file, [r[:2] for r in results])
        by_type = defaultdict(list)
        for _, _, accuracy, answer_type in results:
            if accuracy is not None:
                by_type['overall'].append(accuracy)
                if answer_type in ANSWER_TYPES:
                    by_type[ANSWER_TYPES[answer_type]].append(accuracy)
        scored = len(by_type['overall'])
        if scored == 0:
            if self.result_file is not None:
                return {}
            raise UserError(
                f'None of the {len(results)} questions has an answer (a test set?). Fix: evaluate '
                'on the validation set, or set test_evaluator.result_file to the JSON file that '
                'is to be uploaded.'
            )
        if scored < len(results):
            print_log(
                f'VQAAccuracy: {len(results) - scored} of {len(results)} questions have no answer '
                'and do not count.',
                logger='current',
                level=30,
            )
        order = ('overall', *ANSWER_TYPES.values())
        return {k: 100 * float(np.mean(by_type[k])) for k in order if by_type[k]}


def write_results(path: str, answers: Sequence[tuple[Any, str]]) -> None:
    """Write the answers to a test set in the form of VQA's evaluation server.

    Args:
        path (str): The JSON file.
        answers (Sequence[tuple]): Question id and answer, one for each question.

    Raises:
        UserError: A question has no id, or an id occurs twice.
    """
    count: dict[Any, int] = defaultdict(int)
    for question_id, _ in answers:
        count[question_id] += 1
    wrong = [repr(q) for q, n in count.items() if q is None or n > 1]
    if wrong:
        raise UserError(
            f"result_file='{path}': the server needs one answer a question, and these question "
            f'ids are missing or occur more than once: {listing(wrong)}. Fix: test on a data set '
            "whose questions have unique ids, with 'question_id' in the meta_keys of "
            'PackVisionLanguage.'
        )
    write_text(json.dumps([dict(question_id=q, answer=a) for q, a in answers]), path)


@METRICS.register_module()
class RetrievalRecall(BaseMetric):
    """:func:`recall_at` of the scores of all pairs, from the loops of :mod:`.loops`.

    Args:
        ks (Sequence[int]): How many of the best ranked ones are looked at.
        collect_device, prefix: Passed to MMEngine's ``BaseMetric``.

    Results, in percent: ``retrieval/image_to_text/R@k``, ``retrieval/text_to_image/R@k``
    and ``retrieval/mean``, their mean. After a comparison of coarse-to-fine scores with
    the exact ones also ``retrieval/coarse_loss/...``, the exact recall minus the other.

    Raises:
        UserError: The samples are no scores of all pairs; a score is not a number.
    """

    default_prefix = 'retrieval'

    def __init__(
        self, ks: Sequence[int] = (1, 5, 10), collect_device: str = 'cpu', prefix: str | None = None
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if isinstance(ks, int) or not ks or min(ks) < 1:
            raise UserError(f'RetrievalRecall.ks={ks!r} must be a list of positive numbers.')
        self.ks = tuple(ks)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Rank; keep a few numbers: the scores are too many to be sent between ranks."""
        for sample in data_samples:
            if 'scores' not in sample:
                raise UserError(
                    "RetrievalRecall needs the scores of all pairs. Fix: val_cfg=dict(type='lm4ve."
                    "RetrievalValLoop') and test_cfg=dict(type='lm4ve.RetrievalTestLoop')."
                )
            result = self._recall(sample['scores'], sample['image_of_caption'])
            if 'exact_scores' in sample:
                exact = self._recall(sample['exact_scores'], sample['image_of_caption'])
                result |= {f'coarse_loss/{k}': exact[k] - result[k] for k in exact}
            self.results.append(result)

    def _recall(self, scores: Tensor, image_of_caption: Tensor) -> dict[str, float]:
        try:
            found = recall_at(scores, image_of_caption, self.ks)
        except ValueError as e:
            raise UserError(
                f'The retrieval scores cannot be ranked: {e}. Fix: see in the log whether the '
                'training diverged.'
            ) from e
        return dict(found, mean=float(np.mean(list(found.values()))))

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        return {k: float(np.mean([r[k] for r in results])) for k in results[0]}
