"""Convert published checkpoints for the configs of a task.

    python tools/convert_checkpoint.py image vit_small_llama.pth OUT.pth --llm data/llm/llama-7b
    python tools/convert_checkpoint.py TASK --help

image: the paper's ViT and ViT-LLaMA, for mmpretrain. Test the result with
    configs/lm4ve/vit-s_in1k.py and vit-s_llama_in1k.py.
video: VideoMAE's and the paper's, for mmaction2. The configs look for a pre-trained
    model in data/pretrained/videomae-s_ssv2-2400e.pth. Test the others with
    configs/video/videomae-s_ssv2.py and videomae-s_llama_ssv2.py.
pointcloud: Point-BERT, Point-MAE and Point-BERT + LLaMA. A pre-trained model becomes a
    file for model.checkpoint. Test a classifier with the config of its data set.
motion: mmTransformer, for configs/motion/mmtransformer_argoverse1.py. Test it with
    --cfg-options model.decoder.learned_weights=False: the release has no weights of
    losses.
medical: LLM4Seg, CMUNeXt, MedVisionLlama and LLMBoostMedical's ViViT, whose 2D models
    are of the task image.
vqa: METER. Start from a converted file with --cfg-options load_from=OUT.pth and a
    config of its sizes: the released encoders are CLIP's ViT-B/16 and RoBERTa-base.
rooms: SQA3D. Start from a converted file in the same way.
"""

import sys
from functools import partial
from pkgutil import resolve_name
from typing import Any

from torch import Tensor

from lm4ve.errors import check
from lm4ve.release.command_line import run_converter
from lm4ve.runner.command_line import build_parser, run_tool
from lm4ve.zoo import PROJECTS, configs_of_project

_AVERAGE = 'take the moving average (model_ema); the paper evaluates the raw weights'
_ROWS = 'keep this many rows of the head (15 for ScanObjectNN, whose published heads have 40)'


def _switch(text: str) -> dict[str, Any]:
    """Return the options of a flag without a value."""
    return dict(action='store_true', help=text)


#: Task -> the function of its ``converters`` that converts.
CONVERTERS = {
    'image': 'convert_vit',
    'video': 'convert_videomae',
    'pointcloud': 'convert_pointbert',
    'motion': 'convert_mmtransformer',
    'medical': 'convert_medical',
    'vqa': 'convert_meter',
    'rooms': 'convert_sqa3d',
}
#: Task -> further arguments of its converter, and the options of their flags.
FLAGS: dict[str, dict[str, Any]] = {
    'image': dict(ema=_switch(_AVERAGE)),
    'video': dict(
        img_size=dict(type=int, default=224, help='side in pixels; default: 224'),
        num_frames=dict(type=int, default=16, help='frames of a clip; default: 16'),
    ),
    'pointcloud': dict(num_classes=dict(type=int, help=_ROWS)),
    'motion': {},
    'medical': dict(
        skip=_switch('a ViViT of the mode llm_out_nn'),
        unmerged=_switch('a MedVisionLlama that was saved in training mode'),
        input_scale=dict(
            type=float,
            default=1 / 255,
            help="factor of CMUNeXt's pixels; default: 1/255, as LLM4Seg trains",
        ),
    ),
    'vqa': dict(
        task=dict(
            choices=('auto', 'vqa', 'retrieval', 'matching'),
            default='auto',
            help='default: by the heads of the file',
        ),
        vocabulary=dict(help='the answers of a VQA checkpoint, in their order'),
    ),
    'rooms': dict(answers=dict(help='the answer_counter.json of the checkpoint')),
}
#: Tasks whose releases have no block.
WITHOUT_BLOCK = ('vqa', 'rooms')
#: Task -> the layer of the language model that its released blocks are; default: the
#: last.
LAYERS = {'video': 15}


def convert_without_block(
    convert: str, state: dict[str, Tensor], llm: str | None, layer: Any, **options: Any
) -> dict[str, Tensor]:
    """Convert the state of a release that has no block; ``layer`` is not read."""
    check('--llm', llm, choices=(None,))
    return resolve_name(convert)(state, **options)


def main(argv: list[str] | None = None) -> None:
    words = sys.argv[1:] if argv is None else argv
    # The first word decides the flags of the others.
    parser = build_parser(__doc__, {'task': dict(choices=CONVERTERS)})
    task = parser.parse_args(words[:1]).task
    package = f'lm4ve.tasks.{task}'
    if task in PROJECTS:
        package = PROJECTS[task]
        configs_of_project(task)  # says what to do where it is not importable
    name = f'{package}.converters:{CONVERTERS[task]}'
    if task in WITHOUT_BLOCK:
        convert = partial(convert_without_block, name)
    else:
        convert = resolve_name(name)
    run_converter(
        words[1:],
        f'Convert a published checkpoint ({task}).',
        convert,
        layer=LAYERS.get(task, -1),
        **FLAGS[task],
    )


if __name__ == '__main__':
    run_tool(main)
