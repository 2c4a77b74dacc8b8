"""Tokenizes texts, for every model that reads texts.

No code of a tokenizer's repository is run. :func:`check_tokenizer` compares a tokenizer
with the text encoder, since a foreign one would give wrong numbers in silence.
"""

import itertools
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
        #: What the config gave: a name, for messages and records, or the object.
        self.tokenizer_name = tokenizer
        #: The family of the text encoder beside the tokenizer's files; None: not known.
        self.tokenizer_type: str | None = None
        if isinstance(tokenizer, str):
            self.tokenizer, self.tokenizer_type = load_tokenizer(tokenizer)
        else:
            self.tokenizer = tokenizer
        if self.tokenizer is None:
            self._special = set()
            num_special = 0
        else:
            self._special = set(self.tokenizer.all_special_ids)
            num_special = self.tokenizer.num_special_tokens_to_add()
        check('model.data_preprocessor.max_length', max_length, above=num_special)
        self.max_length = max_length
        self.num_truncated = 0
        # An empty tensor that follows the model to its device, where texts go.
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
        tokenized = self.tokenizer(list(texts), verbose=False)['input_ids']
        rows = []
        for text, row in zip(texts, tokenized, strict=True):
            if not row:
                raise UserError(f'The text {text!r} has no token.')
            rows.append(self._cut(row))
        lengths = [len(row) for row in rows]
        # From the list: `lm4ve cost` runs this on tensors that have no values.
        places = torch.arange(max(lengths))
        padding = places >= torch.tensor(lengths)[:, None]
        ids = torch.full(padding.shape, self.tokenizer.pad_token_id)
        # One tensor of all tokens takes half the time of a tensor for each row.
        ids[~padding] = torch.tensor(list(itertools.chain.from_iterable(rows)))
        device = self._place.device
        # No other code has these tensors, so that nothing changes them on the way.
        ids = ids.to(device, non_blocking=True)
        padding = padding.to(device, non_blocking=True)
        return ids, padding

    def describe(self) -> dict[str, Any]:
        """Describe the tokenizer for a release, in plain data.

        Returns:
            dict: ``name``, ``max_length`` and the padding's number ``padding``. A local
            folder has its last part for a name: where it lies says nothing to others.
        """
        name = self.tokenizer_name
        path = Path(name).expanduser()
        if path.exists():
            name = path.resolve().name
        return dict(
            name=name,
            max_length=self.max_length,
            padding=self.tokenizer.pad_token_id,
        )

    def _cut(self, row: list[int]) -> list[int]:
        """Cut the tokens of a text to ``max_length``; a special one at its end stays the last."""
        if len(row) <= self.max_length:
            return row
        self._count_cut(len(row))
        if row[-1] in self._special:
            return [*row[: self.max_length - 1], row[-1]]
        return row[: self.max_length]

    def _count_cut(self, length: int) -> None:
        """Count a text that is cut, and warn of the first one."""
        self.num_truncated += 1
        if self.num_truncated > 1:
            return
        text = (
            f'A text of {length} tokens is cut to model.data_preprocessor.max_length='
            f'{self.max_length}; later ones are cut without a warning.'
        )
        print_log(text, logger='current', level=logging.WARNING)


def load_tokenizer(source: str) -> tuple[Any, str | None]:
    """Load a tokenizer of ``transformers``. No code of its repository is run.

    Args:
        source (str): A local folder, ``package:<name>`` or a hub id.

    Returns:
        tuple: The tokenizer, and the ``model_type`` of the ``config.json`` beside it
        (None if there is none).

    Raises:
        CheckpointError: There is no such place, or no tokenizer that can be read is
            there.
        UserError: The tokenizer has no padding token, without which texts form no
            batch.
    """
    from transformers import AutoTokenizer

    # Its own threads would not survive the fork of a data loader's worker.
    os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')
    with naming(_FIELD):
        files, _ = find_files(source)
        # Raises an error if there is no such place.
        config_file = files.find('config.json')
    try:
        tokenizer = AutoTokenizer.from_pretrained(**files.pretrained_arguments())
    except Exception as error:
        # Errors of many kinds, and most messages have several lines.
        reason = first_line(error).rstrip('.')
        raise CheckpointError(
            f"{_FIELD}='{source}' has no tokenizer that can be read ({reason})."
        ) from error
    _check_loaded(tokenizer, source)
    if config_file is None:
        # A tokenizer alone is enough.
        return tokenizer, None
    return tokenizer, read_config_file(config_file).get('model_type')


def _check_loaded(tokenizer: Any, source: str) -> None:
    """Refuse a tokenizer without words or without a padding token."""
    # Without a vocabulary, transformers builds the family's tokenizer from its special
    # tokens.
    if tokenizer.get_vocab().keys() <= set(tokenizer.all_special_tokens):
        file_names = ' or '.join(sorted(set(tokenizer.vocab_files_names.values())))
        raise CheckpointError(
            f"{_FIELD}='{source}' has no words: of its tokenizer, {file_names} is missing."
        )
    if not isinstance(tokenizer.pad_token_id, int):
        raise UserError(
            f"{_FIELD}='{source}' has no padding token, without which texts of different lengths "
            'form no batch. Fix: name the tokenizer of the text encoder.'
        )


def check_tokenizer(preprocessor: Any, encoder: nn.Module) -> None:
    """Refuse a tokenizer that is not the text encoder's.

    Args:
        preprocessor (TextPreprocessor): Has the tokenizer.
        encoder (nn.Module): May have ``model_type``, ``vocab_size``, ``pad_id`` and
            ``max_length``; what it lacks is not compared.

    Raises:
        UserError: The families or the paddings differ, or the encoder has fewer numbers
            of tokens, or shorter texts.
    """
    tokenizer = preprocessor.tokenizer
    name = f"{_FIELD}='{preprocessor.tokenizer_name}'"
    family = preprocessor.tokenizer_type
    encoder_family = getattr(encoder, 'model_type', None)
    if family is not None and encoder_family is not None:
        require(
            family == encoder_family,
            f"{name}: the family is '{family}', but the encoder's is '{encoder_family}'. "
            'Fix: the tokenizer that the encoder was trained with.',
        )
    # Numbers of tokens may have gaps, so that the largest one counts.
    largest_number = max(tokenizer.get_vocab().values(), default=0)
    num_tokens = max(len(tokenizer), 1 + largest_number)
    encoder_size = getattr(encoder, 'vocab_size', None)
    check(f'{name}: the number of tokens', num_tokens, most=encoder_size)
    encoder_padding = getattr(encoder, 'pad_id', None)
    if encoder_padding is not None:
        padding = tokenizer.pad_token_id
        require(
            padding == encoder_padding,
            f"{name}: pad_token_id={padding}, but the encoder's is {encoder_padding}. Fix: the "
            'tokenizer that the encoder was trained with.',
        )
    longest = getattr(encoder, 'max_length', None)
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
        """Return 6: numbers of tokens are below it."""
        return 6

    def __call__(self, texts: list[str], **options: Any) -> dict[str, list[list[int]]]:
        """Return a token for each word of each text; options of other tokenizers are ignored."""
        return dict(input_ids=[[5] * len(text.split()) for text in texts])

    def get_vocab(self) -> dict[str, int]:
        """Return no words: nothing is looked up."""
        return {}

    def num_special_tokens_to_add(self) -> int:
        """Return 0: the words include the special tokens."""
        return 0
