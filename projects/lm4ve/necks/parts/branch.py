"""The block as a branch beside the identity, in training only.

"Frozen language models are gradient coherence rectifiers in vision transformers" (AAAI
2025) finds that a frozen block aligns the gradients of different samples, and that a
second path of gradients through it improves an encoder that is used without it. Here
the block is a branch whose weight falls to zero while training goes on. Evaluation runs
without the block.
"""

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lm4ve.blocks.tokens import take_tokens
from lm4ve.errors import build_from, check
from lm4ve.necks.parts.part import Part, Request, Run, Step


@dataclass(frozen=True)
class TrainBranch:
    """The fields of ``branch``: its weight over a training.

    Attributes:
        weight (float): What the branch is multiplied by in the first step.
        end (float): How far training has come, in (0, 1], when the branch is dropped.
            The rest of the training adapts head and encoder to its absence, and costs
            what a training without a block costs.
        schedule (str): How it falls to zero until then: 'cosine', 'linear', or
            'constant', which keeps the weight and drops it at once.
    """

    weight: float = 1.0
    end: float = 0.8
    schedule: str = 'cosine'

    def __post_init__(self) -> None:
        number = (int, float)
        schedules = ('cosine', 'linear', 'constant')
        check('neck.branch.schedule', self.schedule, choices=schedules)
        check('neck.branch.end', self.end, kind=number, above=0, most=1)
        check('neck.branch.weight', self.weight, kind=number, above=-math.inf, most=1e6)

    def at(self, progress: float) -> float:
        """Return the branch's weight when a part ``progress`` of training is over.

        Args:
            progress (float): In [0, 1].
        """
        if progress >= self.end:
            return 0.0
        passed = progress / self.end
        if self.schedule == 'cosine':
            return self.weight * (1 + math.cos(math.pi * passed)) / 2
        if self.schedule == 'linear':
            return self.weight * (1 - passed)
        return self.weight


def parse_branch(branch: Any) -> TrainBranch | None:
    """Parse the field ``branch``; None: the block is no branch.

    Raises:
        UserError: It is neither a bool nor a dict, or a field has no such value.
    """
    if branch is None or branch is False:
        return None
    check('neck.branch', branch, kind=(bool, dict))
    if branch is True:
        return TrainBranch()
    return build_from(TrainBranch, branch, 'neck.branch')


class Branch(Part):
    """Adds the path's output, times a falling weight, to the tokens that went in.

    Args:
        fields (TrainBranch): The weight over a training.
    """

    follows_progress = True

    def __init__(self, fields: TrainBranch) -> None:
        self.fields = fields

    def before(self, request: Request, step: Step) -> Request:
        """Return the request as it is, but refuse a training step of unknown progress.

        Raises:
            UserError: See :meth:`Part.progress_in`.
        """
        self.progress_in(step)
        return request

    def around(self, run: Run, step: Step, request: Request) -> Tensor:
        """Add the path's output times the branch's weight to the tokens that went in.

        The path is not run if the weight is zero, as in evaluation and late in
        training, unless an observer looks at its modules.
        """
        weight = 0.0
        if step.training:
            weight = self.fields.at(self.progress_in(step))
        # An observer sees the block in an evaluation too, where it has no part.
        if weight == 0 and not step.observed:
            return self._leave_out(step, request)
        identity = take_tokens(request.tokens, request.queries)
        return identity + run(request) * weight

    def _leave_out(self, step: Step, request: Request) -> Tensor:
        """Return the tokens that the host reads as they came in.

        In a training step the parameters of the path have part in them, with the factor
        zero, since DDP waits for a gradient of every parameter.
        """
        tokens = take_tokens(request.tokens, request.queries)
        if step.training:
            trained = [p for p in step.parameters() if p.requires_grad]
            tokens = tokens + 0 * sum(p.sum() for p in trained)
        return tokens
