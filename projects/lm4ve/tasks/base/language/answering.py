"""Answers out of a vocabulary: the base of heads that choose one, and of their inferencers.

A fingerprint of the vocabulary is a part of every checkpoint: outputs of a head mean
nothing, or worse, with other answers.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lm4ve.errors import CheckpointError, check
from lm4ve.tasks.base.inferencer import TaskInferencer
from lm4ve.tasks.base.language.rankings import SHOWN, best
from lm4ve.tasks.base.language.words import file_name

FINGERPRINT = 'vocabulary_fingerprint'
TARGETS = ('soft', 'hard')
#: How many of VQA's ten annotators gave an answer -> its score (METER, as the code
#: before it). From the last entry on it is the last entry's.
SCORES = (0.0, 0.3, 0.6, 0.9, 1.0)


def in_fp32(module: nn.Module, features: Tensor) -> Tensor:
    """Run a module outside of autocast, in its own precision, and return fp32."""
    dtype = next(module.parameters()).dtype
    with torch.autocast(features.device.type, enabled=False):
        return module(features.to(dtype)).float()


def vocabulary_digest(answers: Sequence[str]) -> Tensor:
    """Return a fingerprint of answers in their order, uint8 ``[32]``."""
    digest = hashlib.sha256('\n'.join(answers).encode()).digest()
    return torch.tensor(list(digest), dtype=torch.uint8)


class VocabularyHead(nn.Module):
    """A head with ``layers``, the last of which (number 3) gives one logit an answer."""

    #: The config's field that names the answers, for messages.
    vocabulary_field = 'model.head.vocabulary'

    def set_vocabulary(self, answers: Sequence[str]) -> None:
        """Set the answers, in the order of the logits."""
        self.vocabulary = list(answers)
        self.index = {a: i for i, a in enumerate(self.vocabulary)}
        self.register_buffer(FINGERPRINT, vocabulary_digest(self.vocabulary))

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *others: object
    ) -> None:
        """Refuse a checkpoint of another vocabulary, also where loading is not strict.

        Raises:
            CheckpointError: The answers differ.
        """
        stored = state_dict.get(prefix + FINGERPRINT)
        bias = state_dict.get(f'{prefix}layers.3.bias')
        mine = getattr(self, FINGERPRINT)
        same = stored is None or (
            stored.dtype == mine.dtype and torch.equal(stored.cpu(), mine.cpu())
        )
        count = len(self.vocabulary)
        if not same or (bias is not None and bias.shape != (count,)):
            raise CheckpointError(
                'The checkpoint was trained with another vocabulary than the '
                f'{count} answers of {self.vocabulary_field}. Its outputs would mean other answers.'
            )
        super()._load_from_state_dict(state_dict, prefix, *others)


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
