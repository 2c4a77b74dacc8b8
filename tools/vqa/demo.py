"""Ask a trained model about an image, and look inside while it answers.

    python tools/vqa/demo.py IMAGE "How many cups are there?" --config C --checkpoint P

prints the likeliest answers with their scores and writes two pictures: the image with
the answers, and the activations of its tokens and of the words. With a config of
retrieval the text is a caption (or several, | between them), which are ranked; IMAGE
may then be a folder, whose images are ranked. ``tools/rooms/demo.py`` does the same for
rooms.
"""

import argparse
from pathlib import Path
from typing import Any

from PIL import Image

from lm4ve.analysis.drawing import draw_batch
from lm4ve.analysis.loading import NamedSample, collate, samples_of_files
from lm4ve.runner.cfg_options import OptionsAction
from lm4ve.runner.command_line import build_parser, read_config, run_tool
from lm4ve.runner.flags import EVALUATE
from lm4ve.runner.tables import print_table
from lm4ve.tasks import require_task
from lm4ve.tasks.base.tested import tested_evaluator
from lm4ve.tasks.vqa import RetrievalInferencer, VQAInferencer


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(argv)
    cfg = read_config(args.config, args.cfg_options)
    require_task(cfg, 'vqa')
    folder = Path(args.out_dir or f'work_dirs/{Path(args.config).stem}/demo')
    answers_questions = str(cfg.model.head.type).endswith('VQAHead')
    is_folder = Path(args.image).is_dir()
    # Read before the model is built, so that a damaged file is found at once.
    sample = None
    if answers_questions:
        (sample,) = samples_of_files(cfg, [args.image], question=args.text)
    elif not is_folder:
        (sample,) = samples_of_files(cfg, [args.image], caption=args.text)
    inferencer_class = VQAInferencer if answers_questions else RetrievalInferencer
    inferencer = inferencer_class(
        cfg,
        args.checkpoint,
        args.device,
        args.allow_partial,
        strict_config=args.strict_config,
    )
    if answers_questions:
        print_answers(inferencer, args, folder)
    elif is_folder:
        print_images(inferencer, args, folder)
    else:
        print_captions(inferencer, args, folder)
    print(f'pictures: {folder}')
    if sample is not None and not args.no_sheet:
        title = f'{Path(args.config).stem}, {args.checkpoint}'
        write_sheet(inferencer.model, cfg, sample, title, folder)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = build_parser(__doc__, EVALUATE)
    add = parser.add_argument
    add('image', help='an image; with a config of retrieval also a folder')
    add('text', help='the question; with a config of retrieval one or more captions')
    add('--config', required=True, help='config that the model was trained with')
    add('--checkpoint', required=True, help='its checkpoint')
    add('--topk', type=int, default=5, help='how many answers are printed')
    add('--out-dir', help='where pictures go; default: work_dirs/<config>/demo')
    add('--no-sheet', action='store_true', help='write no sheet of activations')
    add('--device', help='default: a GPU if there is one')
    add('--cfg-options', nargs='+', action=OptionsAction, help='override config fields')
    return parser.parse_args(argv)


def print_answers(
    inferencer: VQAInferencer, args: argparse.Namespace, folder: Path
) -> None:
    """Ask the question and print the likeliest answers; a picture goes to ``folder``."""
    (result,) = inferencer(args.image, args.text, topk=args.topk, out_dir=folder)
    print(args.text)
    rows = []
    for ranked in result['answers']:
        rows.append(dict(ranked, score=f'{100 * ranked["score"]:.1f} %'))
    print_table('', rows)


def print_captions(
    inferencer: RetrievalInferencer, args: argparse.Namespace, folder: Path
) -> None:
    """Rank the captions in ``args.text``, with ``|`` between them, for the image.

    A picture goes to ``folder``.
    """
    captions = args.text.split('|')
    for result in inferencer(
        args.image, captions, rank='captions', topk=args.topk, out_dir=folder
    ):
        print(result['img_path'])
        rows = []
        for ranked in result['captions']:
            rows.append(dict(captions=ranked['text'], score=f'{ranked["score"]:.3f}'))
        print_table('', rows)


def print_images(
    inferencer: RetrievalInferencer, args: argparse.Namespace, folder: Path
) -> None:
    """Rank the images of the folder ``args.image`` for each caption, and print the best.

    Captions stand in ``args.text`` with ``|`` between them. Pictures go to ``folder``.
    """
    captions = args.text.split('|')
    for result in inferencer(
        args.image, captions, rank='images', topk=args.topk, out_dir=folder
    ):
        print(result['text'])
        rows = []
        for ranked in result['images']:
            rows.append(dict(images=ranked['img_path'], score=f'{ranked["score"]:.3f}'))
        print_table('', rows)


def write_sheet(
    model: Any, cfg: Any, sample: NamedSample, title: str, folder: Path
) -> None:
    """Draw the activations of the image's tokens and of the words."""
    (sheet,) = draw_batch(
        model,
        collate(cfg, [sample.data]),
        [sample.name],
        title,
        heads=3,
        evaluator=tested_evaluator(cfg),
    )
    path = folder / f'{sample.name}_activations.png'
    Image.fromarray(sheet.image).save(path)
    print(f'activations: {path}')


if __name__ == '__main__':
    run_tool(main)
