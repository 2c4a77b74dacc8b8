"""What heads share that choose an answer out of a vocabulary.

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
#: How many of VQA's ten annotators gave an answer -> its score (METER, as the code before
#: it). From the last entry on it is the last entry's.
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


class KnowsVocabulary(nn.Module):
    """A head with ``layers``, the last of which (number 3) gives one logit an answer."""

    #: The config's field that names the answers, for messages.
    vocabulary_field = 'model.head.vocabulary'

    def know(self, answers: Sequence[str]) -> None:
        """Take the answers, in the order of the logits."""
        self.vocabulary = list(answers)
        self.index = {a: i for i, a in enumerate(self.vocabulary)}
        self.register_buffer(FINGERPRINT, vocabulary_digest(self.vocabulary))

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *others: object) -> None:
        """Refuse a checkpoint of another vocabulary, even where loading is not strict.

        Raises:
            CheckpointError: The answers differ.
        """
        stored = state_dict.get(prefix + FINGERPRINT)
        last = state_dict.get(f'{prefix}layers.3.bias')
        mine = getattr(self, FINGERPRINT)
        other = stored is not None and (
            stored.dtype != mine.dtype or not torch.equal(stored.cpu(), mine.cpu())
        )
        answers = None if last is None or last.dim() != 1 else len(last)
        if other or (answers is not None and answers != len(self.vocabulary)):
            count = '' if answers is None else f' of {answers} answers'
            raise CheckpointError(
                f'The checkpoint was trained with another vocabulary{count}; '
                f'{self.vocabulary_field} has {len(self.vocabulary)}. Its outputs would mean other '
                'answers. Fix: give the vocabulary file that the checkpoint was trained with.'
            )
        super()._load_from_state_dict(state_dict, prefix, *others)
