"""``SQA3DPreprocessor``: clouds, objects and texts of a batch on their way into the model."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lm4ve.errors import UserError
from lm4ve.registry import MODELS
from lm4ve.tasks.base.language.structures import VisionLanguageDataSample
from lm4ve.tasks.base.language.text_preprocessor import TextPreprocessor
from lm4ve.tasks.rooms.models.language import UNKNOWN, read_word_vectors, split_words

#: What scenes may be given as: rows of points, or of objects.
KINDS = ('points', 'objects')


@MODELS.register_module()
class SQA3DPreprocessor(TextPreprocessor):
    """Turn a batch of scenes with questions into tensors on the model's device.

    Args:
        tokenizer (str, optional): The text encoder's: a local folder, ``package:<name>`` or
            a hub id.
        word_vectors (str | Mapping, optional): Instead, vectors of words: see
            :func:`read_word_vectors`.
        max_length (int): Words or tokens of a text; a longer one is cut, and the log says
            so once.
        lower_case (bool): Look words up in lower case, as GloVe has them. The release does
            not. Only for ``word_vectors``.
        use_situation (bool): False makes every word of the situation an unknown one, the
            ablation of SQA3D's paper.
        color_columns (Sequence[int], optional): Columns of a point that hold red, green and
            blue from 0 to 255. None: there are none.
        color_mean (Sequence[float]): Is taken off colors, which are then divided by 256; the
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

    usual_length = 'SQA3D: 100'

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
        if not use_situation and tokenizer is not None and self.tokenizer.unk_token_id is None:
            raise UserError('use_situation=False needs a tokenizer with a token for unknown words.')

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
            UserError: A scene is empty, has numbers that are not finite, or columns that
                others lack; a text is empty, or there are not two.
        """
        scenes = {k: list(data['inputs'][k]) for k in KINDS if k in data['inputs']}
        for kind, rows in scenes.items():
            for found, sample in zip(rows, data['data_samples'], strict=True):
                # Nothing is waited for here: data comes from the loader on the CPU.
                if not len(found) or not (found.is_cuda or torch.isfinite(found).all()):
                    scene = sample.get('scene_id', '?')
                    raise UserError(f'The scene {scene} has no {kind}, or some are not finite.')
        data = self.cast_data(dict(inputs=scenes, data_samples=data['data_samples']))
        samples, inputs = data['data_samples'], {}
        for kind, rows in data['inputs'].items():
            inputs[kind], inputs[f'{kind}_padding'] = self._stack(rows)
        if 'points' in inputs:
            inputs['points'] = self.normalize_colors(inputs['points'])
            if len({len(rows) for rows in scenes['points']}) == 1:
                inputs['points_padding'] = None
        for place, name in enumerate(('situation', 'question')):
            texts = [_text(s, place) for s in samples]
            hidden = name == 'situation' and not self.use_situation
            inputs[name], inputs[f'{name}_padding'] = self.read(texts, hidden)
        return dict(inputs=inputs, data_samples=samples)

    def read(self, texts: Sequence[str], hidden: bool = False) -> tuple[Tensor, Tensor]:
        """Turn texts into what the text encoder reads.

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
                keep = torch.isin(ids, special)
                ids = torch.where(keep, ids, self.tokenizer.unk_token_id)
            return ids, padding
        rows = []
        for text in texts:
            words = split_words(text.lower() if self.lower_case else text)
            if len(words) > self.max_length:
                self._say_cut(len(words))
            words = words[: self.max_length]
            rows.append([UNKNOWN] * len(words) if hidden else words)
        device = self._place.device
        return tuple(x.to(device) for x in self.vectors(rows))

    def normalize_colors(self, points: Tensor) -> Tensor:
        """Center and scale the colors of points ``[B, P, 3 + F]``; returns new ones."""
        columns = self.color_columns
        if columns is None:
            return points
        colors = points[..., columns]
        points = points.clone()
        points[..., columns] = (colors - self.color_mean) / 256
        return points

    def _stack(self, rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Rows ``[N, C]`` of each scene to ``[B, N, C]`` and their padding ``[B, N]``."""
        device = self._place.device
        stacked = pad_sequence([x.float().to(device) for x in rows], batch_first=True)
        counts = torch.tensor([len(x) for x in rows])
        padding = torch.arange(stacked.shape[1]) >= counts[:, None]
        return stacked, padding.to(device)


def _text(sample: VisionLanguageDataSample, place: int) -> str:
    """The situation (0) or the question (1) of a sample.

    Raises:
        UserError: It is missing or empty.
    """
    texts = sample.get('text') or ()
    if len(texts) != 2 or not texts[place].strip():
        scene = sample.get('scene_id', '?')
        raise UserError(f'A sample of {scene} needs a situation and a question, not {texts!r}.')
    return texts[place]
