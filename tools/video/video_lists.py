"""Make mmaction2's video lists from Something-Something V2's or VideoMAE's.

    python tools/video/video_lists.py ssv2 labels.json train.json \\
        data/sthv2/sthv2_train_list_videos.txt
    python tools/video/video_lists.py videomae train.csv OUT.txt \\
        --root /data/ssv2
"""

import argparse
from collections.abc import Sequence

from lm4ve.runner.command_line import run_tool
from lm4ve.tasks.video.datasets.list_conversion import read_ssv2, read_videomae, write_list


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    kinds = parser.add_subparsers(dest='kind', required=True)
    ssv2 = kinds.add_parser('ssv2', help="the data set's official files")
    ssv2.add_argument('labels', help='template -> number, JSON')
    ssv2.add_argument('split', help='train or validation, JSON; or the test answers, CSV')
    ssv2.add_argument('out', help='the list to write')
    ssv2.add_argument('--extension', default='webm', help='of the video files; default: webm')
    videomae = kinds.add_parser('videomae', help="VideoMAE's CSV files")
    videomae.add_argument('csv', help='"path label" a line')
    videomae.add_argument('out', help='the list to write')
    videomae.add_argument('--root', default='', help='leading part of the paths to take off')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if args.kind == 'ssv2':
        entries = read_ssv2(args.labels, args.split, args.extension)
    else:
        entries = read_videomae(args.csv, args.root)
    write_list(entries, args.out)
    classes = len({label for _, label in entries})
    print(f'{args.out}: {len(entries)} videos of {classes} classes')


if __name__ == '__main__':
    run_tool(main)
