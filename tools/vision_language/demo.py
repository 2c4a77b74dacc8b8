"""Ask a trained model about an image, and look inside while it answers.

    python tools/vision_language/demo.py IMAGE "How many cups are there?" --config C
    --checkpoint P

prints the likeliest answers with their scores and writes two pictures: the image with
the answers, and the activations of its tokens and of the words. With a config of
retrieval the text is a caption (or several, | between them), which are ranked; IMAGE
may then be a folder, whose images are ranked. With a config of SQA3D it is a room:

    python tools/vision_language/demo.py scene0000_00_aligned_vert.npy "What is behind
        me?" \\ --situation "I am facing the bed." --config C --checkpoint P
"""

from pathlib import Path

from lm4ve.analysis import analyse
from lm4ve.analysis.loading import collate, samples_of_files
from lm4ve.analysis.samples import samples_of
from lm4ve.analysis.sheets import draw_sheet
from lm4ve.draw.figures import save_figure
from lm4ve.runner.cfg_options import OptionsAction
from lm4ve.runner.command_line import build_parser, read_config, run_tool
from lm4ve.runner.flags import PARTIAL
from lm4ve.runner.tables import print_table
from lm4ve.tasks import task_of_config
from lm4ve.tasks.rooms import RoomInferencer
from lm4ve.tasks.vqa import RetrievalInferencer, VQAInferencer


def main(argv: list[str] | None = None) -> None:
    add = (parser := build_parser(__doc__, PARTIAL)).add_argument
    add(
        'image',
        help='an image; of retrieval also a folder; of SQA3D a room (.npy, .ply)',
    )
    add('text', help='the question; with a config of retrieval one or more captions')
    add('--situation', help='of SQA3D: what somebody in the room does and sees')
    add('--config', required=True, help='config that the model was trained with')
    add('--checkpoint', required=True, help='its checkpoint')
    add('--topk', type=int, default=5, help='how many answers are printed')
    add('--out-dir', help='where pictures go; default: work_dirs/<config>/demo')
    add('--no-sheet', action='store_true', help='write no sheet of activations')
    add('--device', help='default: a GPU if there is one')
    add('--cfg-options', nargs='+', action=OptionsAction, help='override config fields')
    args = parser.parse_args(argv)
    cfg, name = read_config(args.config, args.cfg_options), Path(args.config).stem
    task, many = task_of_config(cfg).name, Path(args.image).is_dir()
    asks = task == 'rooms' or str(cfg.model.head.type).endswith('VQAHead')
    texts = {'situation': args.situation} if task == 'rooms' or args.situation else {}
    texts['question' if asks else 'caption'] = args.text
    given = (
        None if many and not asks else samples_of_files(cfg, [args.image], **texts)[0]
    )
    kind = (
        RoomInferencer
        if task == 'rooms'
        else VQAInferencer
        if asks
        else RetrievalInferencer
    )
    inferencer = kind(cfg, args.checkpoint, args.device, args.allow_partial)
    folder = Path(args.out_dir or f'work_dirs/{name}/demo')
    options = dict(topk=args.topk, out_dir=folder)
    if asks:
        (result,) = inferencer(args.image, *texts.values(), **options)
        print('\n'.join(texts.values()))
        print_table(
            '', [dict(a, score=f'{100 * a["score"]:.1f} %') for a in result['answers']]
        )
    else:
        ranked = 'images' if many else 'captions'
        title, key = ('text', 'img_path') if many else ('img_path', 'text')
        for result in inferencer(
            args.image, args.text.split('|'), rank=ranked, **options
        ):
            print(result[title])
            rows = [
                {ranked: f[key], 'score': f'{f["score"]:.3f}'} for f in result[ranked]
            ]
            print_table('', rows)
    print(f'pictures: {folder}')
    if given is not None and not args.no_sheet:
        analysis = analyse(inferencer.model, collate(cfg, [given.data]))
        (sample,) = samples_of(analysis, inferencer.model, [given.name], heads=3)
        sheet = folder / f'{given.name}_activations.png'
        save_figure(draw_sheet(sample, f'{name}, {args.checkpoint}'), sheet)
        print(f'activations: {sheet}')


if __name__ == '__main__':
    run_tool(main)
