"""What a neck does in training only: a block that is a branch, and a part of the tokens.

Both leave evaluation as it is without a block, or without them.

*Branch*: "Frozen language models are gradient coherence rectifiers in vision transformers"
(AAAI 2025) finds that a frozen block aligns the gradients of different samples, and that a
second path of gradients through it improves an encoder that is used without it. Here the
block is a branch beside the identity, whose weight falls to zero while training goes on.

*Train queries*: where a head pools over all tokens (VideoMAE's mean of 1,568), the gradient
of a step is an estimate in any case, of some samples for all. So a step may compute the
block's last layer for a random part of the tokens; all of them serve as keys and values.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lm4ve.errors import check

_NUMBER = (int, float)


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


@dataclass(frozen=True)
class TrainQueries:
    """Which tokens a training step computes.

    Attributes:
        fraction (float | tuple[float, float]): Part of the tokens, in (0, 1]; or that of the
            first and of the last step, between which it grows linearly.
    """

    fraction: float | tuple[float, float]

    @property
    def scheduled(self) -> bool:
        """Whether the part depends on how far training has come."""
        return isinstance(self.fraction, tuple)

    def part(self, progress: float) -> float:
        """Return the part at some progress of training in [0, 1]."""
        if not isinstance(self.fraction, tuple):
            return self.fraction
        first, last = self.fraction
        return first + (last - first) * progress

    def draw(
        self, x: Tensor, padding_mask: Tensor | None, extra: int, progress: float
    ) -> Tensor | None:
        """Draw one token from each of k equal stretches, for every sample anew.

        Each token is drawn with the same probability, so that the mean over the drawn
        ones estimates the mean over all without bias. If k does not divide the number of
        tokens, one at the border of two stretches can be drawn twice.

        Args:
            x (Tensor): Tokens ``[B, N, C]``.
            padding_mask (Tensor, optional): Bool ``[B, N]``, True = padding, which is
                never drawn.
            extra (int): How many tokens come first that are not drawn from.
            progress (float): How far training has come, in [0, 1].

        Returns:
            Tensor | None: Indices into N, int64 ``[B, k]``; None: all of them.
        """
        n = x.shape[1] - extra
        k = max(1, math.ceil(self.part(progress) * n - 1e-9))
        if k >= n:
            return None
        start = torch.arange(k, device=x.device)
        places = (start + torch.rand(x.shape[0], k, device=x.device)) / k
        if padding_mask is None:
            return extra + (places * n).long().clamp_(max=n - 1)
        padded = padding_mask[:, extra:]
        count = (~padded).sum(dim=1, keepdim=True)
        nth = torch.minimum((places * count).long(), (count - 1).clamp_(min=0))
        kept_first = padded.to(torch.uint8).argsort(dim=1, stable=True)
        return extra + kept_first.gather(1, nth)


def parse_branch(value: Any, residual: str) -> TrainBranch | None:
    """Return the neck's field ``branch`` as a schedule.

    Raises:
        UserError: It is no such dict, or a residual around the block is set as well.
    """
    if value is None or value is False:
        return None
    branch = TrainBranch(**_fields('neck.branch', {} if value is True else value, TrainBranch))
    check('neck.branch.schedule', branch.schedule, choices=('cosine', 'linear', 'constant'))
    check('neck.branch.end', branch.end, kind=_NUMBER, above=0, most=1)
    check('neck.branch.weight', branch.weight, kind=_NUMBER, above=-math.inf, most=1e6)
    # The others add the neck's input to its output, which the branch does itself.
    check('neck.residual with neck.branch', residual, choices=('none', 'inner'))
    return branch


def parse_train_queries(value: Any, out_type: str) -> TrainQueries | None:
    """Return the neck's field ``train_queries`` as a part of the tokens.

    Raises:
        UserError: It is no part of the tokens, or the neck computes one token.
    """
    if value is None or isinstance(value, TrainQueries):
        return value
    field = 'neck.train_queries'
    given = dict(fraction=value) if isinstance(value, _NUMBER) else value
    fraction = _fields(field, given, TrainQueries).get('fraction')
    parts = tuple(fraction) if isinstance(fraction, (list, tuple)) else (fraction,)
    for part in parts:
        check(f'{field}.fraction', part, kind=_NUMBER, above=0, most=1)
    check(f'{field}: number of fractions', len(parts), choices=(1, 2))
    check('neck.out_type with neck.train_queries', out_type, choices=('raw', 'avg_featmap'))
    return TrainQueries(parts if len(parts) > 1 else parts[0])


def _fields(field: str, value: Any, kind: type) -> dict[str, Any]:
    """Return a dict of a dataclass' fields."""
    check(field, value, kind=dict)
    for name in value:
        check(f'a field of {field}', name, choices=tuple(kind.__annotations__))
    return dict(value)


def mean_of_tokens(x: Tensor, padding_mask: Tensor | None) -> Tensor:
    """Mean over the tokens that are not padding, ``[B, N, C] -> [B, C]``."""
    if padding_mask is None:
        return x.mean(dim=1)
    kept = (~padding_mask)[..., None].to(x.dtype)
    # where(), not a product: what stands at padded places may be anything.
    x = torch.where(padding_mask[..., None], 0.0, x)
    return x.sum(dim=1) / kept.sum(dim=1)
