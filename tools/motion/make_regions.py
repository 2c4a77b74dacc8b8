"""Cluster a training set's end points for mmTransformer's region-based training.

    python tools/motion/make_regions.py data/argoverse1/train.cache \\
        data/argoverse1/regions.json
"""

import numpy as np

from lm4ve.runner.command_line import build_parser, run_tool
from lm4ve.tasks.motion.datasets.cache import SceneCache
from lm4ve.tasks.motion.region_clusters import write_regions


def main(argv: list[str] | None = None) -> None:
    parser = build_parser(__doc__, {})
    add = parser.add_argument
    add('cache')
    add('out')
    add('--regions', type=int, default=6)
    add('--scenes', type=int, default=20000, help='how many, at random')
    add('--seed', type=int, default=0)
    args = parser.parse_args(argv)
    scenes = SceneCache(args.cache)
    order = np.random.default_rng(args.seed).permutation(len(scenes))
    ends = []
    for number in order[: args.scenes]:
        scene = scenes[int(number)]
        places, observed = scene.future
        if observed[-1]:
            ends.append(scene.to_local(places[-1]))
    points = np.array(ends).reshape(-1, 2)
    write_regions(args.out, points, args.regions, args.seed)
    print(f'{len(ends)} end points, {args.regions} regions: {args.out}')


if __name__ == '__main__':
    run_tool(main)
