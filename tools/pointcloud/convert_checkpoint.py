"""Convert published Point-BERT, Point-MAE and Point-BERT + LLaMA checkpoints.

    python tools/pointcloud/convert_checkpoint.py Point-BERT.pth data/pretrained/point-bert.pth
    python tools/pointcloud/convert_checkpoint.py scan_hardest_llama.pth OUT.pth \\
        --llm data/llm/llama-7b --num-classes 15

A pre-trained model becomes a file for model.checkpoint. Test a classifier with the
config of its data set.
"""

from collections.abc import Sequence

from lm4ve.release.command_line import run_converter
from lm4ve.runner.command_line import run_tool
from lm4ve.tasks.pointcloud.converters import convert_pointbert


def main(argv: Sequence[str] | None = None) -> None:
    rows = 'keep this many rows of the head (15 for ScanObjectNN, whose published heads have 40)'
    run_converter(argv, __doc__, convert_pointbert, num_classes=dict(type=int, help=rows))


if __name__ == '__main__':
    run_tool(main)
