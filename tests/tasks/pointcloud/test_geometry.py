"""Groups of points: farthest centers and their nearest points."""

import pytest
import torch

from lm4ve.errors import UserError
from lm4ve.tasks.pointcloud import farthest_point_sample, group_points, nearest_neighbors


def test_groups_are_the_nearest_points_of_farthest_centers():
    points = torch.randn(2, 60, 3)
    centers, index = group_points(points, 6, 5)
    picks = farthest_point_sample(points, 6)
    assert torch.equal(centers, torch.stack([p[i] for p, i in zip(points, picks, strict=True)]))
    assert torch.equal(index, nearest_neighbors(points, centers, 5))


@pytest.mark.parametrize('sizes, found', [((4, 9), 'group_size=9'), ((9, 4), 'num_groups=9')])
def test_small_clouds_are_refused(sizes, found):
    with pytest.raises(UserError, match=f'{found} must be at most 8'):
        group_points(torch.randn(2, 8, 3), *sizes)
