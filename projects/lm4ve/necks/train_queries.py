"""Training with some of a block's tokens: a mean over tokens needs few of them to be good.

Where a head pools over all tokens (VideoMAE's mean of 1,568, Point-BERT's maximum of 64),
the block's cost is that of all of them, and no exact path avoids it. But the gradient of a
step is an estimate in any case, of some samples for all. So a step may compute the block's
last layer for a random part of the tokens, while all of them serve as keys and values.
Evaluation computes all.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lm4ve.errors import UserError


@dataclass(frozen=True)
class TrainQueries:
    """Which tokens a training step computes, and what stands for the others.

    Attributes:
        fraction (float | tuple[float, float]): Part of the tokens, in (0, 1]; or that of the
            first and of the last step, between which it grows linearly.
        gradient_only (bool): The forward value is exact: all tokens are computed without
            a graph, and the gradient goes through the drawn ones, scaled by how many each
            stands for. It saves the backward pass only.
        control_variate (bool): Correct the mean by the difference that the sample makes
            in a linear function of the neck's input, whose mean over all tokens is known:
            the mappers without the block between them. For ``out_type='avg_featmap'``.
    """

    fraction: float | tuple[float, float]
    gradient_only: bool = False
    control_variate: bool = False

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


def read_train_queries(value: Any, out_type: str) -> TrainQueries | None:
    """Read the neck's field ``train_queries``.

    Raises:
        UserError: It is no part of the tokens, or the neck computes no mean or tokens.
    """
    if value is None or isinstance(value, TrainQueries):
        return value
    given = dict(value) if isinstance(value, dict) else dict(fraction=value)
    known = set(TrainQueries.__dataclass_fields__)
    if 'fraction' not in given or not set(given) <= known:
        raise UserError(
            f'neck.train_queries={value!r} must be a part of the tokens such as 0.25, or a dict '
            f'of {", ".join(sorted(known))}. Fix: correct it.'
        )
    fraction = given['fraction']
    if isinstance(fraction, Sequence) and len(fraction) == 2:
        fraction = given['fraction'] = tuple(fraction)
    parts = fraction if isinstance(fraction, tuple) else (fraction,)
    if any(isinstance(p, bool) or not isinstance(p, int | float) or not 0 < p <= 1 for p in parts):
        raise UserError(
            f'neck.train_queries: fraction={fraction!r} must be a number in (0, 1], or two of '
            'them, of the first and of the last step. Fix: correct it; 0.25 computes a quarter.'
        )
    if out_type == 'cls_token':
        raise UserError(
            "neck.train_queries has nothing to leave out with neck.out_type='cls_token', which "
            'computes one token. Fix: take it out.'
        )
    if given.get('control_variate') and out_type != 'avg_featmap':
        raise UserError(
            f"neck.train_queries: control_variate corrects a mean, and neck.out_type='{out_type}' "
            "takes none. Fix: out_type='avg_featmap', or control_variate=False."
        )
    return TrainQueries(**given)


def with_sampled_gradient(exact: Tensor, drawn: Tensor, places: Tensor, scale: Tensor) -> Tensor:
    """Return the exact values, whose gradient goes through the drawn ones.

    Args:
        exact (Tensor): All tokens' outputs without a graph, ``[B, N, C]``.
        drawn (Tensor): The drawn ones' with a graph, ``[B, k, C]``.
        places (Tensor): Their indices into N, int64 ``[B, k]``.
        scale (Tensor): How many tokens each stands for, broadcastable to ``[B, k, 1]``.
    """
    nothing = (drawn - drawn.detach()) * scale.to(drawn.dtype)
    return exact.scatter_add(1, places[..., None].expand_as(nothing), nothing.to(exact.dtype))


def linear_difference(
    x: Tensor, places: Tensor, padding_mask: Tensor | None, extra: int, mappers: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return how far the mean of all tokens is from that of the drawn ones.

    Args:
        x (Tensor): The neck's input, ``[B, N, C]``.
        places (Tensor): Drawn indices, ``[B, k]``.
        padding_mask (Tensor, optional): ``[B, N]``, True = padding.
        extra (int): How many tokens come first that the mean leaves out.
        mappers (Sequence[Tensor]): Weights of the mappers, ``[D, C]`` and ``[C, D]``.

    Returns:
        tuple[Tensor, Tensor]: ``[B, C]``: of the input, and of the input through the mappers.
    """
    mask = None if padding_mask is None else padding_mask[:, extra:]
    drawn = x.gather(1, places[..., None].expand(-1, -1, x.shape[-1]))
    difference = mean_of_tokens(x[:, extra:], mask) - drawn.mean(dim=1)
    mapped = difference
    for weight in mappers:
        mapped = F.linear(mapped, weight)
    return difference, mapped


def mean_of_tokens(x: Tensor, padding_mask: Tensor | None) -> Tensor:
    """Mean over the tokens that are not padding, ``[B, N, C] -> [B, C]``."""
    if padding_mask is None:
        return x.mean(dim=1)
    kept = (~padding_mask)[..., None].to(x.dtype)
    # where(), not a product: what stands at padded places may be anything.
    x = torch.where(padding_mask[..., None], 0.0, x)
    return x.sum(dim=1) / kept.sum(dim=1)
