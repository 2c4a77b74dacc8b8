"""Write a self-contained release, which needs no language model to run.

lm4ve release CONFIG CHECKPOINT OUT_FOLDER
lm4ve test OUT_FOLDER/<name>.py OUT_FOLDER/<name>.pth
"""

from collections.abc import Sequence

from lm4ve.release.release import make_release
from lm4ve.runner.command_line import config_parser


def main(argv: Sequence[str] | None = None) -> None:
    parser = config_parser(__doc__)
    parser.add_argument('checkpoint', help='a checkpoint of that config')
    parser.add_argument('out_folder', help='where the two files go')
    parser.add_argument(
        '--half',
        action='store_true',
        help='store frozen fp32 tensors in 16 bits where that loses nothing',
    )
    args = parser.parse_args(argv)
    r = make_release(args.config, args.checkpoint, args.out_folder, args.half, args.cfg_options)
    size = r.checkpoint.stat().st_size / 1e6
    print(f'{r.config}\n{r.checkpoint}: {size:.1f} MB, loaded again: every tensor is equal.')
    if r.kept:
        print(f'--half: {r.kept} frozen tensors stay in fp32, since 16 bits would change them.')
