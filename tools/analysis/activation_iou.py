"""How well activations and attention cover the foreground: pseudo-mask IoU.

    python tools/analysis/activation_iou.py CONFIG CHECKPOINT
    python tools/analysis/activation_iou.py CONFIG CHECKPOINT \\
        --data-root /path/to/ImageNetS50 --layout imagenet-s

Without --data-root the masks are those of the config's own data set (textured
digits). Prints tables; writes iou.json, iou.csv, iou.png (IoU over the threshold) and
pseudo_masks.png. docs/guides/activations.md says how it is measured.
"""

import argparse
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from mmengine.dataset import Compose
from mmengine.registry import DATASETS
from rich.console import Console
from rich.progress import track

import lm4ve  # noqa: F401  (registers before the config is read)
from lm4ve.analysis import analyse
from lm4ve.analysis.iou.figure import Example, draw_examples, examples_of
from lm4ve.analysis.iou.mask_datasets import LAYOUTS, MaskFollower, SampleMasks, batches, open_masks
from lm4ve.analysis.iou.pseudo_masks import RULES, THRESHOLDS, Scores, maps_of, split_images
from lm4ve.analysis.iou.report import Report, summarize, tables, write
from lm4ve.analysis.loading import UNTRAINED, collate, load_model, tool_parser
from lm4ve.analysis.points import read_points, resolve_points
from lm4ve.errors import UserError, check
from lm4ve.runner.command_line import run_tool
from lm4ve.runner.config import read_config


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = tool_parser(__doc__)
    add = parser.add_argument
    root = "folder of images and masks; default: the config's data set, which must have masks"
    add('--data-root', help=root)
    layout = 'imagenet-s (ImageNetS50, 300 or 919) or folder (images/NAME.jpg, masks/NAME.png)'
    add('--layout', choices=sorted(LAYOUTS), help=f'how --data-root is laid out: {layout}')
    split = "of the config's data set ('train', 'val', 'test'; default: as configured), or of "
    add('--split', help=split + "ImageNet-S ('validation', the default)")
    add('--ignored', type=int, help='with --layout folder: gray level or index not to count')
    add('--thresholds', nargs='+', type=float, default=list(THRESHOLDS))
    rule = 'a token is foreground if at least half of its area is, or any of it'
    add('--rule', choices=RULES, default='majority', help=rule)
    add('--fixed-share', type=float, default=0.2, help='share of images to fix thresholds on')
    add('--skip-empty', action='store_true', help='pass over images without foreground')
    add('--bootstrap', type=int, default=2000, help='resamples')
    add('--seed', type=int, default=0, help='of the split, the bootstrap and shuffled maps')
    add('--batch-size', type=int, default=32)
    add('--figure', type=int, default=6, help='images shown with pseudo-masks; 0: none')
    return parser.parse_args(argv)


def check_args(args: argparse.Namespace) -> None:
    """Refuse what does not go together, before anything is loaded."""
    if (args.data_root is None) != (args.layout is None):
        raise UserError('--data-root and --layout go together.')
    if args.ignored is not None and args.layout != 'folder':
        raise UserError('--ignored is for --layout folder.')
    if args.split is not None and args.layout == 'folder':
        raise UserError('--layout folder has no splits.')
    for name in ('bootstrap', 'batch_size'):
        check(f'--{name.replace("_", "-")}', getattr(args, name), least=1)


def open_data(cfg, args: argparse.Namespace):
    """Return the images with masks, and what sends them through the pipeline."""
    loader = cfg.get('test_dataloader') or cfg.val_dataloader
    if args.layout is None:
        if args.split is not None:
            loader.dataset.split = args.split
        dataset = DATASETS.build(loader.dataset)
        return SampleMasks(dataset), MaskFollower(dataset.pipeline.transforms)
    pipeline = Compose(loader.dataset.pipeline)
    options = dict(split=args.split) if args.split else {}
    if args.ignored is not None:
        options['ignored'] = args.ignored
    follower = MaskFollower(pipeline.transforms)
    return open_masks(args.data_root, args.layout, pipeline, **options), follower


def score_all(
    model, found: Iterable, points: dict | None, scores: Scores, examples: int
) -> list[Example]:
    """Score every batch; return the first images to show."""
    # As the preprocessors of mmpretrain and of MMEngine call it.
    is_bgr = any(
        getattr(model.data_preprocessor, k, False) for k in ('to_rgb', '_channel_conversion')
    )
    shown: list[Example] = []
    for names, data, masks in found:
        analysis = analyse(model, data, points)
        size = tuple(analysis.inputs.shape[-2:])
        if {m.shape for m in masks} != {size}:
            raise UserError(
                f"The model's preprocessor pads images to {size}, which moves their masks. Use "
                '--batch-size 1 or a test pipeline that ends in one size.'
            )
        maps = maps_of(analysis)
        scores.add(maps, masks, names)
        shown += examples_of(data['inputs'], masks, maps, is_bgr, examples - len(shown))
    return shown


def main(argv: Sequence[str] | None = None) -> Report:
    args = parse_args(argv)
    check_args(args)
    points = read_points(args.points)
    scores = Scores(tuple(args.thresholds), args.rule, args.seed)
    cfg = read_config(args.config, args.cfg_options)
    items, follower = open_data(cfg, args)
    split_images(len(items), args.fixed_share, args.seed)
    model = load_model(cfg, args.checkpoint, args.device, args.allow_partial).model
    resolve_points(model, points)
    console = Console()
    found = batches(items, follower, args.batch_size, args.skip_empty, partial(collate, cfg))
    found = track(
        found, 'images', total=-(-len(items) // args.batch_size), console=console, transient=True
    )
    examples = score_all(model, found, points, scores, args.figure)
    report = summarize(scores, args.fixed_share, args.bootstrap, args.seed)
    weights = 'untrained weights' if args.checkpoint in UNTRAINED else Path(args.checkpoint).name
    title = f'{Path(args.config).stem}, {weights}'
    for heading, table in tables(report, title):
        console.print(f'\n{heading}\n{table.to_string()}', markup=False, soft_wrap=True)
    if report.empty:
        console.print(
            f'{len(report.empty)} image(s) left out: no token is '
            f'foreground by the rule "{args.rule}".'
        )
    folder = Path(args.out_dir or f'work_dirs/{Path(args.config).stem}/iou')
    about = dict(
        title=title, **{k: v for k, v in vars(args).items() if k not in ('cfg_options', 'out_dir')}
    )
    paths = write(report, folder, about)
    if examples:
        paths.append(folder / 'pseudo_masks.png')
        draw_examples(examples, report, args.rule, paths[-1], title)
    for path in paths:
        console.print(str(path), highlight=False, soft_wrap=True)
    return report


if __name__ == '__main__':
    run_tool(main)
