"""Ask a trained model about a room, and look inside while it answers.

    python tools/rooms/demo.py scene0000_00_aligned_vert.npy "What is behind me?" \\
        --situation "I am facing the bed." --config C --checkpoint P

prints the likeliest answers with their scores and writes two pictures: the room with
the answers, and the activations of the tokens of its objects and of the words.
"""

import argparse
from pathlib import Path

from PIL import Image

from lm4ve.analysis.drawing import draw_batch
from lm4ve.analysis.loading import collate, samples_of_files
from lm4ve.runner.cfg_options import OptionsAction
from lm4ve.runner.command_line import build_parser, read_config, run_tool
from lm4ve.runner.flags import EVALUATE
from lm4ve.runner.tables import print_table
from lm4ve.tasks import require_task
from lm4ve.tasks.base.tested import tested_evaluator
from lm4ve.tasks.rooms import RoomInferencer


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(argv)
    cfg = read_config(args.config, args.cfg_options)
    require_task(cfg, 'rooms')
    name = Path(args.config).stem
    folder = Path(args.out_dir or f'work_dirs/{name}/demo')
    # Read before the model is built, so that a damaged file is found at once.
    (sample,) = samples_of_files(
        cfg, [args.room], situation=args.situation, question=args.question
    )
    inferencer = RoomInferencer(
        cfg,
        args.checkpoint,
        args.device,
        args.allow_partial,
        strict_config=args.strict_config,
    )
    (result,) = inferencer(
        args.room, args.situation, args.question, topk=args.topk, out_dir=folder
    )
    print(args.situation)
    print(args.question)
    rows = []
    for ranked in result['answers']:
        rows.append(dict(ranked, score=f'{100 * ranked["score"]:.1f} %'))
    print_table('', rows)
    print(f'pictures: {folder}')
    if args.no_sheet:
        return
    (sheet,) = draw_batch(
        inferencer.model,
        collate(cfg, [sample.data]),
        [sample.name],
        f'{name}, {args.checkpoint}',
        heads=3,
        evaluator=tested_evaluator(cfg),
    )
    path = folder / f'{sample.name}_activations.png'
    Image.fromarray(sheet.image).save(path)
    print(f'activations: {path}')


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = build_parser(__doc__, EVALUATE)
    add = parser.add_argument
    add('room', help='a room (.npy, .ply)')
    add('question', help='the question')
    add('--situation', help='what somebody in the room does and sees')
    add('--config', required=True, help='config that the model was trained with')
    add('--checkpoint', required=True, help='its checkpoint')
    add('--topk', type=int, default=5, help='how many answers are printed')
    add('--out-dir', help='where pictures go; default: work_dirs/<config>/demo')
    add('--no-sheet', action='store_true', help='write no sheet of activations')
    add('--device', help='default: a GPU if there is one')
    add('--cfg-options', nargs='+', action=OptionsAction, help='override config fields')
    return parser.parse_args(argv)


if __name__ == '__main__':
    run_tool(main)
