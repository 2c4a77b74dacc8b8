"""Groups of points, the tokens of a cloud.

The operators that other tasks need as well are in :mod:`lm4ve.tasks.base.point_ops`.
"""

import numpy as np
import torch
from torch import Tensor

from lm4ve.errors import check
from lm4ve.tasks.base.point_ops import farthest_point_sample, nearest_neighbors, take_points


def farthest_points(points: np.ndarray, num: int) -> np.ndarray:
    """Apply :func:`farthest_point_sample` to a cloud: ``[N, C]`` gives ``[num, C]``."""
    index = farthest_point_sample(torch.from_numpy(points)[None], num)
    return points[index[0].numpy()]


def group_points(points: Tensor, num_groups: int, group_size: int) -> tuple[Tensor, Tensor]:
    """Cut clouds into groups: farthest points as centers, and the points nearest to each.

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
    check('backbone.num_groups', num_groups, most=points.shape[1])
    check('backbone.group_size', group_size, most=points.shape[1])
    centers = take_points(points, farthest_point_sample(points, num_groups))
    return centers, nearest_neighbors(points, centers, group_size)
