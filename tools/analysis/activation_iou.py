"""How well activations and attention cover the foreground: pseudo-mask IoU.

    python tools/analysis/activation_iou.py CONFIG CHECKPOINT
    python tools/analysis/activation_iou.py CONFIG CHECKPOINT \\
        --data-root /path/to/ImageNetS50 --layout imagenet-s

Without --data-root the masks are those of the config's own data set (textured
digits). Prints tables; writes iou.json, iou.csv, iou.png (IoU over the threshold) and
pseudo_masks.png. docs/guides/pseudo_mask_iou.md describes the measurement.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from iou.drawing import Example, draw_examples, plot_thresholds
from iou.mask_datasets import Items, batches, folder, imagenet_s, samples
from iou.pseudo_masks import RULES, THRESHOLDS, Scores, maps_of
from iou.report import Report, make_report, save_report, tables
from mmengine.dataset import Compose
from mmengine.registry import DATASETS
from tqdm import tqdm

from lm4ve.analysis.capture import analyse
from lm4ve.analysis.loading import UNTRAINED, collate, load_model
from lm4ve.analysis.points import parse_points
from lm4ve.draw.pictures import pixels_of
from lm4ve.errors import UserError, check
from lm4ve.runner.command_line import build_parser, read_config, run_tool
from lm4ve.runner.flags import INSPECT
from lm4ve.tasks.base.tested import tested_loader


def open_data(cfg, args: argparse.Namespace) -> tuple[Items, Sequence]:
    """Return the images with masks, and the transforms of the test pipeline."""
    dataset = tested_loader(cfg).dataset
    if args.layout is None:
        if args.split is not None:
            dataset.split = args.split
        built = DATASETS.build(dataset)
        return samples(built), built.pipeline.transforms
    pipeline = Compose(dataset.pipeline).transforms
    if args.layout == 'folder':
        return folder(args.data_root, args.ignored), pipeline
    return imagenet_s(args.data_root, args.split or 'validation'), pipeline


def score_all(model, found, args: argparse.Namespace) -> tuple[Scores, list[Example]]:
    """Score every batch; return the first images to show."""
    scores, shown = Scores(args.thresholds, args.rule, args.seed), []
    for names, data, masks in found:
        analysis = analyse(model, data, parse_points(args.points))
        size = tuple(analysis.inputs.shape[-2:])
        if {m.shape for m in masks} != {size}:
            raise UserError(
                f"The model's preprocessor pads images to {size}, which moves their masks. Use "
                '--batch-size 1 or a test pipeline that ends in one size.'
            )
        maps = maps_of(analysis)
        scores.add(maps, masks, names)
        if len(shown) < args.figure:
            pixels = pixels_of(analysis.inputs, model.data_preprocessor)
            for i, (image, mask) in enumerate(zip(pixels, masks, strict=True)):
                own = [replace(m, values=m.values[i : i + 1]) for m in maps]
                shown.append(Example(image, mask, own))
    return scores, shown[: args.figure]


def main(argv: Sequence[str] | None = None) -> Report:
    add = (parser := build_parser(__doc__, INSPECT)).add_argument
    add(
        '--data-root', help="folder of images and masks; default: the config's data set"
    )
    add(
        '--layout',
        choices=['folder', 'imagenet-s'],
        help='images/NAME.jpg, masks/NAME.png',
    )
    add(
        '--split',
        help="of the data set; default: as configured, ImageNet-S's validation",
    )
    add(
        '--ignored',
        type=int,
        help='with --layout folder: gray level or index not to count',
    )
    add('--thresholds', nargs='+', type=float, default=list(THRESHOLDS))
    add(
        '--rule',
        choices=RULES,
        default='majority',
        help='half of a token is foreground, or any',
    )
    add(
        '--fixed-share',
        type=float,
        default=0.2,
        help='share of images to fix thresholds on',
    )
    add('--skip-empty', action='store_true', help='pass over images without foreground')
    add('--bootstrap', type=int, default=2000, help='resamples')
    add(
        '--seed',
        type=int,
        default=0,
        help='of the split, the bootstrap and shuffled maps',
    )
    add('--batch-size', type=int, default=32)
    add('--figure', type=int, default=6, help='images shown with pseudo-masks; 0: none')
    args = parser.parse_args(argv)
    if (args.data_root is None) != (args.layout is None):
        raise UserError('--data-root and --layout go together.')
    for threshold in args.thresholds:
        check('--thresholds', threshold, least=0, most=0.999999)
    cfg = read_config(args.config, args.cfg_options)
    items, pipeline = open_data(cfg, args)
    model, _ = load_model(
        cfg, args.checkpoint, args.device, args.allow_partial, args.strict_config
    )
    found = batches(
        items, pipeline, args.batch_size, args.skip_empty, partial(collate, cfg)
    )
    found = tqdm(found, 'batches', -(-len(items) // args.batch_size), disable=None)
    scores, examples = score_all(model, found, args)
    report = make_report(scores, args.fixed_share, args.bootstrap, args.seed)
    weights = (
        'untrained weights'
        if args.checkpoint in UNTRAINED
        else Path(args.checkpoint).name
    )
    title = f'{Path(args.config).stem}, {weights}'
    for heading, table in tables(report, title):
        print(f'\n{heading}\n{table.to_string()}')
    print(
        f'{len(report.empty)} image(s) without a foreground token ({args.rule}) left out'
    )
    path = Path(args.out_dir or f'work_dirs/{Path(args.config).stem}/iou') / 'iou.json'
    about = {k: v for k, v in vars(args).items() if k not in ('cfg_options', 'out_dir')}
    save_report(report, path, dict(title=title, **about))
    plot_thresholds(report, path.with_suffix('.png'), title)
    if examples:
        draw_examples(
            examples, report, args.rule, path.with_name('pseudo_masks.png'), title
        )
    print(f'Results: {path.parent}')
    return report


if __name__ == '__main__':
    run_tool(main)
