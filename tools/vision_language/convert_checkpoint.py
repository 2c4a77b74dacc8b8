"""Convert released checkpoints of METER and SQA3D, and models of ours back into their names.

    python tools/vision_language/convert_checkpoint.py \\
        meter_clip16_288_roberta_pretrain.ckpt data/pretrained/meter_rank.pth --task retrieval
    python tools/vision_language/convert_checkpoint.py \\
        meter_clip16_288_roberta_vqa.ckpt OUT.pth --vocabulary data/VQAv2/vocabulary.json
    python tools/vision_language/convert_checkpoint.py epoch_10.pth meter.ckpt --reverse
    python tools/vision_language/convert_checkpoint.py \\
        model.pth OUT.pth --answers data/scannet/qa/answer_counter.json

The keys of a file say of which model it is. Start from a converted file with --cfg-options
load_from=OUT.pth and a config of its sizes: METER's released encoders are CLIP's ViT-B/16 and
RoBERTa-base.
"""

from collections.abc import Sequence

from torch import Tensor

from lm4ve.errors import UserError
from lm4ve.release.command_line import convert_file, converter_parser
from lm4ve.runner.command_line import run_tool
from lm4ve.tasks.rooms.converters import convert_sqa3d, to_sqa3d
from lm4ve.tasks.vqa.converters import TASKS, convert_meter, to_meter


def convert(
    state: dict[str, Tensor], llm: str | None, layer: int | Sequence[int], origin: str, **options
) -> dict[str, Tensor]:
    """Call the converter of the file's model with the options that it takes."""
    answers = options.pop('answers')
    is_sqa3d = any(k.startswith('detection_backbone.') for k in state)
    if is_sqa3d and (options['vocabulary'] or options['task'] != 'auto'):
        raise UserError(f'{origin} is of SQA3D, which takes --answers. Fix: leave out the others.')
    if is_sqa3d:
        return convert_sqa3d(state, llm, layer, answers, origin)
    if answers:
        raise UserError(f'{origin} is not of SQA3D. Fix: give --vocabulary, not --answers.')
    return convert_meter(state, llm, layer, origin=origin, **options)


def go_back(state: dict[str, Tensor], llm: None, layer: int, origin: str) -> dict[str, Tensor]:
    """The way back, as the shared command line calls converters."""
    if any(k.startswith('object_encoder.') for k in state):
        return to_sqa3d(state, origin)
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
    parser.add_argument('--answers', help='the answer_counter.json of an SQA3D checkpoint')
    parser.add_argument('--reverse', action='store_true', help='from our names to the released')
    args = parser.parse_args(argv)
    if args.reverse:
        if args.llm or args.vocabulary or args.answers or args.task != 'auto':
            parser.error('--reverse takes none of --llm, --task, --vocabulary and --answers')
        convert_file(args, go_back)
    else:
        options = dict(task=args.task, vocabulary=args.vocabulary, answers=args.answers)
        convert_file(args, convert, **options)


if __name__ == '__main__':
    run_tool(main)
