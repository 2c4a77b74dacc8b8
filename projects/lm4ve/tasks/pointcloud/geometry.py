"""Groups of points: what makes tokens of a cloud.

The operators that other tasks need as well are in :mod:`lm4ve.tasks.base.point_ops`; their
names stay available here.
"""

import numpy as np
import torch
from torch import Tensor

from lm4ve.errors import UserError
from lm4ve.tasks.base.point_ops import (
    farthest_point_sample,
    mmcv_operators,
    nearest_neighbors,
    take_points,
)

__all__ = [
    'farthest_point_sample',
    'farthest_points',
    'group_points',
    'mmcv_operators',
    'nearest_neighbors',
    'nearest_neighbours',
    'take_points',
]

#: The name in 0.1.
nearest_neighbours = nearest_neighbors


def farthest_points(points: np.ndarray, num: int) -> np.ndarray:
    """Apply :func:`farthest_point_sample` to a cloud: ``[N, C]`` gives ``[num, C]``."""
    index = farthest_point_sample(torch.from_numpy(points)[None], num)
    return points[index[0].numpy()]


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
