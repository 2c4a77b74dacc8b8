"""``VisionLanguagePreprocessor``: pixels are normalized and texts tokenized on their way in.

The tokenizer belongs to the model, as in mmpretrain's multimodal models: data sets and
transforms carry plain strings and fit every text encoder.
"""

import logging
import os
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from lm4ve.errors import CheckpointError, UserError
from lm4ve.llm.sources import HubSource, find_files
from lm4ve.registry import MODELS
from lm4ve.tasks.base.language.pretrained import naming

_FIELD = 'model.data_preprocessor.tokenizer'


class TextPreprocessor(BaseDataPreprocessor):
    """Turns texts into numbers of tokens; the parent of preprocessors with texts.

    Args:
        tokenizer (str | callable, optional): Where the tokenizer's files are: a local folder,
            ``package:<name>`` or a hub id; or a tokenizer. None: texts are not tokenized.
        max_length (int): Tokens of a text, special ones included. A longer text is cut
            and keeps its last special token; the log says so once.
        non_blocking (bool): Passed to MMEngine's ``BaseDataPreprocessor``.

    Attributes:
        num_truncated (int): How many texts this process has cut.

    Raises:
        CheckpointError: The tokenizer's files are missing or damaged.
        UserError: ``max_length`` has no room for a word.
    """

    #: The length that the model's paper has, for messages.
    usual_length = 'METER: 50'

    def __init__(self, tokenizer: Any, max_length: int = 50, non_blocking: bool = False) -> None:
        super().__init__(non_blocking)
        self.tokenizer, self.tokenizer_type, self.tokenizer_name = None, None, tokenizer
        self.max_length = max_length
        self.num_truncated = 0
        least = 0
        if tokenizer is not None:
            self.tokenizer, self.tokenizer_type = (
                load_tokenizer(tokenizer) if isinstance(tokenizer, str) else (tokenizer, None)
            )
            self._special = set(self.tokenizer.all_special_ids)
            least = self.tokenizer.num_special_tokens_to_add()
        if max_length <= least:
            raise UserError(
                f'model.data_preprocessor.max_length={max_length} leaves no room beside the '
                f'special tokens of the tokenizer. Fix: choose more ({self.usual_length}).'
            )
        # Follows the model to its device.
        self.register_buffer('_place', torch.empty(0), persistent=False)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Turn texts into numbers, padded at their ends to the longest.

        Args:
            texts (Sequence[str]): T texts.

        Returns:
            tuple[Tensor, Tensor]: int64 ``[T, L]`` and bool ``[T, L]`` (True = padding), on
            the model's device.

        Raises:
            UserError: A text gives no token at all.
        """
        rows = [self._cut(row) for row in self.tokenizer(list(texts), verbose=False)['input_ids']]
        longest = max(map(len, rows))
        if empty := [i for i, row in enumerate(rows) if not row]:
            raise UserError(
                f'The text {texts[empty[0]]!r} has no token. Fix: leave empty texts out.'
            )
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
        lengths = torch.tensor([len(row) for row in rows])
        padding = torch.arange(longest) >= lengths[:, None]
        return ids.to(self._place.device), padding.to(self._place.device)

    def _cut(self, row: list[int]) -> list[int]:
        if len(row) <= self.max_length:
            return row
        self._say_cut(len(row))
        if row[-1] in self._special:
            return [*row[: self.max_length - 1], row[-1]]
        return row[: self.max_length]

    def _say_cut(self, length: int) -> None:
        """Count a text that is cut, and warn of the first one."""
        if not self.num_truncated:
            print_log(
                f'A text of {length} tokens is cut to model.data_preprocessor.max_length='
                f'{self.max_length}, and so are others; this is said once.',
                logger='current',
                level=logging.WARNING,
            )
        self.num_truncated += 1


@MODELS.register_module()
class VisionLanguagePreprocessor(TextPreprocessor):
    """Turn a batch of images and texts into tensors on the model's device.

    Args:
        tokenizer (str): Where the tokenizer's files are: a local folder,
            ``package:<name>`` or a hub id.
        max_length (int): Tokens of a text, special ones included. A longer text is cut
            and keeps its last special token; the log says so once.
        mean, std (Sequence[float]): Of the three channels, from 0 to 255; default: CLIP's.
        to_rgb (bool): The images come as BGR and the encoder wants RGB.
        non_blocking (bool): Passed to MMEngine's ``BaseDataPreprocessor``.

    Attributes:
        num_truncated (int): How many texts this process has cut.

    Raises:
        CheckpointError: The tokenizer's files are missing or damaged.
        UserError: ``max_length`` has no room for a word.
    """

    def __init__(
        self,
        tokenizer: str,
        max_length: int = 50,
        mean: Sequence[float] = (122.771, 116.746, 104.094),
        std: Sequence[float] = (68.501, 66.632, 70.323),
        to_rgb: bool = True,
        non_blocking: bool = False,
    ) -> None:
        super().__init__(tokenizer, max_length, non_blocking)
        self.to_rgb = to_rgb
        self.register_buffer('mean', torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Normalize and tokenize a batch.

        Args:
            data (dict): ``inputs``, a list of uint8 ``[3, H, W]`` (or ``[B, 3, H, W]``),
                and ``data_samples``, whose ``text`` are as many strings in each.
            training (bool): Not used.

        Returns:
            dict: ``inputs`` with ``image`` float ``[B, 3, H, W]``, ``input_ids`` int64
            ``[B, S, L]`` and ``text_padding`` bool ``[B, S, L]`` (True = padding), L the
            longest text of the batch; ``data_samples`` as they came.

        Raises:
            UserError: Sizes of images or numbers of texts differ.
        """
        data = self.cast_data(data)
        samples = data['data_samples']
        counts = sorted({len(s.text) for s in samples})
        if len(counts) != 1 or not counts[0]:
            raise UserError(
                f'Samples of {counts[0]} to {counts[-1]} texts in one batch; a model takes as many '
                'of each, and at least one. Fix: score the captions of retrieval tests with '
                "val_cfg=dict(type='lm4ve.RetrievalValLoop')."
            )
        ids, padding = self.tokenize([t for s in samples for t in s.text])
        shape = (len(samples), counts[0])
        inputs = dict(
            image=self.normalize(data['inputs']),
            input_ids=ids.unflatten(0, shape),
            text_padding=padding.unflatten(0, shape),
        )
        return dict(inputs=inputs, data_samples=samples)

    def normalize(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        """Stack images, order their channels, take off the mean, divide by the deviation.

        Args:
            images (Tensor | Sequence[Tensor]): uint8 ``[3, H, W]`` each, from 0 to 255.

        Returns:
            Tensor: float ``[B, 3, H, W]`` on the model's device.

        Raises:
            UserError: The images have different sizes or not three channels.
        """
        if not isinstance(images, Tensor):
            sizes = sorted({tuple(x.shape) for x in images})
            if len(sizes) > 1:
                raise UserError(
                    f'Images of {list(sizes[0])} and {list(sizes[-1])} in one batch. Fix: end the '
                    "pipeline's geometry with dict(type='CenterCrop', crop_size=...)."
                )
            images = torch.stack([x.to(self.mean.device) for x in images])
        images = images.to(self.mean.device)
        if images.dim() != 4 or images.shape[1] != 3:
            raise UserError(
                f'A batch of images is {list(images.shape)}. Expected [B, 3, H, W]. Fix: load '
                "images in color (dict(type='LoadImageFromFile'))."
            )
        if self.to_rgb:
            images = images.flip(1)
        return (images.float() - self.mean) / self.std


def load_tokenizer(source: str) -> tuple[Any, str | None]:
    """Load a tokenizer of ``transformers``. No code of its repository is run.

    Args:
        source (str): A local folder, ``package:<name>`` or a hub id.

    Returns:
        tuple: The tokenizer, and the ``model_type`` of the ``config.json`` beside it (None
        if there is none).

    Raises:
        CheckpointError: There is no such place, or no tokenizer that loads.
    """
    from transformers import AutoConfig, AutoTokenizer

    # It has threads of its own, which a forked dataloader worker does not survive.
    os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')
    with naming(_FIELD):
        files, _ = find_files(source)
    if isinstance(files, HubSource):
        where = dict(pretrained_model_name_or_path=files.repo_id, revision=files.revision or 'main')
    else:
        where = dict(pretrained_model_name_or_path=str(files.folder), local_files_only=True)
    try:
        tokenizer = AutoTokenizer.from_pretrained(**where, trust_remote_code=False)
        tokenizer(['a', 'of b'])  # much of a damaged file shows only when it is used
    except BaseException as e:  # many kinds about missing and damaged files; Rust's panics
        if not isinstance(e, Exception) and type(e).__name__ != 'PanicException':
            raise
        reason = (str(e).strip().splitlines() or ['no reason given'])[0]
        raise CheckpointError(
            f"{_FIELD}='{source}' has no tokenizer that loads ({type(e).__name__}: {reason}). Fix: "
            "copy tokenizer.json and tokenizer_config.json of the text encoder's release there."
        ) from e
    if tokenizer.pad_token_id is None:
        raise CheckpointError(
            f"{_FIELD}='{source}' has no padding token, so texts cannot form a batch. Fix: use "
            'the tokenizer of the text encoder.'
        )
    try:
        kind = AutoConfig.from_pretrained(**where, trust_remote_code=False).model_type
    except Exception:  # a tokenizer alone is enough
        kind = None
    return tokenizer, kind
