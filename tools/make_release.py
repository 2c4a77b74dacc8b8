"""Write a self-contained release, which needs no language model to run.

python tools/make_release.py CONFIG CHECKPOINT OUT_FOLDER
python tools/test.py OUT_FOLDER/<name>.py OUT_FOLDER/<name>.pth
"""

import argparse
from collections.abc import Sequence

from mmengine.config import DictAction

import lm4ve  # noqa: F401  (registers before the config is read)
from lm4ve.converters.release import make_release
from lm4ve.engine.command_line import run_tool


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('config', help='config that the model was trained with')
    parser.add_argument('checkpoint', help='its checkpoint')
    parser.add_argument('out_folder', help='where the two files go')
    parser.add_argument(
        '--half',
        action='store_true',
        help='store frozen fp32 tensors in 16 bits where that loses nothing',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override config fields, for example\nmodel.neck.block.checkpoint=/path/to/llama-7b',
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    r = make_release(args.config, args.checkpoint, args.out_folder, args.half, args.cfg_options)
    print(
        f'{r.config}\n{r.checkpoint}: {r.size / 1e6:.1f} MB, of which '
        f'{r.frozen / 1e6:.1f} MB are frozen weights of the language model '
        f'and {r.trained / 1e6:.1f} MB all others. Loaded again and compared:'
        ' every tensor is equal.'
    )
    if r.kept:
        print(f'--half: {r.kept} frozen tensors stay in fp32, since 16 bits would change them.')


if __name__ == '__main__':
    run_tool(main)
