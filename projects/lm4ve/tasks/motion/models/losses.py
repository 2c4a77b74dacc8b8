"""Losses of both models, pure functions of tensors.

Those of mmTransformer's proposals: arXiv 2103.11624, sections 3.4 and 3.5.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def take_agents(values: Tensor, queries: Tensor) -> Tensor:
    """Pick agents of each scene: ``[B, A, ...]`` by int64 ``[B, Q]`` gives ``[B, Q, ...]``."""
    scenes = torch.arange(values.shape[0], device=values.device)
    return values[scenes[:, None], queries]


def ends_of(trajectories: Tensor, valid: Tensor) -> Tensor:
    """Return the points at the last True of each row, ``[B, ..., F, 2] -> [B, ..., 2]``."""
    steps_after_last = valid.flip(1).int().argmax(dim=1)
    last = valid.shape[1] - 1 - steps_after_last
    rows = torch.arange(len(valid), device=valid.device)
    return trajectories.movedim(-2, 1)[rows, last]


def end_distances(trajectories: Tensor, future: Tensor, valid: Tensor) -> Tensor:
    """Compute the distance at the last known step, ``[B, K]`` meters, without gradient.

    Args:
        trajectories (Tensor): ``[B, K, F, 2]``.
        future (Tensor): ``[B, F, 2]``.
        valid (Tensor): bool ``[B, F]``, at least one True a row.
    """
    ends = ends_of(trajectories.detach(), valid)
    true_ends = ends_of(future, valid)
    return (ends - true_ends[:, None]).norm(dim=-1)


def masked_smooth_l1(trajectory: Tensor, future: Tensor, valid: Tensor) -> Tensor:
    """Compute smooth L1 over known steps, x and y: a mean over ``[..., F, 2]``."""
    loss = F.smooth_l1_loss(trajectory, future, reduction='none')
    # where(), not a product: unknown steps may hold anything.
    loss = torch.where(valid[..., None], loss, 0.0)
    return loss.sum() / (2 * valid.sum().clamp(min=1))


def offset_huber(trajectories: Tensor, future: Tensor, valid: Tensor) -> Tensor:
    """Compute the Huber loss on step offsets, a mean over known steps.

    An offset is known if both its ends are; the first starts where the agent is.

    Args:
        trajectories (Tensor): ``[N, K, F, 2]``.
        future (Tensor): ``[N, F, 2]``.
        valid (Tensor): bool ``[N, F]``.

    Returns:
        Tensor: ``[N, K]``.
    """
    known = torch.where(valid[..., None], future, 0.0)
    error = trajectories - known[:, None]
    # Both start at one place, so the difference of the first offsets is that of
    # the first points.
    error = torch.cat([error[:, :, :1], error.diff(dim=2)], dim=2)
    both = torch.cat([valid[:, :1], valid[:, 1:] & valid[:, :-1]], dim=1)
    both = both[:, None, :, None]
    loss = F.huber_loss(error, torch.zeros_like(error), reduction='none')
    total = torch.where(both, loss, 0.0).sum(dim=(2, 3))
    return total / (2 * both.sum(dim=(2, 3))).clamp(min=1)


def proposal_losses(
    trajectories: Tensor,
    scores: Tensor,
    future: Tensor,
    valid: Tensor,
    members: Tensor | None = None,
) -> dict[str, Tensor]:
    """Compute regression, score and region losses.

    Args:
        trajectories (Tensor): ``[N, K, F, 2]``, meters.
        scores (Tensor): ``[N, K]``, logits.
        future, valid (Tensor): ``[N, F, 2]``, bool ``[N, F]``.
        members (Tensor, optional): bool ``[N, K]``, the proposals of the region
            in which the truth ends. None: only the proposal that ends nearest is
            regressed, all are scored.

    Returns:
        dict[str, Tensor]: ``reg``; ``score``, KL of softmax(scores) from
        softmax(-distances) among the members; and with members ``region``, minus
        the log of their summed probability.
    """
    huber = offset_huber(trajectories, future, valid)
    distances = end_distances(trajectories, future, valid)
    losses = {}
    if members is None:
        nearest = distances.argmin(dim=1, keepdim=True)
        losses['reg'] = huber.gather(1, nearest).mean()
        members = torch.ones_like(scores, dtype=torch.bool)
    else:
        sums = torch.where(members, huber, 0.0).sum(1)
        losses['reg'] = (sums / members.sum(1)).mean()
        log_probabilities = scores.log_softmax(dim=1)
        of_members = log_probabilities.masked_fill(~members, -torch.inf)
        losses['region'] = -of_members.logsumexp(1).mean()
    found = scores.masked_fill(~members, -1e9).log_softmax(dim=-1)
    wanted = (-distances).masked_fill(~members, -1e9).log_softmax(dim=-1)
    losses['score'] = F.kl_div(found, wanted, reduction='batchmean', log_target=True)
    return losses
