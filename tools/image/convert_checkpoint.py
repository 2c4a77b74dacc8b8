"""Convert the paper's released ViT and ViT-LLaMA image checkpoints for mmpretrain.

    python tools/image/convert_checkpoint.py vit_small.pth OUT.pth
    python tools/image/convert_checkpoint.py vit_small_llama.pth OUT.pth --llm data/llm/llama-7b

Test the result with configs/lm4ve/vit-s_in1k.py and vit-s_llama_in1k.py.
"""

from collections.abc import Sequence

from lm4ve.release.command_line import convert_file, converter_parser
from lm4ve.runner.command_line import run_tool
from lm4ve.tasks.image.converters import convert_vit


def main(argv: Sequence[str] | None = None) -> None:
    parser = converter_parser(__doc__)
    parser.add_argument(
        '--ema',
        action='store_true',
        help='take the moving average (model_ema); the paper evaluates the raw weights',
    )
    args = parser.parse_args(argv)
    convert_file(args, convert_vit, args.ema)


if __name__ == '__main__':
    run_tool(main)
