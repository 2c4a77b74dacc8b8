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
    if isinstance(texts, str):
        text_list = [texts]
    else:
        text_list = list(texts)
    are_filled = all(isinstance(text, str) and text.strip() for text in text_list)
    if not text_list or not are_filled:
        raise UserError(
            f'Every {noun} must be a text that is not empty, not {text_list}.'
        )
    return text_list


def words_of(model: Any, ids: Tensor, padding: Tensor) -> list[list[str]]:
    """Return the tokens of texts as they are read, a list for each text.

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
    """Return the letters of a token, or its name if it has none, as a special one."""
    word = tokenizer.decode([token]).strip()
    if not word:
        return tokenizer.convert_ids_to_tokens(token)
    return word
