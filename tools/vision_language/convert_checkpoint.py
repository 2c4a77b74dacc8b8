"""Convert METER's released checkpoints, and models of ours back into METER's names.

    python tools/vision_language/convert_checkpoint.py \\
        meter_clip16_288_roberta_pretrain.ckpt data/pretrained/meter_rank.pth --task retrieval
    python tools/vision_language/convert_checkpoint.py \\
        meter_clip16_288_roberta_vqa.ckpt OUT.pth --vocabulary data/VQAv2/vocabulary.json
    python tools/vision_language/convert_checkpoint.py epoch_10.pth meter.ckpt --reverse

Start from a converted file with --cfg-options load_from=OUT.pth and a config of its
sizes: the released encoders are CLIP's ViT-B/16 and RoBERTa-base.
"""

from collections.abc import Sequence

from torch import Tensor

from lm4ve.converters.command_line import convert_file, converter_parser
from lm4ve.engine.command_line import run_tool
from lm4ve.tasks.vision_language.converters import TASKS, convert_meter, to_meter


def go_back(state: dict[str, Tensor], llm: None, layer: int, origin: str) -> dict[str, Tensor]:
    """``to_meter`` as the shared command line calls converters."""
    return to_meter(state, origin)


def main(argv: Sequence[str] | None = None) -> None:
    parser = converter_parser(__doc__)
    parser.add_argument(
        '--task',
        choices=TASKS,
        default='auto',
        help="what the model is for; default: what the file's heads say",
    )
    parser.add_argument('--vocabulary', help='the answers of a VQA checkpoint, in their order')
    parser.add_argument('--reverse', action='store_true', help="from our names to METER's")
    args = parser.parse_args(argv)
    if args.reverse:
        if args.llm or args.vocabulary or args.task != 'auto':
            parser.error('--reverse takes none of --llm, --task and --vocabulary')
        convert_file(args, go_back)
    else:
        convert_file(args, convert_meter, task=args.task, vocabulary=args.vocabulary)


if __name__ == '__main__':
    run_tool(main)
