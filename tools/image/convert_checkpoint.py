"""Convert the paper's released ViT and ViT-LLaMA image checkpoints for mmpretrain.

    python tools/image/convert_checkpoint.py vit_small.pth OUT.pth
    python tools/image/convert_checkpoint.py vit_small_llama.pth OUT.pth --llm data/llm/llama-7b

Test the result with configs/lm4ve/vit-s_in1k.py and vit-s_llama_in1k.py.
"""

from collections.abc import Sequence

from lm4ve.release.command_line import run_converter
from lm4ve.runner.command_line import run_tool
from lm4ve.tasks.image.converters import convert_vit


def main(argv: Sequence[str] | None = None) -> None:
    ema = 'take the moving average (model_ema); the paper evaluates the raw weights'
    run_converter(argv, __doc__, convert_vit, ema=dict(action='store_true', help=ema))


if __name__ == '__main__':
    run_tool(main)
