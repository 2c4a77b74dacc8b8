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
from typing import Any

from torch import Tensor

from lm4ve.errors import check
from lm4ve.release.command_line import run_converter
from lm4ve.runner.command_line import run_tool
from lm4ve.tasks.rooms.converters import convert_sqa3d, to_sqa3d
from lm4ve.tasks.vqa.converters import TASKS, convert_meter, to_meter


def convert(
    state: dict[str, Tensor], llm: str | None, layer: Sequence[int], *, origin: str, **options: Any
) -> dict[str, Tensor]:
    """Call the converter of the file's model."""
    is_sqa3d = any(k.startswith(('detection_backbone.', 'object_encoder.')) for k in state)
    answers = options.pop('answers')
    check('--llm', llm, choices=(None,))  # the releases have no block
    if options.pop('reverse'):
        return (to_sqa3d if is_sqa3d else to_meter)(state, origin)
    if is_sqa3d:
        return convert_sqa3d(state, answers, origin)
    check('--answers, which are of SQA3D', answers, choices=(None,))
    return convert_meter(state, origin=origin, **options)


def main(argv: Sequence[str] | None = None) -> None:
    run_converter(
        argv,
        __doc__,
        convert,
        task=dict(choices=TASKS, default='auto', help='default: by the heads of the file'),
        vocabulary=dict(help='the answers of a VQA checkpoint, in their order'),
        answers=dict(help='the answer_counter.json of an SQA3D checkpoint'),
        reverse=dict(action='store_true', help='from our names to the released'),
    )


if __name__ == '__main__':
    run_tool(main)
