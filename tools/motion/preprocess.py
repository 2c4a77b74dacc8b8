"""Write the cache of one split of Argoverse 1 or 2.

    python tools/motion/preprocess.py argoverse1 data/argoverse1/train/data \\
        data/argoverse1/train.cache --map-dir data/argoverse1/map_files --workers 8
    python tools/motion/preprocess.py argoverse2 data/argoverse2/val \\
        data/argoverse2/val.cache --workers 8
    python tools/motion/preprocess.py argoverse2 data/argoverse2/val \\
        data/argoverse2/val_detailed.cache --detailed --workers 8

A killed run goes on where it stopped when it is started again.
"""

import json

from lm4ve.data.integrity import POLICIES
from lm4ve.errors import UserError
from lm4ve.runner.command_line import build_parser, run_tool
from lm4ve.tasks.motion import (
    Argoverse1Reader,
    Argoverse2Reader,
    SceneCache,
    preprocess_split,
)
from lm4ve.tasks.motion.transforms.sub_scenes import DETAILED_RANGE


def main(argv: list[str] | None = None) -> None:
    add = (parser := build_parser(__doc__, {})).add_argument
    add('dataset', choices=['argoverse1', 'argoverse2'])
    add('data_dir', help='folder of the split')
    add('out', help='the cache to write')
    add('--map-dir', help='map_files of Argoverse 1')
    add(
        '--map-range',
        type=float,
        help='meters; default: 142, or with --detailed 213',
    )
    add(
        '--detailed',
        action='store_true',
        help='keep headings, speeds and kinds of agents, and 20 points of a lane '
        '(Argoverse 2, for RealMotion)',
    )
    add('--workers', type=int, default=1)
    add(
        '--on-corrupt',
        choices=POLICIES,
        default='skip',
        help='leave corrupt files out, or stop',
    )
    add('--no-verify', action='store_true', help='do not hash the finished file')
    args = parser.parse_args(argv)
    map_range = args.map_range
    if map_range is None:
        map_range = DETAILED_RANGE if args.detailed else 142.0
    if args.dataset == 'argoverse1':
        if args.map_dir is None:
            raise UserError('Argoverse 1 needs --map-dir MAP_FILES.')
        if args.detailed:
            raise UserError(
                '--detailed: the files of Argoverse 1 have no headings and speeds. Fix: '
                'lm4ve.EstimateMotion in the pipeline.'
            )
        reader = Argoverse1Reader(args.data_dir, args.map_dir, map_range)
    else:
        reader = Argoverse2Reader(args.data_dir, map_range, args.detailed)
    footer = preprocess_split(reader, args.out, args.workers, args.on_corrupt)
    if not args.no_verify:
        SceneCache(args.out, verify=True)
    footer.pop('source')
    print(json.dumps(footer, indent=2))


if __name__ == '__main__':
    run_tool(main)
