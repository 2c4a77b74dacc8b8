"""Texts that a user gives, and the tokens of texts as they are read."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lm4ve.errors import UserError


def list_texts(texts: str | Sequence[str], noun: str) -> list[str]:
    """Return one text or several as a list.

    Args:
        texts (str | Sequence[str]): What the user gave.
        noun (str): What a text is, for example 'question'.

    Raises:
        UserError: There is none, or one is empty.
    """
    given = [texts] if isinstance(texts, str) else list(texts)
    is_filled = [isinstance(text, str) and text.strip() != '' for text in given]
    if not given or not all(is_filled):
        raise UserError(f'Every {noun} must be a text that is not empty, not {given}.')
    return given


def words_of(model: Any, ids: Tensor, padding: Tensor) -> list[list[str]]:
    """Return the tokens of texts as they are read.

    Args:
        model (nn.Module): Its preprocessor has the tokenizer.
        ids (Tensor): int64 ``[B, L]``.
        padding (Tensor): bool ``[B, L]``, True = padding, which is left out.
    """
    tokenizer = model.data_preprocessor.tokenizer
    texts = []
    for row, row_padding in zip(ids, padding, strict=True):
        words = [_word_of(tokenizer, int(token)) for token in row[~row_padding]]
        texts.append(words)
    return texts


def _word_of(tokenizer: Any, token: int) -> str:
    """Return what a token reads, or its name if it reads nothing."""
    word = tokenizer.decode([token]).strip()
    if not word:
        return tokenizer.convert_ids_to_tokens(token)
    return word
