"""Answers out of a vocabulary: the base of heads that choose one.

An output of a head is the place of an answer in its vocabulary. With another vocabulary
it would be another answer in silence, so every checkpoint has a fingerprint of the
vocabulary.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lm4ve.errors import CheckpointError

FINGERPRINT = 'vocabulary_fingerprint'
#: Kinds of training targets: a score for each answer, or the one answer.
TARGETS = ('soft', 'hard')
#: The score of an answer by how many of VQA's ten annotators gave it, as in METER and the
#: code before it; the last entry is that of four and more.
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
    """A head with ``layers``, the last of which (number 3) returns a logit for each answer."""

    #: The config's field that names the answers, for messages.
    vocabulary_field = 'model.head.vocabulary'

    def set_vocabulary(self, answers: Sequence[str]) -> None:
        """Set the answers, in the order of the logits."""
        self.vocabulary = list(answers)
        self.index = {answer: index for index, answer in enumerate(self.vocabulary)}
        # torch.distributed.checkpoint looks keys up as attributes, so there is a buffer of
        # this name. It is empty, since hooks take means of buffers; the fingerprint itself
        # is written when a state dict is made.
        self.register_buffer(FINGERPRINT, torch.empty(0, dtype=torch.uint8))

    def _save_to_state_dict(
        self, state_dict: dict, prefix: str, keep_vars: bool
    ) -> None:
        """Write the head's own tensors and the fingerprint into a state."""
        super()._save_to_state_dict(state_dict, prefix, keep_vars)
        state_dict[prefix + FINGERPRINT] = vocabulary_digest(self.vocabulary)

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *others: object
    ) -> None:
        """Refuse a checkpoint of another vocabulary, also where loading is not strict.

        Raises:
            CheckpointError: The answers differ.
        """
        fingerprint = state_dict.pop(prefix + FINGERPRINT, None)
        if fingerprint is not None:
            state_dict[prefix + FINGERPRINT] = self._buffers[FINGERPRINT]
        # Of the last layer: a number for each answer.
        bias = state_dict.get(f'{prefix}layers.3.bias')
        if not self._is_own(fingerprint) or not self._has_own_size(bias):
            raise CheckpointError(
                'The checkpoint was trained with another vocabulary than the '
                f'{len(self.vocabulary)} answers of {self.vocabulary_field}. Its outputs '
                'would mean other answers.'
            )
        super()._load_from_state_dict(state_dict, prefix, *others)

    def _is_own(self, fingerprint: Tensor | None) -> bool:
        """Return whether a stored fingerprint, if there is one, is that of this vocabulary."""
        if fingerprint is None:
            return True
        own = vocabulary_digest(self.vocabulary)
        if fingerprint.dtype != own.dtype:
            return False
        return torch.equal(fingerprint.cpu(), own)

    def _has_own_size(self, bias: Tensor | None) -> bool:
        """Return whether the last layer's stored bias, if there is one, is of as many answers."""
        return bias is None or bias.shape == (len(self.vocabulary),)
