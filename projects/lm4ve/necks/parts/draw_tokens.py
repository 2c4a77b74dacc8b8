"""Training steps that compute a random part of the tokens.

Where a head pools over all tokens (VideoMAE's mean of 1,568), the gradient of a step is
an estimate in any case, of some samples for all. So a step may compute the block's last
layer for a random part of the tokens; all of them serve as keys and values. Evaluation
computes all tokens.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lm4ve.errors import UserError, build_from, check
from lm4ve.necks.parts.part import Part, Request, Step


@dataclass(frozen=True)
class TrainQueries:
    """The fields of ``train_queries``.

    Attributes:
        fraction (float | Sequence[float]): The part of the tokens that a step computes,
            in (0, 1]: a number, or a pair for the first and the last step.
    """

    fraction: Any

    def __post_init__(self) -> None:
        for value in self.fractions:
            check(
                'neck.train_queries.fraction',
                value,
                kind=(int, float),
                above=0,
                most=1,
            )
        count = len(self.fractions)
        check('neck.train_queries: number of fractions', count, choices=(1, 2))

    @property
    def fractions(self) -> tuple[float, ...]:
        """One fraction, or those of the first and the last step."""
        if isinstance(self.fraction, (list, tuple)):
            return tuple(self.fraction)
        return (self.fraction,)

    def at(self, progress: float) -> float:
        """Return the fraction at some progress of training in [0, 1]."""
        first = self.fractions[0]
        last = self.fractions[-1]
        return first + (last - first) * progress


def parse_train_queries(fields: Any) -> TrainQueries | None:
    """Parse the field ``train_queries``; None: every step computes all tokens.

    Raises:
        UserError: It is neither a number nor a dict, or a fraction has no such value.
    """
    if fields is None:
        return None
    if isinstance(fields, (int, float)):
        return TrainQueries(fields)
    return build_from(TrainQueries, fields, 'neck.train_queries')


class DrawTokens(Part):
    """Draws the tokens that a training step computes, anew for each sample.

    Args:
        fields (TrainQueries): How many.
        extra (int): How many class and register tokens come first, which are not drawn
            from.
        keeps_extra (bool): Whether the host reads these too, so that they come before
            the drawn ones.
    """

    def __init__(self, fields: TrainQueries, extra: int, keeps_extra: bool) -> None:
        self.fields = fields
        self.extra = extra
        self.keeps_extra = keeps_extra
        self.follows_progress = len(fields.fractions) > 1

    def before(self, request: Request, step: Step) -> Request:
        """Draw tokens, in training and unless an observer looks at all of them."""
        progress = self.progress_in(step)
        if not step.training or step.observed:
            return request
        if self.keeps_extra:
            self._refuse_certain_tokens(request)
        fraction = self.fields.at(progress)
        drawn = draw_tokens(request.tokens, request.padding_mask, self.extra, fraction)
        if drawn is not None and self.keeps_extra:
            kept = torch.arange(self.extra, device=drawn.device)
            drawn = torch.cat([kept.expand(len(drawn), -1), drawn], dim=1)
        return request._replace(drawn=drawn)

    def _refuse_certain_tokens(self, request: Request) -> None:
        """Refuse to draw for a host that needs certain tokens.

        Raises:
            UserError: It asks for some, or reads a map, or gives a mask of all.
        """
        is_asked = request.queries is not None
        is_padded = request.padding_mask is not None
        if is_asked or is_padded or request.is_map:
            raise UserError(
                'neck.train_queries gives fewer tokens back, and this host reads '
                "certain ones or a map. Fix: out_type='avg_featmap', or no "
                'train_queries.'
            )


def draw_tokens(
    x: Tensor, padding_mask: Tensor | None, extra: int, fraction: float
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
        fraction (float): The part of the tokens that is drawn.

    Returns:
        Tensor | None: Indices into N, int64 ``[B, k]``; None: all of them.
    """
    n = x.shape[1] - extra
    k = max(1, math.ceil(fraction * n - 1e-9))
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
