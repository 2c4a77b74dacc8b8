"""Answers out of a vocabulary: the base of heads that choose one.

A fingerprint of the vocabulary is a part of every checkpoint: outputs of a head mean
nothing, or worse, with other answers.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lm4ve.errors import CheckpointError

FINGERPRINT = 'vocabulary_fingerprint'
TARGETS = ('soft', 'hard')
#: How many of VQA's ten annotators gave an answer -> its score (METER, as the code
#: before it). From the last entry on it is the last entry's.
SCORES = (0.0, 0.3, 0.6, 0.9, 1.0)


def in_fp32(module: nn.Module, features: Tensor) -> Tensor:
    """Run a module outside of autocast, in its own precision, and return fp32."""
    dtype = next(module.parameters()).dtype
    with torch.autocast(features.device.type, enabled=False):
        return module(features.to(dtype)).float()


def vocabulary_digest(answers: Sequence[str]) -> Tensor:
    """Return a fingerprint of answers in their order, uint8 ``[32]``."""
    digest = hashlib.sha256('\n'.join(answers).encode()).digest()
    return torch.tensor(list(digest), dtype=torch.uint8)


class VocabularyHead(nn.Module):
    """A head with ``layers``, the last of which (number 3) gives one logit an answer."""

    #: The config's field that names the answers, for messages.
    vocabulary_field = 'model.head.vocabulary'

    def set_vocabulary(self, answers: Sequence[str]) -> None:
        """Set the answers, in the order of the logits."""
        self.vocabulary = list(answers)
        self.index = {a: i for i, a in enumerate(self.vocabulary)}
        self.register_buffer(FINGERPRINT, vocabulary_digest(self.vocabulary))

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *others: object
    ) -> None:
        """Refuse a checkpoint of another vocabulary, also where loading is not strict.

        Raises:
            CheckpointError: The answers differ.
        """
        stored = state_dict.get(prefix + FINGERPRINT)
        bias = state_dict.get(f'{prefix}layers.3.bias')
        mine = getattr(self, FINGERPRINT)
        same = stored is None or (
            stored.dtype == mine.dtype and torch.equal(stored.cpu(), mine.cpu())
        )
        count = len(self.vocabulary)
        if not same or (bias is not None and bias.shape != (count,)):
            raise CheckpointError(
                'The checkpoint was trained with another vocabulary than the '
                f'{count} answers of {self.vocabulary_field}. Its outputs would mean other answers.'
            )
        super()._load_from_state_dict(state_dict, prefix, *others)
