"""The base of inferencers that answer questions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lm4ve.draw.file_names import file_name
from lm4ve.draw.rankings import SHOWN, best
from lm4ve.errors import check
from lm4ve.tasks.base.inference import TaskInferencer


class AnsweringInferencer(TaskInferencer):
    """Answers questions about files or arrays. A task reads and draws them."""

    postprocess_kwargs = {'topk'}
    #: The name of the row of :meth:`ask` with the files or arrays, such as 'image'; results
    #: have it, too.
    source = ''
    #: The names of the rows of :meth:`ask` with the texts of a sample, in their order.
    texts: tuple[str, ...] = ('question',)

    def draw(self, entry: dict[str, Any], sample: Any) -> np.ndarray:
        """Draw an entry of :meth:`ask` with its best answers, uint8 ``[H, W, 3]``, RGB."""
        raise NotImplementedError

    def ask(
        self,
        rows: Mapping[str, list],
        return_datasamples: bool = False,
        batch_size: int = 1,
        **kwargs: Any,
    ) -> list:
        """Answer several questions, each about one file or array.

        Args:
            rows (Mapping[str, list]): Name of a row -> its values, one for each question,
                or a single one for all. There is a row of files or arrays
                (:attr:`source`), one for each name in :attr:`texts`, and what else
                :meth:`draw` needs.
            return_datasamples (bool): Return data samples instead of dicts.
            batch_size (int): Questions per batch.
            **kwargs: ``topk``, ``show``, ``wait_time`` and ``out_dir``.

        Returns:
            list: For each question the model's data sample, or a dict with the path of
            the file (under :attr:`source`), the texts, ``pred_answer``, ``pred_score``
            and ``answers``.

        Raises:
            UserError: A row has neither one value nor as many as the longest row.
        """
        entries = self._entries(rows)
        results = super().__call__(entries, return_datasamples, batch_size, **kwargs)
        if return_datasamples:
            return results
        answered = []
        for entry, result in zip(entries, results, strict=True):
            answered.append({self.source: name_of(entry[self.source]), **result})
        return answered

    def _entries(self, rows: Mapping[str, list]) -> list[dict[str, Any]]:
        """Return the input of the pipeline for each question.

        Args:
            rows (Mapping[str, list]): As of :meth:`ask`.

        Returns:
            list[dict]: One value of each row by the row's name, the texts once more as a
            list ``text``, and the question's number ``sample_idx``.
        """
        count = max(len(row) for row in rows.values())
        for name, row in rows.items():
            check(f'the number of entries of {name}', len(row), choices=(1, count))
        entries = []
        for number in range(count):
            entry: dict[str, Any] = {}
            for name, row in rows.items():
                if len(row) == 1:
                    entry[name] = row[0]
                else:
                    entry[name] = row[number]
            entry['sample_idx'] = number
            entry['text'] = [entry[text_name] for text_name in self.texts]
            entries.append(entry)
        return entries

    def visualize(
        self,
        inputs: list[dict],
        preds: list,
        show: bool = False,
        wait_time: float = 0.0,
        out_dir: str | Path | None = None,
    ) -> list[np.ndarray]:
        """Draw the questions with their answers, if they are shown or written.

        MMEngine's ``__call__`` hands over the entries and the predictions. Nothing is
        drawn, and the list is empty, where there is neither a window nor a folder.
        """
        if not show and out_dir is None:
            return []
        drawn = []
        names = []
        for number, (entry, sample) in enumerate(zip(inputs, preds, strict=True)):
            drawn.append(self.draw(entry, sample))
            names.append(file_name(number, entry[self.source]))
        return self._present(drawn, names, show, wait_time, out_dir)

    def postprocess(
        self,
        preds: list,
        visualization: list[np.ndarray],
        return_datasamples: bool = False,
        topk: int = SHOWN,
    ) -> list:
        """Convert predictions to plain data; ``visualization`` is not used.

        Returns:
            list: For each question the data sample as it is, or a dict with the texts,
            ``pred_answer``, ``pred_score``, the ``topk`` best ``answers`` with their
            scores and, in a room, ``pred_pose``.
        """
        if return_datasamples:
            return preds
        results = []
        for sample in preds:
            result = dict(zip(self.texts, sample.text, strict=True))
            result['pred_answer'] = sample.pred_answer
            result['pred_score'] = float(sample.pred_scores.max())
            ranking = best(sample.pred_scores, self.model.head.vocabulary, topk)
            result['answers'] = [
                dict(answer=answer, score=score) for answer, score in ranking
            ]
            if 'pred_pose' in sample:
                result['pred_pose'] = sample.pred_pose.tolist()
            results.append(result)
        return results


def name_of(source: str | Path | np.ndarray) -> str:
    """Return the path of a file, or 'array'."""
    if isinstance(source, np.ndarray):
        return 'array'
    return str(source)
