"""Regions of end points for mmTransformer's region-based training.

The paper (section 3.4) partitions the training set's end points by equal-size
K-means and uses the clusters' convex hulls, which ``tools/motion/make_regions.py``
writes; fan shapes are its alternative. Each region owns an equal share of the
proposals.
"""

import json
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import ConvexHull
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from lm4ve.errors import UserError, require
from lm4ve.tasks.motion.models.losses import ends_of


class Regions(nn.Module):
    """Find the region in which a point lies.

    Inside one hull: that region. In none, or in several: that of the nearest
    center (among those).

    Args:
        centers (Tensor): ``[M, 2]``, meters.
        planes (list[Tensor]): Each region's half planes ``[P, 3]``: a point
            (x, y) is inside where ``a x + b y + c <= 0`` for all.
    """

    centers: Tensor
    planes: Tensor

    def __init__(self, centers: Tensor, planes: list[Tensor]) -> None:
        super().__init__()
        self.register_buffer('centers', centers, persistent=False)
        # Padded by zeros, which are planes that hold everything.
        table = pad_sequence(planes, batch_first=True)
        self.register_buffer('planes', table, persistent=False)

    @classmethod
    def load(cls, source: str) -> 'Regions':
        """Read regions from a file, or build 'fan', six sectors around straight ahead.

        Raises:
            UserError: Centers and hulls are not of equally many regions of a plane.
        """
        if source == 'fan':
            centers, hulls = _fan()
        else:
            content = json.loads(Path(source).read_text())
            centers = np.array(content['centres'])
            hulls = [ConvexHull(np.array(hull)).equations for hull in content['hulls']]
        has_center_each = centers.shape == (len(hulls), 2)
        is_plane = all(hull.shape[1] == 3 for hull in hulls)
        if not (has_center_each and is_plane):
            raise UserError(f"'{source}' does not have one center [x, y] a hull.")
        planes = [torch.from_numpy(hull).float() for hull in hulls]
        return cls(torch.from_numpy(centers).float(), planes)

    def forward(self, points: Tensor) -> Tensor:
        """Map points ``[N, 2]`` to regions, int64 ``[N]``."""
        normals = self.planes[..., :2]
        offsets = self.planes[..., 2]
        points = points.to(normals.dtype)
        sides = torch.einsum('mpk,nk->nmp', normals, points) + offsets
        inside = (sides <= 1e-4).all(dim=-1)
        in_none = ~inside.any(dim=1, keepdim=True)
        candidates = inside | in_none
        distances = torch.cdist(points, self.centers)
        return distances.masked_fill(~candidates, torch.inf).argmin(dim=1)

    def members(self, future: Tensor, valid: Tensor, count: int) -> Tensor:
        """Return which of ``count`` proposals belong to the truth's region, ``[N, K]``.

        Raises:
            UserError: The proposals cannot be shared out equally.
        """
        regions = len(self.centers)
        require(
            count % regions == 0,
            f'encoder.num_proposals={count} cannot be shared out equally among {regions} regions. '
            f'Fix: a multiple of {regions}.',
        )
        region_of_truth = self(ends_of(future, valid))
        proposals = torch.arange(count, device=future.device)
        region_of_proposal = proposals // (count // regions)
        return region_of_truth[:, None] == region_of_proposal


def _fan() -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the centers ``[6, 2]`` of six sectors ahead, and their half planes ``[2, 3]``."""
    edges = np.linspace(-np.pi / 2, np.pi / 2, 7)
    middles = (edges[1:] + edges[:-1]) / 2
    centers = 20 * np.stack([np.cos(middles), np.sin(middles)], axis=-1)
    sides = np.stack([np.sin(edges), -np.cos(edges), np.zeros(7)], axis=-1)
    sectors = np.stack([sides[:-1], -sides[1:]], axis=1)
    return centers, list(sectors)


def select_apart(
    ends: Tensor, probabilities: Tensor, keep: int, meters: float = 2.0
) -> Tensor:
    """Choose end points that lie apart, greedily by probability.

    Where too few lie apart, the most probable of the others follow.

    Args:
        ends (Tensor): ``[K, 2]``.
        probabilities (Tensor): ``[K]``.
        keep (int): How many.
        meters (float): Ends nearer than this to a chosen one are passed over.

    Returns:
        Tensor: int64 ``[min(keep, K)]``.
    """
    order = probabilities.argsort(descending=True, stable=True).tolist()
    near = (torch.cdist(ends, ends) < meters).tolist()
    apart: list[int] = []
    rest: list[int] = []
    for i in order:
        is_near_chosen = any(near[i][j] for j in apart)
        if is_near_chosen:
            rest.append(i)
        else:
            apart.append(i)
    chosen = apart + rest
    return torch.tensor(chosen[:keep], device=ends.device)
