"""Operators on point clouds for several tasks: sampling, neighbors, balls, interpolation.

The models apply them to batches on the device of their inputs, and their exports
contain them. No library has such a form: mmcv's operators are for CUDA only and in its
full build; open3d 0.20 takes one cloud at a time, has no ball query that keeps the
order of indices, and its build without CUDA serves the CPU alone. Its neighbors equal
ours (the tests compare them). Its farthest points are the same set, but come in the
order of the cloud and without repeats, while models and data sets need the order in
which they were picked. So these are plain batched torch. Distances are computed in
chunks, which bounds the memory.
"""

import torch
from torch import Tensor

from lm4ve.errors import check

#: Distances in memory at once (64 MiB fp32).
_CHUNK = 2**24


@torch.no_grad()
def farthest_point_sample(
    points: Tensor, num: int, padding: Tensor | None = None
) -> Tensor:
    """Pick points that are far from each other (Qi et al., PointNet++, 2017).

    Starts with point 0; each next point is the one whose distance to the points
    picked so far is largest, of several the first. So the first n picks are the
    picks for n, and when all points are picked that differ, point 0 repeats.

    Args:
        points (Tensor): ``[B, N, 3]``, finite; computed in fp32.
        num (int): How many, at most N.
        padding (Tensor, optional): bool ``[B, N]``, True = padding, which is never
            picked. It comes behind the points, of which there is at least one.

    Returns:
        Tensor: int64 ``[B, num]``, in the order of picking.
    """
    check('num', num, least=1, most=points.shape[1])
    points = points.float()
    if padding is not None:
        # At no distance of point 0, so that any other point comes before.
        points = torch.where(padding[..., None], points[:, :1], points)
        found = farthest_point_sample(points, num)
        return found.masked_fill(padding.gather(1, found), 0)
    axes = points.permute(2, 0, 1).contiguous()  # [3, B, N]
    nearest = torch.full_like(axes[0], torch.finfo(points.dtype).max)
    picks = [torch.zeros_like(points[:, :1, 0], dtype=torch.int64)]
    for _ in range(1, num):
        distance = torch.zeros_like(nearest)
        for x in axes:  # one after the other: the loop is bound by memory
            difference = x - x.gather(1, picks[-1])
            distance.addcmul_(difference, difference)
        nearest = torch.minimum(nearest, distance)
        picks.append(nearest.argmax(1, keepdim=True))
    return torch.cat(picks, dim=1)


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
    """
    check('k', k, least=1, most=points.shape[1])
    points, centers = points.float(), centers.float()
    if (
        torch.compiler.is_exporting()
    ):  # in one piece, since the batch may be of any size
        return squared_distances(centers, points).topk(k, dim=-1, largest=False).indices
    found = []
    for part in centers.split(max(1, _CHUNK // points[..., 0].numel()), dim=1):
        # By differences: the usual matrix product cancels near zero, so that
        # a point would not be its own nearest neighbor.
        distance = torch.cdist(
            part, points, compute_mode='donot_use_mm_for_euclid_dist'
        )
        found.append(distance.topk(k, dim=-1, largest=False).indices)
    return torch.cat(found, dim=1)


@torch.no_grad()
def ball_query(
    points: Tensor,
    centers: Tensor,
    radius: float,
    num: int,
    padding: Tensor | None = None,
) -> Tensor:
    """Find points within a ball around each center (Qi et al., PointNet++, 2017, section 3.2).

    Args:
        points (Tensor): ``[B, N, 3]``, finite; computed in fp32.
        centers (Tensor): ``[B, G, 3]``.
        radius (float): In the units of the points; a point at this distance is outside.
        num (int): How many a center gets: the first of the ball in the order of their
            indices. Where there are fewer, the first one fills the rest; where there is
            none, point 0 does.
        padding (Tensor, optional): bool ``[B, N]``, True = padding, which is in no
            ball.

    Returns:
        Tensor: int64 ``[B, G, num]``.
    """
    check('radius', radius, above=0)
    check('num', num, least=1)
    points, centers = points.float(), centers.float()
    # Squared in fp32, as mmcv's kernel does.
    limit = torch.tensor(radius, dtype=torch.float32, device=points.device).square()
    # Chunks that fit a CPU's cache take a fifth of the time; a GPU waits once a chunk.
    chunk = _CHUNK if points.is_cuda else _CHUNK // 16
    picks = []
    for part in centers.split(max(1, chunk // points[..., 0].numel()), dim=1):
        inside = squared_distances(part, points) < limit
        if padding is not None:
            inside &= ~padding[:, None]
        picks.append(_first_true(inside, num))
    return torch.cat(picks, dim=1)


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances of all pairs, ``[B, N, 3]`` and ``[B, M, 3]`` to ``[B, N, M]``.

    By differences, axis by axis: the usual matrix product cancels near zero.
    """
    out = (a[:, :, None, 0] - b[:, None, :, 0]).square()
    for axis in (1, 2):
        difference = a[:, :, None, axis] - b[:, None, :, axis]
        out.addcmul_(difference, difference)
    return out


def _first_true(mask: Tensor, num: int) -> Tensor:
    """Indices of the first ``num`` True in each row, ``[B, G, N] -> [B, G, num]``."""
    batch, groups, _ = mask.shape
    rows, columns = mask.flatten(0, 1).nonzero(as_tuple=True)
    counts = mask.sum(dim=-1).flatten()
    rank = (
        torch.arange(len(rows), device=mask.device) - (counts.cumsum(0) - counts)[rows]
    )
    kept = rank < num
    index = torch.zeros(batch * groups, num, dtype=torch.int64, device=mask.device)
    index[rows[kept], rank[kept]] = columns[kept]
    there = torch.arange(num, device=mask.device) < counts[:, None]
    return torch.where(there, index, index[:, :1]).unflatten(0, (batch, groups))


def interpolate_features(targets: Tensor, sources: Tensor, features: Tensor) -> Tensor:
    """Carry features to other places: the mean over the three nearest, by inverse distance.

    Args:
        targets (Tensor): ``[B, N, 3]``.
        sources (Tensor): ``[B, M, 3]``, finite. Of fewer than three, all are used.
        features (Tensor): ``[B, M, C]`` of the sources; gradients go to them only.

    Returns:
        Tensor: ``[B, N, C]``.

    Source: PointNet++, section 3.4; its code weighs with ``1 / (distance + 1e-8)``.
    """
    with torch.no_grad():
        index = nearest_neighbors(sources, targets, min(3, sources.shape[1]))
        offsets = take_points(sources.float(), index) - targets.float()[:, :, None]
        weights = 1 / (offsets.norm(dim=-1, keepdim=True) + 1e-8)
        weights = weights / weights.sum(dim=2, keepdim=True)
    return (take_points(features, index) * weights.to(features.dtype)).sum(dim=2)


def take_points(points: Tensor, index: Tensor) -> Tensor:
    """Pick points: ``[B, N, C]`` by int64 ``[B, ...]`` gives ``[B, ..., C]``."""
    flat = index.flatten(1)[..., None].expand(-1, -1, points.shape[-1])
    return points.gather(1, flat).unflatten(1, index.shape[1:])
