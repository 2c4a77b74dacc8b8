"""Convert the released mmTransformer, for configs/motion/mmtransformer_argoverse1.py.

    python tools/motion/convert_checkpoint.py demo.pt data/pretrained/mmtransformer.pth

Test it with --cfg-options model.decoder.learned_weights=False: the release has no
weights of losses.
"""

from collections.abc import Sequence

from lm4ve.release.command_line import run_converter
from lm4ve.runner.command_line import run_tool
from lm4ve.tasks.motion.converters import convert_mmtransformer


def main(argv: Sequence[str] | None = None) -> None:
    run_converter(argv, __doc__, convert_mmtransformer)


if __name__ == '__main__':
    run_tool(main)
