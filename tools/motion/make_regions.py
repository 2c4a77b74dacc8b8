"""Cluster a training set's end points for mmTransformer's region-based training.

    python tools/motion/make_regions.py data/argoverse1/train.cache \\
        data/argoverse1/regions.json
"""

import argparse
from collections.abc import Sequence

import numpy as np

from lm4ve.runner.command_line import run_tool
from lm4ve.tasks.motion.datasets.cache import SceneCache
from lm4ve.tasks.motion.models.regions import write_regions


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('cache')
    parser.add_argument('out')
    parser.add_argument('--regions', type=int, default=6)
    parser.add_argument(
        '--scenes', type=int, default=20000, help='a random choice of so many; default: 20000'
    )
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args(argv)
    scenes = SceneCache(args.cache)
    order = np.random.default_rng(args.seed).permutation(len(scenes))
    ends = []
    for i in order[: args.scenes]:
        s = scenes[int(i)]
        if s.valid[s.focal, -1]:
            ends.append(s.to_local(s.positions[s.focal, -1]))
    write_regions(args.out, np.array(ends).reshape(-1, 2), args.regions, args.seed)
    print(f'{len(ends)} end points, {args.regions} regions: {args.out}')


if __name__ == '__main__':
    run_tool(main)
