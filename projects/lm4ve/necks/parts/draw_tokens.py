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
        """Return the fraction when a part ``progress`` of training, in [0, 1], is over."""
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
        """Draw the tokens that a training step computes: ``drawn`` of the request.

        Nothing is drawn in evaluation, and while an observer looks at all tokens.

        Raises:
            UserError: A training step needs the progress of training, which was not
                set; or the host would not get the tokens that it reads.
        """
        # Raises in any training step without progress, also in one that is observed.
        progress = self.progress_in(step)
        if not step.training or step.observed:
            return request
        if self.keeps_extra:
            self._check_host_reads_any_tokens(request)
        fraction = self.fields.at(progress)
        drawn = draw_tokens(request.tokens, request.padding_mask, self.extra, fraction)
        if drawn is not None and self.keeps_extra:
            drawn = self._prepend_extra_tokens(drawn)
        return request._replace(drawn=drawn)

    def _prepend_extra_tokens(self, drawn: Tensor) -> Tensor:
        """Put the indices of class and register tokens before those of drawn tokens.

        Args:
            drawn (Tensor): int64 ``[B, k]``.

        Returns:
            Tensor: int64 ``[B, extra + k]``.
        """
        batch = len(drawn)
        extra_tokens = torch.arange(self.extra, device=drawn.device)
        return torch.cat([extra_tokens.expand(batch, -1), drawn], dim=1)

    def _check_host_reads_any_tokens(self, request: Request) -> None:
        """Check that the host of a neck with out_type='raw' can do with any tokens.

        Raises:
            UserError: It asks for certain ones, reads a map, or has a padding mask for
                all of them.
        """
        asks_for_tokens = request.queries is not None
        has_mask = request.padding_mask is not None
        if asks_for_tokens or has_mask or request.is_map:
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
    # In floating point 0.07 * 100 is a little above 7, which must not become 8.
    k = max(1, math.ceil(fraction * n - 1e-9))
    if k >= n:
        return None
    # A random point of each of k stretches of [0, 1).
    stretch = torch.arange(k, device=x.device)
    points = (stretch + torch.rand(x.shape[0], k, device=x.device)) / k
    if padding_mask is None:
        return extra + (points * n).long().clamp_(max=n - 1)
    # The points are scaled to the tokens that are not padding, which are sorted first.
    is_padding = padding_mask[:, extra:]
    count = (~is_padding).sum(dim=1, keepdim=True)
    ranks = torch.minimum((points * count).long(), (count - 1).clamp_(min=0))
    by_padding = is_padding.to(torch.uint8).argsort(dim=1, stable=True)
    return extra + by_padding.gather(1, ranks)
