"""What a neck does in training only: fewer tokens, or a block that is a branch.

Both leave evaluation as it is without them, or without a block.
"""

from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from lm4ve.blocks.layer import Queries, take_tokens
from lm4ve.errors import UserError
from lm4ve.necks.branch import TrainBranch
from lm4ve.necks.train_queries import TrainQueries, linear_difference, with_sampled_gradient


class InTraining(BaseModule):  # type: ignore[misc]
    """Base of the neck, with its fields ``train_queries`` and ``branch``."""

    train_queries: TrainQueries | None
    branch: TrainBranch | None
    branch_weight: Tensor
    mapper_in: nn.Linear
    mapper_out: nn.Linear
    residual: str
    out_type: str
    num_extra_tokens: int
    _observed: bool
    _progress: float | None

    def _run(self, *args: Any) -> Tensor:
        raise NotImplementedError

    @property
    def follows_progress(self) -> bool:
        """Whether a training step depends on how far training has come."""
        scheduled = self.train_queries is not None and self.train_queries.scheduled
        return scheduled or self.branch is not None

    def set_progress(self, progress: float) -> None:
        """Say how far training has come; a hook of our runners does so before each step.

        Args:
            progress (float): In [0, 1].
        """
        self._progress = progress
        if self.branch is not None:
            self.branch_weight.fill_(self.branch.at(progress))

    def _told_progress(self) -> float:
        """Return how far training has come.

        Raises:
            UserError: Nobody has said so.
        """
        if self._progress is None and self.follows_progress:
            raise UserError(
                'neck.branch and a growing neck.train_queries follow how far training has come, '
                "and nobody says so. Fix: custom_hooks=[dict(type='lm4ve.NeckProgressHook')], or "
                'neck.set_progress(step / steps) before each step of a loop of your own.'
            )
        return self._progress or 0.0

    def _rests(self) -> bool:
        """Whether the branch has no part in this pass."""
        if self.branch is None:
            return False
        return not self.training or self.branch.at(self._told_progress()) == 0

    def _identity(self, tokens: Tensor, queries: Queries) -> Tensor:
        out = take_tokens(tokens, queries)
        if self.training:  # DDP waits for a gradient of every parameter
            out = out + 0 * (self.mapper_in.weight.sum() + self.mapper_out.weight.sum())
        return out

    def _beside(self, tokens: Tensor, out: Tensor, queries: Queries) -> Tensor:
        """Add the identity to the branch: ``[B, Q, C]``."""
        # Where an observer looks at an evaluation, the block runs and has no part in it.
        weight = self.branch_weight if self.training else 0
        return take_tokens(tokens, queries) + out * weight

    def _draw(
        self, tokens: Tensor, padding_mask: Tensor | None, queries: Queries, is_map: bool
    ) -> Tensor | None:
        """Return the tokens that this training step computes, or None for all.

        Raises:
            UserError: The host wants certain tokens, or a map or a mask of all of them.
        """
        wanted = self.train_queries
        if wanted is None or not self.training or self._observed:
            return None
        if queries is not None:
            raise UserError(
                'neck.train_queries draws tokens, but this host computes only those that it reads '
                'already. Fix: take neck.train_queries out.'
            )
        needs_all = is_map or padding_mask is not None
        if self.out_type == 'raw' and needs_all and not wanted.gradient_only:
            raise UserError(
                'neck.train_queries gives fewer tokens back, and this host needs the '
                f"{'map' if is_map else 'tokens of its padding mask'}. Fix: out_type='avg_featmap',"
                ' or train_queries=dict(fraction=..., gradient_only=True).'
            )
        return wanted.draw(tokens, padding_mask, self.num_extra_tokens, self._told_progress())

    def _run_drawn(
        self, tokens: Tensor, padding_mask: Tensor | None, queries: Queries, drawn: Tensor
    ) -> Tensor:
        """Run the neck for the tokens that come first and the drawn ones.

        Returns:
            Tensor: ``[B, Q, C]`` of all that ``queries`` asks for, if only the gradient is
            drawn; else those computed, or for 'avg_featmap' their mean ``[B, C]``.
        """
        wanted, extra = self.train_queries, self.num_extra_tokens
        assert wanted is not None
        mean = self.out_type == 'avg_featmap'
        if mean:
            places = drawn
        else:
            first = torch.arange(extra, device=drawn.device)
            places = torch.cat([first.expand(len(drawn), -1), drawn], dim=1)
        out = self._run(tokens, padding_mask, places)
        if wanted.gradient_only:
            with torch.no_grad():
                exact = self._run(tokens, padding_mask, queries)
            return with_sampled_gradient(
                exact,
                out,
                places - extra if mean else places,
                self._stands_for(places, padding_mask, tokens),
            )
        if not mean:
            return out
        out = out.mean(dim=1)
        if wanted.control_variate:
            weights = self.mapper_in.weight, self.mapper_out.weight
            given, mapped = linear_difference(tokens, drawn, padding_mask, extra, weights)
            # The stream that a block adds to, and what goes around it.
            mapped = mapped * (2 if self.residual in ('inner', 'both') else 1)
            if self.branch is not None:
                out = out + given + mapped * self.branch_weight
            else:
                out = out + mapped + (given if self.residual in ('outer', 'both') else 0)
        return out

    def _stands_for(self, places: Tensor, padding_mask: Tensor | None, tokens: Tensor) -> Tensor:
        """Return how many tokens each computed one stands for, ``[B or 1, k, 1]``."""
        extra = self.num_extra_tokens
        if padding_mask is None:
            count = tokens.new_full((1, 1), tokens.shape[1] - extra)
        else:
            count = (~padding_mask[:, extra:]).sum(dim=1, keepdim=True).to(tokens.dtype)
        alone = 0 if self.out_type == 'avg_featmap' else extra
        drawn = (count / (places.shape[1] - alone)).expand(-1, places.shape[1] - alone)
        return torch.cat([torch.ones_like(drawn[:, :1]).expand(-1, alone), drawn], dim=1)[..., None]
