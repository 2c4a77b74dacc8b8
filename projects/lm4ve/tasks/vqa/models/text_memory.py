"""A frozen text encoder says the same of a text each time, so that once is enough.

Small data sets ask few questions: the 38,575 of easy-vqa are 107 different texts, and the
text encoder would be most of a training step's cost.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lm4ve.errors import UserError


class TextMemory:
    """Keeps the outputs of the last texts.

    Each text is encoded by itself, without padding, so that what is kept does not depend
    on the batch in which it came first: a resumed run computes what an uninterrupted one
    does, bit for bit.

    Args:
        limit (int): How many texts are kept; the one not used for longest goes first.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._kept: OrderedDict[tuple, Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def clear(self) -> None:
        """Forget all texts: the encoder has other weights, or is elsewhere."""
        self._kept.clear()

    def encode(
        self, encode: Callable[[Tensor, Tensor], Tensor], input_ids: Tensor, padding: Tensor
    ) -> Tensor:
        """Encode what is not known, remember it, and put a batch together.

        Args:
            encode (callable): From ids and padding, ``[1, l]`` both, to ``[1, l, C]``.
            input_ids (Tensor): int64 ``[B, L]``.
            padding (Tensor): bool ``[B, L]``, True = padding, at the ends only.

        Returns:
            Tensor: ``[B, L, C]``, zeros at padded places.
        """
        device = input_ids.device
        autocast = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if autocast else None
        rows = []
        for ids, length in zip(input_ids.tolist(), (~padding).sum(1).tolist(), strict=True):
            key = (dtype, *ids[:length])
            if key not in self._kept:
                text = torch.tensor([ids[:length]], device=device)
                self._kept[key] = encode(text, torch.zeros_like(text, dtype=torch.bool))[0]
            self._kept.move_to_end(key)
            rows.append(self._kept[key])
        while len(self._kept) > self.limit:
            self._kept.popitem(last=False)
        found = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return torch.nn.functional.pad(found, (0, 0, 0, input_ids.shape[1] - found.shape[1]))


class RemembersTexts(nn.Module):
    """Gives a text encoder a :class:`TextMemory`, which other weights or devices empty."""

    memory: TextMemory | None = None

    def remember_texts(self, count: int, frozen: bool) -> None:
        """Keep the outputs of so many texts; 0 keeps none.

        Raises:
            UserError: The encoder trains, so that what is kept would be old.
        """
        if count < 0 or (count and not frozen):
            raise UserError(
                f'model.text_encoder.remember={count} with frozen={frozen}: only an encoder that '
                'does not train says the same of a text each time. Fix: set frozen=True, or '
                'remember=0.'
            )
        self.memory = TextMemory(count) if count else None

    def forget_texts(self) -> None:
        """Empty the memory."""
        if self.memory is not None:
            self.memory.clear()

    def _apply(self, *args: Any, **kwargs: Any) -> 'RemembersTexts':
        self.forget_texts()
        return super()._apply(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any) -> None:
        self.forget_texts()
        super()._load_from_state_dict(*args)
