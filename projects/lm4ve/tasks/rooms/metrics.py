"""Exact match of answers, in all and by type of question, as SQA3D's paper reports it."""

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
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
    words = question.lower().split()
    if not words:
        return 'other'
    first = words[0]
    if first == 'are':
        return 'is'
    return first if first in TYPES else 'other'


@METRICS.register_module()
class SQA3DAccuracy(BaseMetric):
    """Exact match at 1 and at 10, in all and by type of question.

    Args:
        result_file (str, optional): Also write what was answered to this JSON file: a
            list with ``question_id``, ``question_type``, ``answer``, ``top_answers``
            (ten, the best one first) and ``gt_answers``.
        **kwargs: Passed to MMEngine's ``BaseMetric``.

    Data samples have ``pred_answer``, ``pred_top_answers``, ``gt_answers``, and
    ``question_type`` or ``text``. Answers outside of the vocabulary count as wrong.

    Results, in percent: ``sqa3d/em@1`` and ``sqa3d/em@10``; ``sqa3d/em@1/what`` and so
    on for the types of questions that occur.

    Raises:
        UserError: No question has a right answer, and no file is to be written; two
            samples have one question id.
    """

    default_prefix = 'sqa3d'

    def __init__(self, result_file: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.result_file = result_file

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the answers of a batch."""
        for sample in data_samples:
            kind = sample.get('question_type')
            if not kind:
                kind = question_type(sample['text'][-1])
            answer = sample['pred_answer']
            # Of equal scores pred_answer is the first, and topk may put another one
            # first.
            ranked = dict.fromkeys([answer, *sample['pred_top_answers']])
            result = dict(
                question_id=sample.get('question_id'),
                question_type=kind,
                answer=answer,
                top_answers=list(ranked)[: max(KS)],
                gt_answers=list(sample.get('gt_answers') or ()),
            )
            self.results.append(result)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Count hits, letter by letter, and write the file."""
        ids: Counter = Counter()
        for result in results:
            if result['question_id'] is not None:
                ids[result['question_id']] += 1
        check('samples of one question id', max(ids.values(), default=1), most=1)
        if self.result_file is not None:
            write_json(results, self.result_file)
        known = [r for r in results if r['gt_answers']]
        if not known and self.result_file is None:
            raise UserError(
                'No question has an answer. Fix: set test_evaluator.result_file.'
            )
        unknown = len(results) - len(known)
        if unknown:
            print_log(
                f'{unknown} of {len(results)} questions have no right answer and do not count.',
                logger='current',
                level=logging.WARNING,
            )
        hits: dict[str, list[bool]] = defaultdict(list)
        for result in known:
            right = set(result['gt_answers'])
            for k in KS:
                hit = not right.isdisjoint(result['top_answers'][:k])
                hits[f'em@{k}'].append(hit)
                hits[f'em@{k}/{result["question_type"]}'].append(hit)
        return {name: 100 * float(np.mean(found)) for name, found in hits.items()}
