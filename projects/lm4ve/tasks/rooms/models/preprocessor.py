"""``SQA3DPreprocessor``: collates clouds, objects and texts into a batch for the model."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lm4ve.errors import UserError, check
from lm4ve.registry import MODELS
from lm4ve.tasks.rooms.models.language import (
    UNKNOWN,
    padded,
    read_word_vectors,
    split_words,
)
from lm4ve.text.preprocessor import TextPreprocessor

TEXTS = ('situation', 'question')


@MODELS.register_module()
class SQA3DPreprocessor(TextPreprocessor):
    """Collates scenes with questions into tensors on the model's device.

    Args:
        tokenizer (str, optional): The text encoder's: a local folder,
            ``package:<name>`` or a hub id.
        word_vectors (str | Mapping, optional): Instead, vectors of words: see
            :func:`read_word_vectors`.
        max_length (int): Words or tokens of a text; a longer one is cut, with one
            warning in the log.
        lower_case (bool): Look words up in lower case, as GloVe has them. The release
            does not. Only for ``word_vectors``.
        use_situation (bool): False makes every word of the situation an unknown one,
            the ablation of SQA3D's paper.
        color_columns (Sequence[int]): Columns of a point that hold red, green and blue
            from 0 to 255; empty: there are none.
        color_mean (Sequence[float]): Subtracted from colors, which are then divided by
            256; the default is that of ScanNet in the released code. What a data set
            holds is never changed.
        color_passes (int): How often colors are normalized. The release does so in
            place on arrays that it keeps, so that nearly all of its samples, in
            training and in tests, had the almost constant colors of a second pass: 2
            for its weights.
        non_blocking (bool): Passed to MMEngine's ``BaseDataPreprocessor``.

    A sample that a pipeline packs is ``dict(inputs=dict(...), data_samples=...)``:

    - ``inputs['points']``: float ``[P, 3 + F]``: x, y, z in meters, then features (for
      the released model red, green, blue, and the height above the floor); or
      ``inputs['objects']``: float ``[O, C]``, features of objects.
    - ``data_samples``: a :class:`VisionLanguageDataSample` with metainfo ``text``, a
      list of two: the situation and the question.

    Raises:
        UserError: Both or neither of ``tokenizer`` and ``word_vectors`` are given.
    """

    def __init__(
        self,
        tokenizer: str | None = None,
        word_vectors: str | Path | Mapping[str, Sequence[float]] | None = None,
        max_length: int = 100,
        lower_case: bool = False,
        use_situation: bool = True,
        color_columns: Sequence[int] = (3, 4, 5),
        color_mean: Sequence[float] = (109.8, 97.2, 83.8),
        color_passes: int = 1,
        non_blocking: bool = False,
    ) -> None:
        if (tokenizer is None) == (word_vectors is None):
            raise UserError(
                'model.data_preprocessor needs either tokenizer or word_vectors.'
            )
        super().__init__(tokenizer, max_length, non_blocking)
        self.vectors = None if word_vectors is None else read_word_vectors(word_vectors)
        self.lower_case, self.use_situation = lower_case, use_situation
        check('model.data_preprocessor.color_passes', color_passes, choices=(1, 2))
        self.color_columns, self.color_passes = list(color_columns), color_passes
        mean = torch.tensor(color_mean[: len(self.color_columns)])
        self.register_buffer('color_mean', mean, persistent=False)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Collate a batch.

        Args:
            data (dict): ``inputs``: lists of tensors by 'points' or 'objects' (or
                batches of them), and ``data_samples``.
            training (bool): Not used.

        Returns:
            dict: ``data_samples`` as they came, and ``inputs``:

            - ``points`` float ``[B, P, 3 + F]`` with ``points_padding`` bool ``[B,
              P]``, or None if all clouds are of one size; or ``objects`` ``[B, O, C]``
              with ``objects_padding`` bool ``[B, O]``. Padding is True and comes last.
            - ``situation`` and ``question``: int64 ``[B, L]`` of a tokenizer or float
              ``[B, L, D]`` of vectors, each with ``situation_padding`` and
              ``question_padding``, bool ``[B, L]``.
        """
        data = self.cast_data(data)
        inputs: dict[str, Tensor | None] = {}
        for kind, rows in data['inputs'].items():
            found, padding = padded([x.float() for x in rows])
            inputs[kind], inputs[f'{kind}_padding'] = found, padding
            if kind == 'points':
                for _ in range(self.color_passes):
                    found[..., self.color_columns] -= self.color_mean
                    found[..., self.color_columns] /= 256
                inputs['points_padding'] = (
                    padding if len({len(x) for x in rows}) > 1 else None
                )
        texts = zip(*(sample.text for sample in data['data_samples']), strict=True)
        for name, text in zip(TEXTS, texts, strict=True):
            hidden = name == 'situation' and not self.use_situation
            inputs[name], inputs[f'{name}_padding'] = self.read(text, hidden)
        return dict(inputs=inputs, data_samples=data['data_samples'])

    def read(self, texts: Sequence[str], hidden: bool = False) -> tuple[Tensor, Tensor]:
        """Convert texts to inputs of the text encoder.

        Args:
            texts (Sequence[str]): T texts.
            hidden (bool): Every word is an unknown one.

        Returns:
            tuple[Tensor, Tensor]: int64 ``[T, L]`` or float ``[T, L, D]``, and bool
            ``[T, L]`` (True = padding), on the model's device.
        """
        if self.vectors is None:
            ids, padding = self.tokenize(texts)
            if hidden:
                special = torch.tensor(sorted(self._special), device=ids.device)
                ids = torch.where(
                    torch.isin(ids, special), ids, self.tokenizer.unk_token_id
                )
            return ids, padding
        rows = []
        for text in texts:
            words = split_words(text.lower() if self.lower_case else text)
            if len(words) > self.max_length:
                self._count_cut(len(words))
            rows.append([UNKNOWN if hidden else w for w in words[: self.max_length]])
        vectors, padding = self.vectors(rows)
        return vectors.to(self._place.device), padding.to(self._place.device)

    def restore_colors(self, points: Tensor) -> Tensor:
        """Return points ``[B, P, 3 + F]`` with colors from 0 to 255 again."""
        points = points.clone()
        for _ in range(self.color_passes):
            points[..., self.color_columns] *= 256
            points[..., self.color_columns] += self.color_mean
        return points
