"""Time grouping: our farthest points beside open3d's, and neighbours.

OMP_NUM_THREADS=1 python tools/benchmarks/grouping.py
"""

import argparse
import statistics
import time

import numpy as np
import open3d as o3d
import torch

from lm4ve.tasks.pointcloud import farthest_point_sample, nearest_neighbours
from lm4ve.tasks.pointcloud.geometry import take_points


def median_ms(run, repeats: int) -> float:
    """Median milliseconds of a call, after one that does not count."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--points', type=int, default=8192)
    parser.add_argument('--groups', type=int, default=512)
    parser.add_argument('--batch', type=int, default=8)
    parser.add_argument('--repeats', type=int, default=7)
    args = parser.parse_args()
    points = torch.randn(args.batch, args.points, 3)
    clouds = [
        o3d.geometry.PointCloud(o3d.utility.Vector3dVector(x))
        for x in points.numpy().astype(np.float64)
    ]
    centres = take_points(points, farthest_point_sample(points, args.groups))
    ours = median_ms(lambda: farthest_point_sample(points, args.groups), args.repeats)
    theirs = median_ms(
        lambda: [c.farthest_point_down_sample(args.groups) for c in clouds], args.repeats
    )
    neighbours = median_ms(lambda: nearest_neighbours(points, centres, 32), args.repeats)
    print(
        f'{args.batch} x {args.points} points to {args.groups} groups, '
        f'{torch.get_num_threads()} thread(s), medians of {args.repeats}\n'
        f'farthest points {ours:.1f} ms, open3d {theirs:.1f} ms '
        f'(x {ours / theirs:.2f}); 32 neighbours {neighbours:.1f} ms'
    )


if __name__ == '__main__':
    main()
