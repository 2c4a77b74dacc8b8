"""Texts that a user gives, and the tokens of texts as they are read."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lm4ve.errors import UserError


def list_texts(texts: str | Sequence[str], noun: str) -> list[str]:
    """Return texts.

    Raises:
        UserError: There is none, or one is empty.
    """
    found = [texts] if isinstance(texts, str) else list(texts)
    if not found or not all(isinstance(t, str) and t.strip() for t in found):
        raise UserError(f'Every {noun} must be a text that is not empty, not {found}.')
    return found


def words_of(model: Any, ids: Tensor, padding: Tensor) -> list[list[str]]:
    """Return the tokens of texts ``[B, L]`` as they are read, without padding."""
    tokenizer = model.data_preprocessor.tokenizer
    return [
        [
            tokenizer.decode([i]).strip() or tokenizer.convert_ids_to_tokens(i)
            for i in row
        ]
        for row in ([int(i) for i in r[~p]] for r, p in zip(ids, padding, strict=True))
    ]
