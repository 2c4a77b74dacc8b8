"""A block that serves training only.

"Frozen language models are gradient coherence rectifiers in vision transformers" (AAAI
2025) finds that a frozen block aligns the gradients of different samples, and that a second
path of gradients through it improves an encoder that is used without it. Here the block
is a branch beside the identity, whose weight falls to zero while training goes on.
Evaluation never computes it.
"""

import math
from dataclasses import dataclass
from typing import Any

from lm4ve.errors import UserError, check

SCHEDULES = ('cosine', 'linear', 'constant')


@dataclass(frozen=True)
class TrainBranch:
    """The weight of the branch over a training.

    Attributes:
        weight (float): What the branch is multiplied by in the first step.
        end (float): How far training has come, in (0, 1], when the branch is dropped. The
            rest of the training adapts head and encoder to its absence, and costs
            what a training without a block costs.
        schedule (str): How it falls to zero until then: 'cosine', 'linear', or 'constant',
            which keeps the weight and drops it at once.
    """

    weight: float = 1.0
    end: float = 0.8
    schedule: str = 'cosine'

    def at(self, progress: float) -> float:
        """Return the weight at some progress of training in [0, 1]."""
        if progress >= self.end:
            return 0.0
        passed = progress / self.end
        if self.schedule == 'cosine':
            return self.weight * (1 + math.cos(math.pi * passed)) / 2
        return self.weight * (1 - passed if self.schedule == 'linear' else 1)


def read_branch(value: Any, residual: str) -> TrainBranch | None:
    """Read the neck's field ``branch``.

    Raises:
        UserError: It is no such dict, or a residual around the block is set as well.
    """
    if value is None or value is False:
        return None
    known = set(TrainBranch.__dataclass_fields__)
    if value is not True and not (isinstance(value, dict) and set(value) <= known):
        raise UserError(
            f'neck.branch={value!r} must be True or a dict of {", ".join(sorted(known))}. Fix: '
            'correct it.'
        )
    branch = TrainBranch(**({} if value is True else value))
    check('neck.branch.schedule', branch.schedule, choices=SCHEDULES)
    for name, least in (('weight', -math.inf), ('end', 0)):
        number = getattr(branch, name)
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise UserError(f'neck.branch.{name}={number!r} must be a number. Fix: correct it.')
        if not least < number < math.inf or (name == 'end' and number > 1):
            raise UserError(
                f'neck.branch.{name}={number!r} must be '
                f'{"in (0, 1]" if name == "end" else "finite"}. Fix: correct it.'
            )
    if residual in ('outer', 'both'):
        raise UserError(
            f"neck.residual='{residual}' adds the neck's input to its output, which neck.branch "
            "does itself. Fix: residual='none' or 'inner'."
        )
    return branch
