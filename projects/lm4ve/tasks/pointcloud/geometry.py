"""Farthest point sampling and nearest neighbors: what makes tokens of a cloud.

mmcv's operators for this exist for CUDA only and need its full build, so plain
batched torch is the reference and serves every device; mmcv's are used where
they are there. Both give the same groups (see the functions on ties).
"""

import numpy as np
import torch
from torch import Tensor

from lm4ve.errors import UserError

#: Distances that are held at once by :func:`nearest_neighbors` (64 MiB fp32).
_CHUNK = 2**24
#: mmcv's kernel keeps this many candidates in registers.
_MMCV_MAX_NEIGHBORS = 100


def mmcv_operators(points: Tensor) -> object | None:
    """Return ``mmcv.ops`` if it can work on these points, else None."""
    if not points.is_cuda:
        return None
    try:
        from mmcv import ops
    except (ImportError, OSError):  # mmcv-lite; a build for another torch
        return None
    return ops


@torch.no_grad()
def farthest_point_sample(points: Tensor, num: int) -> Tensor:
    """Pick points that are far from each other (Qi et al., PointNet++, 2017).

    Starts with point 0; each next point is the one whose distance to the points
    picked so far is largest, of several the first. So the first n picks are the
    picks for n, and when all points are picked that differ, point 0 repeats.

    Args:
        points (Tensor): ``[B, N, 3]``, finite; computed in fp32.
        num (int): How many, at most N.

    Returns:
        Tensor: int64 ``[B, num]``, in the order of picking.

    Raises:
        UserError: A shape is wrong, or ``num`` is above N.

    mmcv's operator breaks ties between points in another order, which shows
    only where distances are equal to the last bit (lattices).
    """
    _check(points, num, 'picks')
    points = points.float()
    ops = mmcv_operators(points)
    if ops is not None:
        return ops.furthest_point_sample(points.contiguous(), num).long()
    batch, count, _ = points.shape
    axes = points.permute(2, 0, 1).contiguous()  # [3, B, N]
    nearest = axes.new_full((batch, count), float('inf'))
    difference, distance = torch.empty_like(nearest), torch.empty_like(nearest)
    picks = torch.zeros(batch, num, dtype=torch.int64, device=points.device)
    last = picks[:, :1]
    for i in range(1, num):
        # In place and one axis after the other: the loop is bound by memory.
        for axis in range(3):
            x = axes[axis]
            torch.sub(x, x.gather(1, last), out=difference)
            if axis == 0:
                torch.mul(difference, difference, out=distance)
            else:
                distance.addcmul_(difference, difference)
        torch.minimum(nearest, distance, out=nearest)
        last = nearest.argmax(1, keepdim=True)
        picks[:, i : i + 1] = last
    return picks


def farthest_points(points: np.ndarray, num: int) -> np.ndarray:
    """Apply :func:`farthest_point_sample` to a cloud: ``[N, C]`` gives ``[num, C]``."""
    index = farthest_point_sample(torch.from_numpy(points)[None], num)
    return points[index[0].numpy()]


@torch.no_grad()
def nearest_neighbors(points: Tensor, centers: Tensor, k: int) -> Tensor:
    """Find the k points nearest to each center.

    Args:
        points (Tensor): ``[B, N, 3]``, finite; computed in fp32.
        centers (Tensor): ``[B, G, 3]``.
        k (int): How many, at most N.

    Returns:
        Tensor: int64 ``[B, G, k]``, nearest first; equally near ones in any
        order (of those that tie for the last place, any).

    Raises:
        UserError: A shape is wrong, or ``k`` is above N.
    """
    _check(points, k, 'neighbors')
    points, centers = points.float(), centers.float()
    ops = mmcv_operators(points)
    if ops is not None and k <= _MMCV_MAX_NEIGHBORS:
        found = ops.knn(k, points.contiguous(), centers.contiguous())
        return found.transpose(1, 2).long().contiguous()
    batch, count, _ = points.shape
    step = max(1, _CHUNK // (batch * count))
    found = []
    for part in centers.split(step, dim=1):
        # By differences: the usual matrix product cancels near zero, so that
        # a point would not be its own nearest neighbor.
        distance = torch.cdist(part, points, compute_mode='donot_use_mm_for_euclid_dist')
        found.append(distance.topk(k, dim=-1, largest=False).indices)
    return torch.cat(found, dim=1)


#: The name in 0.1.
nearest_neighbours = nearest_neighbors


def take_points(points: Tensor, index: Tensor) -> Tensor:
    """Pick points: ``[B, N, C]`` by int64 ``[B, ...]`` gives ``[B, ..., C]``."""
    flat = index.flatten(1)[..., None].expand(-1, -1, points.shape[-1])
    return points.gather(1, flat).unflatten(1, index.shape[1:])


def group_points(points: Tensor, num_groups: int, group_size: int) -> tuple[Tensor, Tensor]:
    """Centers by farthest points, and the nearest points of each.

    Args:
        points (Tensor): ``[B, N, 3]``.
        num_groups (int): G, at most N.
        group_size (int): S, at most N.

    Returns:
        tuple[Tensor, Tensor]: Centers ``[B, G, 3]`` and int64 indices of the
        groups' points ``[B, G, S]``.

    Raises:
        UserError: The cloud has fewer points than groups or than a group.
    """
    if points.dim() == 3 and points.shape[1] < max(num_groups, group_size):
        raise UserError(
            f'A cloud of {points.shape[1]} points cannot be cut into '
            f'backbone.num_groups={num_groups} groups of '
            f'backbone.group_size={group_size}. Fix: lower them, or sample '
            f'more points (lm4ve.SamplePoints num={num_groups * 16} repeats '
            'points of clouds that are too small).'
        )
    centers = take_points(points, farthest_point_sample(points, num_groups))
    return centers, nearest_neighbors(points, centers, group_size)


def _check(points: Tensor, wanted: int, what: str) -> None:
    if points.dim() != 3 or points.shape[-1] != 3:
        raise UserError(f'Points must be [B, N, 3], got {list(points.shape)}.')
    if not 1 <= wanted <= points.shape[1]:
        raise UserError(
            f'{wanted} {what} of clouds of {points.shape[1]} points. Fix: ask '
            f'for 1 to {points.shape[1]}.'
        )
