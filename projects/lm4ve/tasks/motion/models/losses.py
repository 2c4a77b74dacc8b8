"""What the losses of all models need, pure functions of tensors."""

import torch
import torch.nn.functional as F
from torch import Tensor


def take_agents(values: Tensor, queries: Tensor) -> Tensor:
    """Pick agents of each scene: ``[B, A, ...]`` by int64 ``[B, Q]`` gives ``[B, Q, ...]``."""
    return values[torch.arange(values.shape[0], device=values.device)[:, None], queries]


def final_step(valid: Tensor) -> Tensor:
    """Index of the last True of each row, ``[B, F] -> [B]``."""
    steps = torch.arange(valid.shape[1], device=valid.device)
    return torch.where(valid, steps, -1).max(dim=1).values


def end_distances(trajectories: Tensor, future: Tensor, valid: Tensor) -> Tensor:
    """Distance at the last known step, ``[B, K]`` meters, without gradient.

    Args:
        trajectories (Tensor): ``[B, K, F, 2]``.
        future (Tensor): ``[B, F, 2]``.
        valid (Tensor): bool ``[B, F]``, at least one True a row.
    """
    rows = torch.arange(len(valid), device=valid.device)
    last = final_step(valid)
    ends = trajectories.detach()[rows, :, last]
    return (ends - future[rows, None, last]).norm(dim=-1)


def masked_smooth_l1(
    trajectory: Tensor, future: Tensor, valid: Tensor, beta: float = 1.0
) -> Tensor:
    """Smooth L1 over known steps, x and y: a mean over ``[..., F, 2]``."""
    loss = F.smooth_l1_loss(trajectory, future, reduction='none', beta=beta)
    # where(), not a product: unknown steps may hold anything.
    loss = torch.where(valid[..., None], loss, 0.0)
    return loss.sum() / (2 * valid.sum().clamp(min=1))
