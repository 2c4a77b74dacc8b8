"""Convert published Point-BERT, Point-MAE and Point-BERT + LLaMA checkpoints.

    python tools/model_converters/pointbert.py Point-BERT.pth \\
        data/pretrained/point-bert.pth
    python tools/model_converters/pointbert.py scan_hardest_llama.pth OUT.pth \\
        --llm data/llm/llama-7b --num-classes 15

Pre-training gives a file for ``model.pretrained``; a classifier is tested with
the config of its data set.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from lm4ve.converters import read_checkpoint, select_state, write_checkpoint
from lm4ve.engine.command_line import run_tool
from lm4ve.errors import UserError
from lm4ve.tasks.pointcloud.converters import convert_pointbert
from lm4ve.version import __version__


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('src', type=Path, help='the published checkpoint')
    parser.add_argument('dst', type=Path, help='where to write ours')
    parser.add_argument(
        '--llm',
        help='where there is a block: its language\nmodel, a folder, a weight file or a hub id',
    )
    parser.add_argument(
        '--layer', type=int, nargs='+', default=[-1], help='the layer(s) of it; default: the last'
    )
    parser.add_argument(
        '--num-classes',
        type=int,
        help='keep this many rows of the head (15 for\n'
        'ScanObjectNN, whose published heads have 40)',
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if args.dst.exists() and args.src.exists() and args.dst.samefile(args.src):
        raise UserError(f"SRC and DST are the same file, '{args.src}'. Fix: write to another one.")
    origin = f"'{args.src}'"
    state = select_state(read_checkpoint(args.src), origin=origin)
    converted = convert_pointbert(state, args.llm, args.layer, args.num_classes, origin)
    meta = dict(lm4ve_version=__version__, converted_from=args.src.name)
    size = write_checkpoint(converted, meta, args.dst)
    print(f'{args.dst}: {len(converted)} tensors, {size / 1e6:.1f} MB')


if __name__ == '__main__':
    run_tool(main)
