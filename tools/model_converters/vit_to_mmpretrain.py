"""Convert the paper's released ViT and ViT-LLaMA image checkpoints.

    python tools/model_converters/vit_to_mmpretrain.py vit_small.pth OUT.pth
    python tools/model_converters/vit_to_mmpretrain.py vit_small_llama.pth OUT.pth \\
        --llm data/llm/llama-7b

The result is tested with configs/lm4ve/vit-s_in1k.py and vit-s_llama_in1k.py.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from lm4ve.converters import read_checkpoint, select_state, write_checkpoint
from lm4ve.engine.command_line import run_tool
from lm4ve.errors import UserError
from lm4ve.tasks.image.converters import BLOCK_PREFIX, convert_vit
from lm4ve.version import __version__


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('src', type=Path, help='the released checkpoint')
    parser.add_argument('dst', type=Path, help='where to write ours')
    parser.add_argument(
        '--llm',
        help='of a ViT-LLaMA: the language model it was trained with, a Meta\n'
        'or Hugging Face folder, a weight file, or a hub id',
    )
    parser.add_argument(
        '--layer', type=int, nargs='+', default=[-1], help='the layer(s) of it; default: the last'
    )
    parser.add_argument(
        '--ema',
        action='store_true',
        help='take the moving average (model_ema); the paper evaluates the\nraw weights',
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if args.dst.exists() and args.src.exists() and args.dst.samefile(args.src):
        raise UserError(f"SRC and DST are the same file, '{args.src}'. Fix: write to another one.")
    origin = f"'{args.src}'"
    state = select_state(read_checkpoint(args.src), args.ema, origin)
    converted = convert_vit(state, args.llm, args.layer, origin)
    meta = dict(
        lm4ve_version=__version__,
        converted_from=args.src.name,
        weights='model_ema' if args.ema else 'model',
    )
    size = write_checkpoint(converted, meta, args.dst)
    if args.llm is not None:
        left = sum(k.startswith(BLOCK_PREFIX) for k in state)
        print(
            f"The block equals layer {args.layer} of '{args.llm}' and is left out ({left} tensors)."
        )
    print(f'{args.dst}: {len(converted)} tensors, {size / 1e6:.1f} MB')


if __name__ == '__main__':
    run_tool(main)
