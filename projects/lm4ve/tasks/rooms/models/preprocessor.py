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

#: The two texts of a sample, in this order.
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
        self.lower_case = lower_case
        self.use_situation = use_situation
        check('model.data_preprocessor.color_passes', color_passes, choices=(1, 2))
        check(
            'the length of model.data_preprocessor.color_mean',
            len(color_mean),
            least=len(color_columns),
        )
        self.color_columns = color_columns
        self.color_mean = color_mean[: len(color_columns)]
        self.color_passes = color_passes

    def forward(self, data: dict, training: bool = False) -> dict:
        """Collate a batch.

        Args:
            data (dict): ``inputs``: lists of tensors by 'points' or 'objects' (or
                batches of them), and ``data_samples``.
            training (bool): Not used.

        Returns:
            dict: Copies of ``data_samples``, which stay on the CPU (each loss moves
            what it needs, of all samples at once), and ``inputs``:

            - ``points`` float ``[B, P, 3 + F]`` with ``points_padding`` bool ``[B,
              P]``, or None if all clouds are of one size; or ``objects`` ``[B, O, C]``
              with ``objects_padding`` bool ``[B, O]``. Padding is True and comes last.
            - ``situation`` and ``question``: int64 ``[B, L]`` of a tokenizer or float
              ``[B, L, D]`` of vectors, each with ``situation_padding`` and
              ``question_padding``, bool ``[B, L]``.
        """
        # Copies, since predictions are added to them.
        samples = [sample.new() for sample in data['data_samples']]
        inputs: dict[str, Tensor | None] = {}
        for kind, rows in self.cast_data(data['inputs']).items():
            batch, padding = padded([row.float() for row in rows])
            inputs[kind] = batch
            inputs[f'{kind}_padding'] = padding
            if kind == 'points':
                self._normalize_colors(batch)
                sizes = {len(row) for row in rows}
                if len(sizes) == 1:
                    inputs['points_padding'] = None
        for i, name in enumerate(TEXTS):
            texts = [sample.text[i] for sample in samples]
            hidden = name == 'situation' and not self.use_situation
            inputs[name], inputs[f'{name}_padding'] = self.read(texts, hidden)
        return dict(inputs=inputs, data_samples=samples)

    def _normalize_colors(self, points: Tensor) -> None:
        """Change the colors of points ``[B, P, 3 + F]`` in place."""
        # A column at a time: a list of columns would be copied to the device.
        for column, mean in zip(self.color_columns, self.color_mean, strict=True):
            color = points[..., column]
            for _ in range(self.color_passes):
                color.sub_(mean).div_(256)

    def read(self, texts: Sequence[str], hidden: bool = False) -> tuple[Tensor, Tensor]:
        """Convert texts to inputs of the text encoder.

        Args:
            texts (Sequence[str]): T texts.
            hidden (bool): Every word is an unknown one.

        Returns:
            tuple[Tensor, Tensor]: int64 ``[T, L]`` or float ``[T, L, D]``, and bool
            ``[T, L]`` (True = padding), on the model's device.
        """
        if self.vectors is not None:
            return self._look_up(texts, hidden)
        ids, padding = self.tokenize(texts)
        if hidden:
            special = torch.tensor(sorted(self._special))
            special = special.to(ids.device, non_blocking=True)
            is_special = torch.isin(ids, special)
            ids = torch.where(is_special, ids, self.tokenizer.unk_token_id)
        return ids, padding

    def _look_up(self, texts: Sequence[str], hidden: bool) -> tuple[Tensor, Tensor]:
        """Return the vectors of the words of texts, and their padding."""
        assert self.vectors is not None
        rows = []
        for text in texts:
            if self.lower_case:
                text = text.lower()
            words = split_words(text)
            if len(words) > self.max_length:
                self._count_cut(len(words))
                words = words[: self.max_length]
            if hidden:
                words = [UNKNOWN] * len(words)
            rows.append(words)
        vectors, padding = self.vectors(rows)
        device = self._place.device
        vectors = vectors.to(device, non_blocking=True)
        return vectors, padding.to(device, non_blocking=True)

    def restore_colors(self, points: Tensor) -> Tensor:
        """Return points ``[B, P, 3 + F]`` with colors from 0 to 255 again."""
        points = points.clone()
        for column, mean in zip(self.color_columns, self.color_mean, strict=True):
            color = points[..., column]
            for _ in range(self.color_passes):
                color.mul_(256).add_(mean)
        return points
