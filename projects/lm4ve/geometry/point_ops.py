"""Operators on point clouds for several tasks: sampling, neighbors, balls, interpolation.

These are plain batched torch, since models apply them on the device of their inputs and
exported models contain them. Libraries do not fit: mmcv's operators need CUDA and its
full build. open3d 0.20 takes one cloud at a time, its build without CUDA is for the CPU
alone, and its ball query does not keep the order of indices. Its neighbors equal ours
(the tests compare them); its farthest points are the same set, but in the order of the
cloud, while models and data sets need the order in which they were picked.

Distances are computed in chunks, which bounds the memory.
"""

import numpy as np
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

    The CUDA kernels that released point-cloud models use (``pointnet2_ops``, and
    PointNet++'s before it) differ in one thing: they never pick a point whose squared
    distance to the origin is at most 1e-3, unless it is point 0.

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
        # Padding moves onto point 0, which is always picked: its distance to the picked
        # points is 0. So it is picked only after all points that differ, and then point
        # 0 takes its place, as it would without padding.
        moved = torch.where(padding[..., None], points[:, :1], points)
        picked = farthest_point_sample(moved, num)
        is_padding = padding.gather(1, picked)
        return picked.masked_fill(is_padding, 0)
    axes = points.permute(2, 0, 1).contiguous()  # [3, B, N]
    nearest = torch.full_like(axes[0], torch.finfo(points.dtype).max)
    picks = [torch.zeros_like(points[:, :1, 0], dtype=torch.int64)]
    # As few operations a pick as possible, since a GPU spends its time on starting them;
    # the results go where those of the last pick were, since fresh memory costs a CPU
    # more than the arithmetic.
    difference = torch.empty_like(axes)
    distance = torch.empty_like(nearest)
    for _ in range(1, num):
        last = picks[-1].expand(3, -1, -1)
        torch.sub(axes, axes.gather(2, last), out=difference)
        torch.square(difference[0], out=distance)
        distance.addcmul_(difference[1], difference[1])
        distance.addcmul_(difference[2], difference[2])
        torch.minimum(nearest, distance, out=nearest)
        # Of several that are equally far, argmax returns the first.
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
    points = points.float()
    centers = centers.float()
    if torch.compiler.is_exporting():
        # In one piece: an exported batch may be of any size, and so has no chunks.
        distances = squared_distances(centers, points)
        return distances.topk(k, dim=-1, largest=False).indices
    neighbors = []
    for part in centers.split(_centers_a_chunk(points, _CHUNK), dim=1):
        # By differences: the usual matrix product cancels near zero, so that
        # a point would not be its own nearest neighbor.
        distances = torch.cdist(
            part, points, compute_mode='donot_use_mm_for_euclid_dist'
        )
        neighbors.append(distances.topk(k, dim=-1, largest=False).indices)
    return torch.cat(neighbors, dim=1)


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
    points = points.float()
    centers = centers.float()
    # Squared in fp32, as mmcv's kernel does. A number of Python is not copied to the
    # device, as a tensor would be.
    limit = float(np.square(np.float32(radius)))
    is_point = None if padding is None else ~padding[:, None]
    # Chunks that fit a CPU's cache take a fifth of the time.
    chunk = _CHUNK // 16 if points.device.type == 'cpu' else _CHUNK
    picks = []
    for part in centers.split(_centers_a_chunk(points, chunk), dim=1):
        inside = squared_distances(part, points) < limit
        if is_point is not None:
            inside &= is_point
        picks.append(_first_true(inside, num))
    index = torch.cat(picks, dim=1)
    nothing = points.shape[1]
    first = index[..., :1]
    index = torch.where(index == nothing, first, index)
    return index.masked_fill(index == nothing, 0)


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Return the squared distances of all pairs, ``[B, N, M]``.

    Args:
        a (Tensor): ``[B, N, 3]``.
        b (Tensor): ``[B, M, 3]``.

    By differences, axis by axis: the usual matrix product cancels near zero.
    """
    a = a[:, :, None]
    b = b[:, None]
    distances = (a[..., 0] - b[..., 0]).square()
    for axis in (1, 2):
        difference = a[..., axis] - b[..., axis]
        distances.addcmul_(difference, difference)
    return distances


def _centers_a_chunk(points: Tensor, chunk: int) -> int:
    """Return for how many centers the distances to all points fit a chunk; at least 1."""
    batch, num_points, _ = points.shape
    return max(1, chunk // (batch * num_points))


def _first_true(mask: Tensor, num: int) -> Tensor:
    """Return the indices of the first ``num`` True in each row, ``[B, G, N] -> [B, G, num]``.

    Where there are fewer, N stands for those that are missing.
    """
    # The n-th True is where the count of True reaches n. Unlike with ``nonzero``, no
    # size depends on values, for which the CPU would wait for a GPU.
    counts = mask.cumsum(dim=-1, dtype=torch.int32)
    ranks = torch.arange(1, num + 1, dtype=torch.int32, device=mask.device)
    ranks = ranks.expand(*mask.shape[:2], -1).contiguous()
    return torch.searchsorted(counts, ranks)


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
    weighted = take_points(features, index) * weights.to(features.dtype)
    return weighted.sum(dim=2)


def take_points(points: Tensor, index: Tensor) -> Tensor:
    """Return points by their indices: ``[B, N, C]`` by int64 ``[B, ...]`` is ``[B, ..., C]``."""
    flat = index.flatten(1)[..., None].expand(-1, -1, points.shape[-1])
    return points.gather(1, flat).unflatten(1, index.shape[1:])
