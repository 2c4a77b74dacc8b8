"""Convert VideoMAE's checkpoints and the paper's video ones for mmaction2.

    python tools/video/convert_checkpoint.py pretrain.pth data/pretrained/videomae-s_ssv2-2400e.pth
    python tools/video/convert_checkpoint.py finetune.pth OUT.pth
    python tools/video/convert_checkpoint.py vit_llama.pth OUT.pth --llm data/llm/llama-7b

The configs look for a pre-trained model in data/pretrained/. Test the others with
configs/video/videomae-s_ssv2.py and videomae-s_llama_ssv2.py.
"""

from collections.abc import Sequence

from lm4ve.release.command_line import run_converter
from lm4ve.runner.command_line import run_tool
from lm4ve.tasks.video.converters import convert_videomae


def main(argv: Sequence[str] | None = None) -> None:
    size = dict(type=int, default=224, help='side in pixels; default: 224')
    frames = dict(type=int, default=16, help='frames of a clip; default: 16')
    run_converter(argv, __doc__, convert_videomae, layer=15, img_size=size, num_frames=frames)


if __name__ == '__main__':
    run_tool(main)
