"""Clusters end points of agents: the regions of mmTransformer's region-based training."""

from pathlib import Path

import numpy as np
from scipy.spatial import ConvexHull
from sklearn.cluster import KMeans

from lm4ve.errors import check
from lm4ve.files import write_json


def equal_clusters(points: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """K-means with clusters of equal size (up to one point).

    Args:
        points (np.ndarray): ``[N, 2]``, meters; normalized inside.
        count (int): M clusters.
        seed (int): Seeds the K-means that gives the first centers.

    Returns:
        np.ndarray: int64 ``[N]``, the cluster of each point.
    """
    scaled = (points - points.mean(0)) / np.maximum(points.std(0), 1e-6)
    centers = KMeans(count, n_init=4, random_state=seed).fit(scaled).cluster_centers_
    for _ in range(20):  # rounds, fewer where the centers rest
        labels = _assign_equally(scaled, centers)
        means = np.stack([scaled[labels == m].mean(0) for m in range(count)])
        if np.array_equal(means, centers):
            break
        centers = means
    return labels


def _assign_equally(points: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Visit the pairs of point and center, nearest first, while a center has room."""
    count = len(centers)
    distances = np.linalg.norm(points[:, None] - centers, axis=-1)
    room = np.full(count, len(points) // count)
    room[: len(points) % count] += 1
    labels = np.full(len(points), -1)
    for pair in distances.ravel().argsort(kind='stable'):
        point, center = divmod(int(pair), count)
        if labels[point] < 0 and room[center] > 0:
            labels[point] = center
            room[center] -= 1
    return labels


def write_regions(
    path: str | Path, points: np.ndarray, count: int = 6, seed: int = 0
) -> None:
    """Cluster end points ``[N, 2]`` (focal frame, meters) and write the hulls as JSON.

    Raises:
        UserError: There are too few points for hulls.
    """
    check('end points', len(points), least=4 * count)  # hulls need them
    labels = equal_clusters(points, count, seed)
    centres = []
    hulls = []
    for m in range(count):
        cluster = points[labels == m]
        corners = cluster[ConvexHull(cluster).vertices]
        centres.append(cluster.mean(0).tolist())
        hulls.append(corners.tolist())
    write_json(dict(centres=centres, hulls=hulls), path)
