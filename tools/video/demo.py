"""Classify a video and write it again with the prediction drawn into it.

    python tools/video/demo.py VIDEO CONFIG CHECKPOINT OUT.mp4

VIDEO is any file that PyAV and decord can read. Prints the likeliest classes, one per
line. Works with every video config; MMAction2Inferencer does the rest (several videos,
arrays, folders of frames).
"""

from pathlib import Path

from lm4ve.runner.command_line import build_parser, read_config, run_tool
from lm4ve.runner.flags import EVALUATE
from lm4ve.tasks.video.inference import VideoInferencer
from lm4ve.tasks.video.visualization import rank, write_annotated


def main(argv: list[str] | None = None) -> None:
    add = (parser := build_parser(__doc__, EVALUATE)).add_argument
    add('video', help='the video to classify')
    add('config', help='config that the model was trained with')
    add('checkpoint', help='its checkpoint')
    add('out', help='the annotated video to write (.mp4)')
    add(
        '--classes',
        help="text file, a name a line; default: those of the config's data set",
    )
    add('--topk', type=int, default=3, help='how many classes to show')
    add('--device', default=None, help='default: a GPU if there is one')
    args, names = parser.parse_args(argv), None
    if args.classes:
        names = Path(args.classes).read_text(encoding='utf-8').splitlines()
    cfg = read_config(args.config)
    inferencer = VideoInferencer(
        cfg,
        args.checkpoint,
        args.device,
        args.allow_partial,
        strict_config=args.strict_config,
    )
    (result,) = inferencer(args.video)
    ranking = rank(result['pred_scores'], names or inferencer.classes, args.topk)
    for name, score in ranking:
        print(f'{100 * score:5.1f} %  {name}')
    write_annotated(args.video, ranking, args.out)
    print(args.out)


if __name__ == '__main__':
    run_tool(main)
