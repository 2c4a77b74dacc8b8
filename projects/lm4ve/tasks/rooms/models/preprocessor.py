"""``SQA3DPreprocessor``: collates clouds, objects and texts into a batch for the model."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lm4ve.errors import UserError
from lm4ve.registry import MODELS
from lm4ve.tasks.base.language.text_preprocessor import TextPreprocessor
from lm4ve.tasks.rooms.models.language import UNKNOWN, read_word_vectors, split_words

TEXTS = ('situation', 'question')


@MODELS.register_module()
class SQA3DPreprocessor(TextPreprocessor):
    """Collates scenes with questions into tensors on the model's device.

    Args:
        tokenizer (str, optional): The text encoder's: a local folder, ``package:<name>`` or
            a hub id.
        word_vectors (str | Mapping, optional): Instead, vectors of words: see
            :func:`read_word_vectors`.
        max_length (int): Words or tokens of a text; a longer one is cut, with one
            warning in the log.
        lower_case (bool): Look words up in lower case, as GloVe has them. The release does
            not. Only for ``word_vectors``.
        use_situation (bool): False makes every word of the situation an unknown one, the
            ablation of SQA3D's paper.
        color_columns (Sequence[int], optional): Columns of a point that hold red, green and
            blue from 0 to 255. None: there are none.
        color_mean (Sequence[float]): Subtracted from colors, which are then divided by 256; the
            default is that of ScanNet in the released code. What a data set holds is never
            changed.
        non_blocking (bool): Passed to MMEngine's ``BaseDataPreprocessor``.

    A sample that a pipeline packs is ``dict(inputs=dict(...), data_samples=...)``:

    - ``inputs['points']``: float ``[P, 3 + F]``: x, y, z in meters, then features (for the
      released model red, green, blue, and the height above the floor); or
      ``inputs['objects']``: float ``[O, C]``, features of objects.
    - ``data_samples``: a :class:`VisionLanguageDataSample` with metainfo ``text``, a list of
      two: the situation and the question; ``scene_id`` for messages.

    Raises:
        UserError: Both or neither of ``tokenizer`` and ``word_vectors`` are given, or a
            file of vectors cannot be read.
        CheckpointError: The tokenizer's files are missing or damaged.
    """

    def __init__(
        self,
        tokenizer: str | None = None,
        word_vectors: str | Path | Mapping[str, Sequence[float]] | None = None,
        max_length: int = 100,
        lower_case: bool = False,
        use_situation: bool = True,
        color_columns: Sequence[int] | None = (3, 4, 5),
        color_mean: Sequence[float] = (109.8, 97.2, 83.8),
        non_blocking: bool = False,
    ) -> None:
        if (tokenizer is None) == (word_vectors is None):
            raise UserError('model.data_preprocessor needs either tokenizer or word_vectors.')
        super().__init__(tokenizer, max_length, non_blocking)
        self.vectors = None if word_vectors is None else read_word_vectors(word_vectors)
        self.lower_case, self.use_situation = lower_case, use_situation
        self.color_columns = None if color_columns is None else list(color_columns)
        self.register_buffer('color_mean', torch.tensor(color_mean), persistent=False)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Collate a batch.

        Args:
            data (dict): ``inputs``: lists of tensors by 'points' or 'objects' (or batches of
                them), and ``data_samples``.
            training (bool): Not used.

        Returns:
            dict: ``data_samples`` as they came, and ``inputs``:

            - ``points`` float ``[B, P, 3 + F]`` with ``points_padding`` bool ``[B, P]``, or
              None if all clouds are of one size; or ``objects`` ``[B, O, C]`` with
              ``objects_padding`` bool ``[B, O]``. Padding is True and comes last.
            - ``situation`` and ``question``: int64 ``[B, L]`` of a tokenizer or float
              ``[B, L, D]`` of vectors, each with ``situation_padding`` and
              ``question_padding``, bool ``[B, L]``.

        Raises:
            UserError: A scene is empty or has numbers that are not finite, or a text is empty.
        """
        # Checked before the copy to the device, where the check would wait for it.
        for kind, rows in data['inputs'].items():
            for sample, found in zip(data['data_samples'], rows, strict=True):
                if not len(found) or not (found.is_cuda or torch.isfinite(found).all()):
                    scene = sample.get('scene_id')
                    raise UserError(f'The scene {scene} has no {kind}, or some are not finite.')
        data = self.cast_data(data)
        inputs: dict[str, Tensor | None] = {}
        for kind, rows in data['inputs'].items():
            inputs[kind] = pad_sequence([x.float() for x in rows], batch_first=True)
            lengths = torch.tensor([len(x) for x in rows])
            padding = torch.arange(inputs[kind].shape[1]) >= lengths[:, None]
            inputs[f'{kind}_padding'] = padding.to(self._place.device)
        if 'points' in inputs:
            inputs['points'] = self.normalize_colors(inputs['points'])
            if len({len(x) for x in data['inputs']['points']}) == 1:
                inputs['points_padding'] = None
        texts = zip(*(sample.text for sample in data['data_samples']), strict=True)
        for name, found in zip(TEXTS, texts, strict=True):
            hidden = name == 'situation' and not self.use_situation
            inputs[name], inputs[f'{name}_padding'] = self.read(found, hidden)
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
        if not all(map(str.strip, texts)):
            raise UserError(f'A situation or a question is empty: {texts}.')
        if self.vectors is None:
            ids, padding = self.tokenize(texts)
            if hidden:
                special = torch.tensor(sorted(self._special), device=ids.device)
                ids = torch.where(torch.isin(ids, special), ids, self.tokenizer.unk_token_id)
            return ids, padding
        rows = []
        for text in texts:
            words = split_words(text.lower() if self.lower_case else text)
            if len(words) > self.max_length:
                self._say_cut(len(words))
            words = words[: self.max_length]
            rows.append([UNKNOWN] * len(words) if hidden else words)
        words, padding = self.vectors(rows)
        return words.to(self._place.device), padding.to(self._place.device)

    def normalize_colors(self, points: Tensor) -> Tensor:
        """Center and scale the colors of points ``[B, P, 3 + F]``; returns new ones."""
        if columns := self.color_columns:
            points = points.clone()
            points[..., columns] = (points[..., columns] - self.color_mean) / 256
        return points
