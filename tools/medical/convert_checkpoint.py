"""Convert checkpoints of LLM4Seg, CMUNeXt, MedVisionLlama and LLMBoostMedical's ViViT.

    python tools/medical/convert_checkpoint.py CMUNeXt-LLM_model_busi.pth OUT.pth \\
        --llm data/llm/llama-3.2-1b --layer 14

LLMBoostMedical's 2D models: tools/image/convert_checkpoint.py.
"""

from collections.abc import Sequence

from lm4ve.release.command_line import run_converter
from lm4ve.runner.command_line import run_tool
from lm4ve.tasks.medical.converters import convert_medical


def main(argv: Sequence[str] | None = None) -> None:
    run_converter(
        argv,
        __doc__,
        convert_medical,
        skip=dict(action='store_true', help='a ViViT of the mode llm_out_nn'),
        unmerged=dict(action='store_true', help='a MedVisionLlama that was saved in training mode'),
    )


if __name__ == '__main__':
    run_tool(main)
