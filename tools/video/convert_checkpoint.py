"""Convert VideoMAE's checkpoints and the paper's video ones for mmaction2.

    python tools/video/convert_checkpoint.py pretrain.pth data/pretrained/videomae-s_ssv2-2400e.pth
    python tools/video/convert_checkpoint.py finetune.pth OUT.pth
    python tools/video/convert_checkpoint.py vit_llama.pth OUT.pth --llm data/llm/llama-7b

The configs look for a pre-trained model in data/pretrained/. Test the others with
configs/video/videomae-s_ssv2.py and videomae-s_llama_ssv2.py.
"""

from collections.abc import Sequence

from lm4ve.release.command_line import convert_file, converter_parser
from lm4ve.runner.command_line import run_tool
from lm4ve.tasks.video.converters import convert_videomae


def main(argv: Sequence[str] | None = None) -> None:
    parser = converter_parser(__doc__, layer=15)
    parser.add_argument('--img-size', type=int, default=224, help='side in pixels; default: 224')
    parser.add_argument('--num-frames', type=int, default=16, help='frames of a clip; default: 16')
    args = parser.parse_args(argv)
    convert_file(args, convert_videomae, img_size=args.img_size, num_frames=args.num_frames)


if __name__ == '__main__':
    run_tool(main)
