"""Texts to numbers of tokens, for every model that reads texts.

The tokenizer loads without code of its repository; :func:`check_tokenizer` compares it
with the text encoder, since a foreign tokenizer would give wrong numbers in silence.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseDataPreprocessor
from torch import Tensor, nn

from lm4ve.errors import CheckpointError, UserError, check, first_line, require
from lm4ve.llm.checkpoint import read_config_file
from lm4ve.llm.sources import find_files
from lm4ve.text.pretrained_encoders import naming

_FIELD = 'model.data_preprocessor.tokenizer'


class TextPreprocessor(BaseDataPreprocessor):
    """Turns texts into numbers of tokens; the parent of preprocessors with texts.

    Args:
        tokenizer (str | callable, optional): Where the tokenizer's files are: a local
            folder, ``package:<name>`` or a hub id; or a tokenizer. None: texts are not
            tokenized.
        max_length (int): Tokens of a text, special ones included. A longer text is cut
            and keeps its last special token; the log says so once.
        non_blocking (bool): Passed to MMEngine's ``BaseDataPreprocessor``.

    Attributes:
        num_truncated (int): How many texts this process has cut.

    Raises:
        CheckpointError: The tokenizer's files are missing or damaged.
        UserError: ``max_length`` has no room for a word.
    """

    def __init__(
        self, tokenizer: Any, max_length: int = 50, non_blocking: bool = False
    ) -> None:
        super().__init__(non_blocking)
        self.tokenizer, self.tokenizer_type, self.tokenizer_name = (
            tokenizer,
            None,
            tokenizer,
        )
        if isinstance(tokenizer, str):
            self.tokenizer, self.tokenizer_type = load_tokenizer(tokenizer)
        least = 0
        if tokenizer is not None:
            self._special = set(self.tokenizer.all_special_ids)
            least = self.tokenizer.num_special_tokens_to_add()
        check('model.data_preprocessor.max_length', max_length, above=least)
        self.max_length, self.num_truncated = max_length, 0
        # Follows the model to its device.
        self.register_buffer('_place', torch.empty(0), persistent=False)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Turn texts into numbers, padded at their ends to the longest.

        Args:
            texts (Sequence[str]): T texts.

        Returns:
            tuple[Tensor, Tensor]: int64 ``[T, L]`` and bool ``[T, L]`` (True =
            padding), on the model's device.

        Raises:
            UserError: A text gives no token at all.
        """
        rows = [
            self._cut(row)
            for row in self.tokenizer(list(texts), verbose=False)['input_ids']
        ]
        if [] in rows:
            raise UserError(f'The text {texts[rows.index([])]!r} has no token.')
        lengths = torch.tensor([len(row) for row in rows])
        padding = torch.arange(max(map(len, rows))) >= lengths[:, None]
        ids = torch.full(padding.shape, self.tokenizer.pad_token_id)
        ids[~padding] = torch.tensor([i for row in rows for i in row])
        return ids.to(self._place.device), padding.to(self._place.device)

    def describe(self) -> dict[str, Any]:
        """Return the tokenizer's name (of a folder, its last part), longest text and padding."""
        path = Path(self.tokenizer_name).expanduser()
        return dict(
            name=path.resolve().name if path.exists() else self.tokenizer_name,
            max_length=self.max_length,
            padding=self.tokenizer.pad_token_id,
        )

    def _cut(self, row: list[int]) -> list[int]:
        if len(row) <= self.max_length:
            return row
        self._count_cut(len(row))
        if row[-1] in self._special:
            return [*row[: self.max_length - 1], row[-1]]
        return row[: self.max_length]

    def _count_cut(self, length: int) -> None:
        """Count a text that is cut, and warn of the first one."""
        self.num_truncated += 1
        if self.num_truncated == 1:
            text = f'A text of {length} tokens is cut to model.data_preprocessor.max_length='
            text += f'{self.max_length}; later ones are cut without a warning.'
            print_log(text, logger='current', level=logging.WARNING)


def load_tokenizer(source: str) -> tuple[Any, str | None]:
    """Load a tokenizer of ``transformers``. No code of its repository is run.

    Args:
        source (str): A local folder, ``package:<name>`` or a hub id.

    Returns:
        tuple: The tokenizer, and the ``model_type`` of the ``config.json`` beside it
            (None
        if there is none).

    Raises:
        CheckpointError: There is no such place, or no tokenizer that can be read is
            there.
        UserError: The tokenizer has no padding token, without which texts form no
            batch.
    """
    from transformers import AutoTokenizer

    # It has threads of its own, which a forked dataloader worker does not survive.
    os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')
    with naming(_FIELD):
        files, _ = find_files(source)
        config_file = files.find(
            'config.json'
        )  # it also finds out whether there is such a place
    try:
        tokenizer = AutoTokenizer.from_pretrained(**files.pretrained_arguments())
    except Exception as e:  # of many kinds, most of them of several lines
        reason = first_line(e).rstrip('.')
        raise CheckpointError(
            f"{_FIELD}='{source}' has no tokenizer that can be read ({reason})."
        ) from e
    # Without a vocabulary, transformers builds the family's tokenizer from its special
    # tokens.
    if tokenizer.get_vocab().keys() <= set(tokenizer.all_special_tokens):
        files_of_it = ' or '.join(sorted(set(tokenizer.vocab_files_names.values())))
        raise CheckpointError(
            f"{_FIELD}='{source}' has no words: of its tokenizer, {files_of_it} is missing."
        )
    if not isinstance(tokenizer.pad_token_id, int):
        raise UserError(
            f"{_FIELD}='{source}' has no padding token, without which texts of different lengths "
            'form no batch. Fix: name the tokenizer of the text encoder.'
        )
    # A tokenizer alone is enough.
    kind = (
        None if config_file is None else read_config_file(config_file).get('model_type')
    )
    return tokenizer, kind


def check_tokenizer(preprocessor: Any, encoder: nn.Module) -> None:
    """Refuse a tokenizer that is not the text encoder's; unknown properties are not compared.

    Raises:
        UserError: Families, vocabularies, padding or lengths differ.
    """
    tokenizer, name = (
        preprocessor.tokenizer,
        f"{_FIELD}='{preprocessor.tokenizer_name}'",
    )
    family, size, pad, longest = (
        getattr(encoder, k, None)
        for k in ('model_type', 'vocab_size', 'pad_id', 'max_length')
    )
    if None not in (family, preprocessor.tokenizer_type):
        require(
            preprocessor.tokenizer_type == family,
            f"{name}: the family is '{preprocessor.tokenizer_type}', but the encoder's is "
            f"'{family}'. Fix: the tokenizer that the encoder was trained with.",
        )
    tokens = max(len(tokenizer), 1 + max(tokenizer.get_vocab().values(), default=0))
    check(f'{name}: the number of tokens', tokens, most=size)
    check(
        f'{name}: pad_token_id',
        tokenizer.pad_token_id,
        choices=None if pad is None else (pad,),
    )
    check('model.data_preprocessor.max_length', preprocessor.max_length, most=longest)


class PlaceholderTokenizer:
    """Gives every text as many tokens as it has words, all of number 5; needs no files.

    Args:
        pad_token_id (int): Its padding.
    """

    all_special_ids = ()

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __len__(self) -> int:
        return 6

    def __call__(self, texts: list[str], **options: Any) -> dict[str, list[list[int]]]:
        return dict(input_ids=[[5] * len(text.split()) for text in texts])

    def get_vocab(self) -> dict[str, int]:
        """Return no words: nothing is looked up."""
        return {}

    def num_special_tokens_to_add(self) -> int:
        """Return 0: the words include the special tokens."""
        return 0
