"""Exact match of answers, in all and by type of question, as SQA3D's paper reports it.

Pure functions first, MMEngine's metric after them.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from lm4ve.errors import UserError, check
from lm4ve.files import write_json
from lm4ve.registry import METRICS

#: Types of questions by their first word; all others are 'other' (SQA3D, table 4).
TYPES = ('what', 'is', 'how', 'can', 'which', 'other')
#: How many of the best answers are looked at.
KS = (1, 10)


def question_type(question: str) -> str:
    """Return one of :data:`TYPES`: the first word in lower case, 'are' counts as 'is'."""
    first = [*question.lower().split(), ''][0]
    return 'is' if first == 'are' else first if first in TYPES else 'other'


def exact_match(ranked: Sequence[str], answers: Sequence[str], k: int = 1) -> bool:
    """Return whether one of the k best answers is a right one, letter by letter.

    Args:
        ranked (Sequence[str]): Answers of the model, the best one first.
        answers (Sequence[str]): Right answers; SQA3D has one a question.
        k (int): How many of the ranked ones count, at least 1.

    Raises:
        UserError: A string in place of a list, whose letters would be compared.
    """
    for name, value in dict(ranked=ranked, answers=answers).items():
        check(name, value, kind=(list, tuple))
    return not set(answers).isdisjoint(ranked[:k])


def exact_match_by_type(
    hits: Sequence[Mapping[int, bool]], types: Sequence[str]
) -> dict[str, float]:
    """Return shares of questions in percent.

    Args:
        hits (Sequence[Mapping[int, bool]]): For each question whether it is answered, by k.
        types (Sequence[str]): Its type, of :data:`TYPES`.

    Returns:
        dict[str, float]: ``em@<k>`` over all questions, and ``em@<k>/<type>`` for each type
        that occurs.
    """
    groups = defaultdict(list)
    for found, kind in zip(hits, types, strict=True):
        for k, hit in found.items():
            groups[f'em@{k}'].append(hit)
            groups[f'em@{k}/{kind}'].append(hit)
    return {name: 100 * float(np.mean(found)) for name, found in groups.items()}


@METRICS.register_module()
class SQA3DAccuracy(BaseMetric):
    """Exact match at 1 and at 10, in all and by type of question.

    Args:
        result_file (str, optional): Also write what was answered to this JSON file: a list
            with ``question_id``, ``question_type``, ``answer``, ``top_answers`` (ten, the
            best one first) and ``gt_answers``.
        collect_device, prefix: Passed to MMEngine's ``BaseMetric``.

    Data samples have ``pred_answer``, ``pred_top_answers``, ``gt_answers``, and
    ``question_type`` or ``text``. Answers outside of the vocabulary count as wrong.

    Results, in percent: ``sqa3d/em@1`` and ``sqa3d/em@10``; ``sqa3d/em@1/what`` and so on for
    the types of questions that occur.

    Raises:
        UserError: No question has a right answer, and no file is to be written; two samples
            have one question id.
    """

    default_prefix = 'sqa3d'

    def __init__(
        self, result_file: str | None = None, collect_device: str = 'cpu', prefix: str | None = None
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.result_file = result_file

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the answers of a batch."""
        for sample in data_samples:
            kind = sample.get('question_type') or question_type(sample['text'][-1])
            # Of equal scores pred_answer is the first, and topk may put another one first.
            ranked = dict.fromkeys([sample['pred_answer'], *sample['pred_top_answers']])
            self.results.append(
                dict(
                    question_id=sample.get('question_id'),
                    question_type=kind,
                    answer=sample['pred_answer'],
                    top_answers=list(ranked)[: max(KS)],
                    gt_answers=list(sample.get('gt_answers') or ()),
                )
            )

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Count hits, and write the file."""
        ids = Counter(r['question_id'] for r in results if r['question_id'] is not None)
        check('samples of one question id', max(ids.values(), default=1), most=1)
        if self.result_file is not None:
            write_json(results, self.result_file)
        known = [r for r in results if r['gt_answers']]
        if not known and self.result_file is None:
            raise UserError('No question has an answer. Fix: set test_evaluator.result_file.')
        if len(known) < len(results):
            text = f'{len(results) - len(known)} of {len(results)} questions have no right answer'
            print_log(f'{text} and do not count.', logger='current', level=logging.WARNING)
        hits = [{k: exact_match(r['top_answers'], r['gt_answers'], k) for k in KS} for r in known]
        return exact_match_by_type(hits, [r['question_type'] for r in known])
