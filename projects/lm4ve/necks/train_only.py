"""What a neck does in training only: a block that is a branch, and a part of the tokens.

Both leave evaluation as it is without a block, or without them.

*Branch*: "Frozen language models are gradient coherence rectifiers in vision
transformers" (AAAI 2025) finds that a frozen block aligns the gradients of different
samples, and that a second path of gradients through it improves an encoder that is used
without it. Here the block is a branch beside the identity, whose weight falls to zero
while training goes on.

*Train queries*: where a head pools over all tokens (VideoMAE's mean of 1,568), the
gradient of a step is an estimate in any case, of some samples for all. So a step may
compute the block's last layer for a random part of the tokens; all of them serve as
keys and values.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lm4ve.blocks.layer import Queries, take_tokens
from lm4ve.errors import UserError, build_from, check

_NUMBER = (int, float)


@dataclass(frozen=True)
class TrainBranch:
    """The weight of the branch over a training.

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
        check(
            'neck.branch.schedule',
            self.schedule,
            choices=('cosine', 'linear', 'constant'),
        )
        check('neck.branch.end', self.end, kind=_NUMBER, above=0, most=1)
        check(
            'neck.branch.weight', self.weight, kind=_NUMBER, above=-math.inf, most=1e6
        )

    def at(self, progress: float) -> float:
        """Return the weight at some progress of training in [0, 1]."""
        if progress >= self.end:
            return 0.0
        passed = progress / self.end
        if self.schedule == 'cosine':
            return self.weight * (1 + math.cos(math.pi * passed)) / 2
        return self.weight * (1 - passed if self.schedule == 'linear' else 1)


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


def _fraction_of(fraction: Any) -> Any:
    """Return the only field of ``train_queries``."""
    return fraction


class TrainOnly:
    """Runs a neck's mappers and block as ``train_queries`` and ``branch`` prescribe.

    Args:
        train_queries, branch, out_type, residual: Fields of
            :class:`lm4ve.necks.LLMBlockNeck`.

    Attributes:
        progress (float | None): How far training has come, in [0, 1].
        scheduled (bool): Whether a training step depends on it.

    Raises:
        UserError: A field has no such value, or does not go with the others.
    """

    def __init__(
        self, train_queries: Any, branch: Any, out_type: str, residual: str
    ) -> None:
        self.progress: float | None = None
        self.branch: TrainBranch | None = None
        self.queries: tuple[float, ...] | None = (
            None  # fractions of the first and last step
        )
        if train_queries is not None:
            given = train_queries
            if isinstance(train_queries, _NUMBER):
                given = dict(fraction=train_queries)
            part = build_from(_fraction_of, given, 'neck.train_queries')
            self.queries = tuple(part) if isinstance(part, (list, tuple)) else (part,)
            for part in self.queries:
                check(
                    'neck.train_queries.fraction', part, kind=_NUMBER, above=0, most=1
                )
            check(
                'neck.train_queries: number of fractions',
                len(self.queries),
                choices=(1, 2),
            )
            # One token is nothing to draw from.
            choices = ('raw', 'avg_featmap')
            check('neck.out_type with neck.train_queries', out_type, choices=choices)
        if branch:
            check('neck.branch', branch, kind=(bool, dict))
            self.branch = build_from(
                TrainBranch, {} if branch is True else branch, 'neck.branch'
            )
            # The others add the neck's input to its output, which the branch does
            # itself.
            check('neck.residual with neck.branch', residual, choices=('none', 'inner'))
        self.scheduled = len(self.queries or ()) > 1 or self.branch is not None

    def __call__(
        self,
        neck: Any,
        tokens: Tensor,
        is_map: bool,
        padding_mask: Tensor | None,
        queries: Queries,
    ) -> tuple[Tensor, Tensor | None]:
        """Run a neck's mappers and block.

        Returns:
            tuple[Tensor, Tensor | None]: The tokens ``[B, Q, C]``, and the padding mask
            that still holds for them.

        Raises:
            UserError: The progress of training is wanted and unknown, or the host reads
                certain tokens, of which not all are computed.
        """
        observed, training = neck._observed, neck.training
        if training and self.scheduled and self.progress is None:
            raise UserError(
                'neck.branch and a growing neck.train_queries need lm4ve.NeckProgressHook in '
                'custom_hooks, or neck.set_progress(step / steps) before each step.'
            )
        progress, drawn = self.progress or 0.0, None
        if self.queries and training and not observed:
            raw, extra = neck.out_type == 'raw', neck.num_extra_tokens
            if raw and (queries is not None or is_map or padding_mask is not None):
                raise UserError(
                    'neck.train_queries gives fewer tokens back, and this host reads certain ones '
                    "or a map. Fix: out_type='avg_featmap', or no train_queries."
                )
            first, last = self.queries[0], self.queries[-1]
            fraction = first + (last - first) * progress
            drawn = draw_tokens(tokens, padding_mask, extra, fraction)
            if drawn is not None and raw:
                kept = torch.arange(extra, device=drawn.device)
                drawn = torch.cat([kept.expand(len(drawn), -1), drawn], dim=1)
        weight = self.branch.at(progress) if self.branch and training else 0.0
        if self.branch and not weight and not observed:  # the branch rests
            out = take_tokens(tokens, queries)
            if training:  # DDP waits for a gradient of every parameter
                out = out + 0 * sum(
                    p.sum() for p in neck.parameters() if p.requires_grad
                )
            return out, padding_mask
        read = queries if drawn is None else drawn
        out = neck.run(tokens, padding_mask, read)
        if (
            self.branch
        ):  # where an observer looks at an evaluation, the block has no part in it
            out = take_tokens(tokens, read) + out * weight
        return out, padding_mask if drawn is None else None  # padding is never drawn
