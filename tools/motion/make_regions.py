"""Cluster a training set's end points for mmTransformer's region-based training.

    python tools/motion/make_regions.py data/argoverse1/train.cache \\
        data/argoverse1/regions.json
"""

from pathlib import Path

import numpy as np
from scipy.spatial import ConvexHull
from sklearn.cluster import KMeans

from lm4ve.errors import check
from lm4ve.files import write_json
from lm4ve.runner.command_line import build_parser, run_tool
from lm4ve.tasks.motion.datasets.cache import SceneCache


def equal_clusters(points: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """K-means with clusters of equal size (up to one point).

    Assignment visits the pairs of point and center by distance, nearest first,
    while a center has room.

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
        distances = np.linalg.norm(scaled[:, None] - centers, axis=-1)
        labels = np.full(len(points), -1)
        room = np.full(count, len(points) // count)
        room[: len(points) % count] += 1
        for pair in distances.ravel().argsort(kind='stable'):
            i, m = divmod(int(pair), count)
            if labels[i] < 0 and room[m] > 0:
                labels[i] = m
                room[m] -= 1
        before, centers = (
            centers,
            np.stack([scaled[labels == m].mean(0) for m in range(count)]),
        )
        if np.array_equal(before, centers):
            break
    return labels


def write_regions(
    path: str | Path, points: np.ndarray, count: int = 6, seed: int = 0
) -> None:
    """Cluster end points ``[N, 2]`` (focal frame, meters) and write the hulls.

    Raises:
        UserError: There are too few points for hulls.
    """
    check('end points', len(points), least=4 * count)  # hulls need them
    labels = equal_clusters(points, count, seed)
    clusters = [points[labels == m] for m in range(count)]
    centres = [c.mean(0).tolist() for c in clusters]
    hulls = [c[ConvexHull(c).vertices].tolist() for c in clusters]
    write_json(dict(centres=centres, hulls=hulls), path)


def main(argv: list[str] | None = None) -> None:
    add = (parser := build_parser(__doc__, {})).add_argument
    add('cache')
    add('out')
    add('--regions', type=int, default=6)
    add('--scenes', type=int, default=20000, help='how many, at random')
    add('--seed', type=int, default=0)
    args = parser.parse_args(argv)
    scenes = SceneCache(args.cache)
    order = np.random.default_rng(args.seed).permutation(len(scenes))
    chosen = (scenes[int(i)] for i in order[: args.scenes])
    ends = [s.to_local(s.future[0][-1]) for s in chosen if s.future[1][-1]]
    write_regions(args.out, np.array(ends).reshape(-1, 2), args.regions, args.seed)
    print(f'{len(ends)} end points, {args.regions} regions: {args.out}')


if __name__ == '__main__':
    run_tool(main)
