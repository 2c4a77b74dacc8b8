"""Regions of end points for mmTransformer's region-based training.

The paper (section 3.4) partitions the training set's end points by equal-size
K-means and takes the clusters' convex hulls; fan shapes are its alternative. Each
region owns an equal share of the proposals.
"""

import json
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import ConvexHull, QhullError
from sklearn.cluster import KMeans
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from lm4ve.errors import UserError, brief
from lm4ve.files import write_json
from lm4ve.tasks.motion.models.losses import final_step


def equal_clusters(points: np.ndarray, count: int, seed: int = 0, rounds: int = 20) -> np.ndarray:
    """K-means with clusters of equal size (up to one point).

    Assignment takes the pairs of point and center by distance, nearest first,
    while a center has room.

    Args:
        points (np.ndarray): ``[N, 2]``, meters; normalized inside.
        count (int): M clusters.

    Returns:
        np.ndarray: int64 ``[N]``, the cluster of each point.
    """
    scaled = (points - points.mean(0)) / np.maximum(points.std(0), 1e-6)
    centers = KMeans(count, n_init=4, random_state=seed).fit(scaled).cluster_centers_
    labels = np.full(len(points), -1)
    for _ in range(rounds):
        distances = np.linalg.norm(scaled[:, None] - centers, axis=-1)
        new = np.full(len(points), -1)
        room = np.full(count, len(points) // count)
        room[: len(points) % count] += 1
        for pair in distances.ravel().argsort(kind='stable'):
            i, m = divmod(int(pair), count)
            if new[i] < 0 and room[m] > 0:
                new[i] = m
                room[m] -= 1
        if (new == labels).all():
            break
        labels = new
        centers = np.stack([scaled[labels == m].mean(0) for m in range(count)])
    return labels


def write_regions(path: str | Path, points: np.ndarray, count: int = 6, seed: int = 0) -> None:
    """Cluster end points ``[N, 2]`` (focal frame, meters) and write the hulls.

    Raises:
        UserError: There are too few points for hulls.
    """
    if len(points) < 4 * count:
        raise UserError(
            f'{len(points)} end points are too few for {count} '
            f'regions. Fix: give at least {4 * count} scenes.'
        )
    labels = equal_clusters(points, count, seed)
    clusters = [points[labels == m] for m in range(count)]
    # 'centres': the key that files have had from the first release on.
    regions = dict(
        centres=[c.mean(0).tolist() for c in clusters],
        hulls=[c[ConvexHull(c).vertices].tolist() for c in clusters],
    )
    write_json(regions, path)


class Regions(nn.Module):
    """Says in which region a point lies.

    Inside one hull: that region. In none, or in several: that of the nearest
    center (among those).

    Args:
        centers (Tensor): ``[M, 2]``, meters.
        planes (list[Tensor]): Each region's half planes ``[P, 3]``: a point
            (x, y) is inside where ``a x + b y + c <= 0`` for all.
    """

    def __init__(self, centers: Tensor, planes: list[Tensor]) -> None:
        super().__init__()
        self.register_buffer('centers', centers, persistent=False)
        # Padded by zeros, which are planes that hold everything.
        table = pad_sequence(list(planes), batch_first=True)
        self.register_buffer('planes', table, persistent=False)

    @classmethod
    def load(cls, source: str, count: int = 6) -> 'Regions':
        """Of a file, or ``count`` fans around 'straight ahead'.

        Raises:
            UserError: The file is missing or damaged.
        """
        if source == 'fan':
            return cls.fan(count)
        try:
            found = json.loads(Path(source).read_text())
            centers = torch.tensor(found['centres'], dtype=torch.float32)
            planes = [
                torch.from_numpy(ConvexHull(np.array(h)).equations).float() for h in found['hulls']
            ]
            if centers.shape != (len(planes), 2) or not torch.isfinite(centers).all():
                raise ValueError('not one center [x, y] a hull')
            if any(p.shape[-1] != 3 for p in planes):
                raise ValueError('a hull that is not in the plane')
        except OSError as e:
            raise UserError(
                f"decoder.regions='{source}' does not exist. Fix: write it with "
                "tools/motion/make_regions.py, or set regions='fan'."
            ) from e
        except (ValueError, LookupError, TypeError, RecursionError, QhullError) as e:
            raise UserError(
                f"decoder.regions='{source}' is damaged ({type(e).__name__}: {brief(e)}). Fix: "
                'write it again with tools/motion/make_regions.py.'
            ) from e
        return cls(centers, planes)

    @classmethod
    def fan(cls, count: int) -> 'Regions':
        """Sectors of equal angle over the half plane ahead."""
        edges = np.linspace(-np.pi / 2, np.pi / 2, count + 1)
        middles = (edges[1:] + edges[:-1]) / 2
        centers = 20 * np.stack([np.cos(middles), np.sin(middles)], axis=-1)
        sides = np.stack([np.sin(edges), -np.cos(edges), np.zeros(count + 1)], axis=-1)
        planes = torch.from_numpy(np.stack([sides[:-1], -sides[1:]], axis=1)).float()
        return cls(torch.from_numpy(centers).float(), planes)

    def forward(self, points: Tensor) -> Tensor:
        """Points ``[N, 2]`` to regions, int64 ``[N]``."""
        a, c = self.planes[..., :2], self.planes[..., 2]
        sides = torch.einsum('mpk,nk->nmp', a, points.to(a.dtype)) + c
        inside = (sides <= 1e-4).all(dim=-1)
        distances = torch.cdist(points.to(a.dtype), self.centers)
        none = ~inside.any(dim=1, keepdim=True)
        return distances.masked_fill(~(inside | none), torch.inf).argmin(dim=1)

    def members(self, future: Tensor, valid: Tensor, count: int) -> Tensor:
        """Which of ``count`` proposals belong to the truth's region, ``[N, K]``.

        Raises:
            UserError: The proposals cannot be shared out equally.
        """
        regions = len(self.centers)
        if count % regions:
            raise UserError(
                f'encoder.num_proposals={count} must be a multiple of the '
                f'{regions} regions of decoder.regions.'
            )
        rows = torch.arange(len(future), device=future.device)
        mine = self(future[rows, final_step(valid)])
        owner = torch.arange(count, device=future.device) // (count // regions)
        return mine[:, None] == owner


def select_apart(ends: Tensor, probabilities: Tensor, keep: int, meters: float) -> Tensor:
    """Greedy choice by probability of end points that lie apart.

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
    chosen: list = []
    for i in order:
        if len(chosen) < keep and not any(near[i][j] for j in chosen):
            chosen.append(i)
    rest = [i for i in order if i not in chosen]
    chosen += rest[: keep - len(chosen)]
    return torch.tensor(chosen, device=ends.device)
