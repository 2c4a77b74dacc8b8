"""Convert VideoMAE's checkpoints and the paper's video ones for mmaction2.

    python tools/model_converters/videomae_to_mmaction.py pretrain.pth OUT.pth
    python tools/model_converters/videomae_to_mmaction.py finetune.pth OUT.pth
    python tools/model_converters/videomae_to_mmaction.py vit_llama.pth OUT.pth \\
        --llm data/llm/llama-7b

A pre-training's goes to data/pretrained/, where the configs look for it; the
others are tested with configs/video/videomae-s_ssv2.py and -s_llama_ssv2.py.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from lm4ve.converters import read_checkpoint, select_state, write_checkpoint
from lm4ve.engine.command_line import run_tool
from lm4ve.errors import UserError
from lm4ve.tasks.video.converters import BLOCK_PREFIX, convert_videomae
from lm4ve.version import __version__


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('src', type=Path, help='the published checkpoint')
    parser.add_argument('dst', type=Path, help='where to write ours')
    parser.add_argument(
        '--llm',
        help='of a ViT-LLaMA: the language model it was trained with, a Meta\n'
        'or Hugging Face folder, a weight file, or a hub id',
    )
    parser.add_argument(
        '--layer',
        type=int,
        nargs='+',
        default=[15],
        help='the layer(s) of it; default: 15, of the released video models',
    )
    parser.add_argument('--img-size', type=int, default=224, help='side in pixels')
    parser.add_argument('--num-frames', type=int, default=16, help='frames of a clip')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if args.dst.exists() and args.src.exists() and args.dst.samefile(args.src):
        raise UserError(f"SRC and DST are the same file, '{args.src}'. Fix: write to another one.")
    origin = f"'{args.src}'"
    state = select_state(read_checkpoint(args.src), origin=origin)
    converted = convert_videomae(
        state, args.llm, args.layer, args.img_size, args.num_frames, origin
    )
    meta = dict(lm4ve_version=__version__, converted_from=args.src.name)
    size = write_checkpoint(converted, meta, args.dst)
    if args.llm is not None:
        left = sum(k.startswith(BLOCK_PREFIX) for k in state)
        print(
            f"The block equals layer {args.layer} of '{args.llm}' and is left out ({left} tensors)."
        )
    print(f'{args.dst}: {len(converted)} tensors, {size / 1e6:.1f} MB')


if __name__ == '__main__':
    run_tool(main)
