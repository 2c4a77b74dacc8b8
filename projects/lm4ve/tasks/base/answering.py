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
    #: What results call the file.
    source = ''
    #: The texts of a sample, in their order.
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
        """Answer one question for each entry of the rows.

        Args:
            rows (Mapping[str, list]): :attr:`source`, :attr:`texts`, and what else
                :meth:`draw` needs. A row of one entry is repeated. The pipeline takes a
                dict of one entry of each row, with ``text`` (list[str]) and its number
                ``sample_idx``.
            return_datasamples (bool): Return data samples instead of dicts.
            batch_size (int): Questions per batch.
            **kwargs: ``topk``, ``show``, ``wait_time`` and ``out_dir``.

        Returns:
            list[dict]: The file, the texts, ``pred_answer``, ``pred_score`` and
            ``answers``.

        Raises:
            UserError: The numbers of entries differ.
        """
        count = max(map(len, rows.values()))
        for name, row in rows.items():
            check(f'the number of entries of {name}', len(row), choices=(1, count))
        columns = [row * count if len(row) == 1 else row for row in rows.values()]
        inputs = [
            dict(zip(rows, entry, strict=True)) for entry in zip(*columns, strict=True)
        ]
        for number, entry in enumerate(inputs):
            entry.update(sample_idx=number, text=[entry[k] for k in self.texts])
        found = super().__call__(inputs, return_datasamples, batch_size, **kwargs)
        if return_datasamples:
            return found
        names = [name_of(entry[self.source]) for entry in inputs]
        return [{self.source: name, **f} for name, f in zip(names, found, strict=True)]

    def visualize(
        self,
        inputs: list[dict],
        preds: list,
        show: bool = False,
        wait_time: float = 0.0,
        out_dir: str | Path | None = None,
    ) -> list[np.ndarray]:
        """Draw the entries, if they are shown or written."""
        if not show and out_dir is None:
            return []
        drawn = [
            self.draw(entry, sample)
            for entry, sample in zip(inputs, preds, strict=True)
        ]
        names = [file_name(i, entry[self.source]) for i, entry in enumerate(inputs)]
        return self._present(drawn, names, show, wait_time, out_dir)

    def postprocess(
        self,
        preds: list,
        visualization: list[np.ndarray],
        return_datasamples: bool = False,
        topk: int = SHOWN,
    ) -> list:
        """Convert predictions to plain data."""
        if return_datasamples:
            return preds
        found = []
        for s in preds:
            ranking = best(s.pred_scores, self.model.head.vocabulary, topk)
            fields = dict(
                zip(self.texts, s.text, strict=True),
                pred_answer=s.pred_answer,
                pred_score=float(s.pred_scores.max()),
                answers=[dict(answer=answer, score=score) for answer, score in ranking],
            )
            pose = dict(pred_pose=s.pred_pose.tolist()) if 'pred_pose' in s else {}
            found.append(fields | pose)
        return found


def name_of(source: str | Path | np.ndarray) -> str:
    """Return the path of a file, or 'array'."""
    return 'array' if isinstance(source, np.ndarray) else str(source)
