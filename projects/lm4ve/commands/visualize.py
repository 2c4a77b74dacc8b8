"""Draw activations and attention of a checkpoint, a sheet a sample and one page.

    lm4ve visualize CONFIG CHECKPOINT cat.jpg dog.png
    lm4ve visualize CONFIG CHECKPOINT photos/
    lm4ve visualize CONFIG CHECKPOINT --indices 0 1 2

INPUT are files of the config's task: images; videos or folders of frames; point
clouds and meshes; rooms (.npy, .ply); scenes (Argoverse 1's .csv, Argoverse 2's
.parquet). A folder stands for all such files in it, at any depth; damaged ones are
skipped and named. --indices are samples of its test set. docs/guides/activations.md describes
what is shown.
"""

import argparse
import shlex
import sys
from datetime import datetime
from pathlib import Path

from mmengine.config import Config
from PIL import Image

from lm4ve.analysis import loading
from lm4ve.analysis.drawing import Sheet, draw_batch
from lm4ve.analysis.loading import NamedSample
from lm4ve.analysis.pages import PageEntry, write_page
from lm4ve.analysis.points import parse_points, resolve_points
from lm4ve.analysis.sheets import animate
from lm4ve.commands.flags import parser_of
from lm4ve.errors import UserError, check
from lm4ve.runner.config import read_checked_config
from lm4ve.tasks import all_tasks
from lm4ve.tasks.base.tested import tested_evaluator

#: Heads with a panel of their own, unless all have one.
_HEADS = 3


def write_sheet(sheet: Sheet, folder: Path, note: str, fps: float) -> PageEntry:
    """Write a sample's sheet as PNG, and for a clip the sheets of all frames as MP4.

    Args:
        sheet (Sheet): The sample and its picture.
        folder (Path): Where to write.
        note (str): A line on the sheets of frames.
        fps (float): Frames of the MP4 in a second.
    """
    sample = sheet.sample
    path = folder / f'{sample.name}.png'
    Image.fromarray(sheet.image).save(path, optimize=True)
    if not sample.picture.is_clip:
        return PageEntry(sample, path)
    from lm4ve.tasks.video.datasets.video_files import write_video

    movie = path.with_suffix('.mp4')
    write_video(movie, animate(sample, note), max(round(fps), 1))
    return PageEntry(sample, path, movie)


def read_config(args: argparse.Namespace) -> tuple[argparse.Namespace, Config]:
    """Read the config that the flags name; return it after the flags.

    Reading it may register a task, which has flags of its own. So the command line is
    parsed after that.

    Args:
        args (argparse.Namespace): See :func:`lm4ve.commands.parse`.

    Raises:
        UserError: There are no inputs, or a flag has a value that it cannot have.
    """
    cfg = read_checked_config(args.config, args.cfg_options)
    args = parser_of('visualize').parse_args(args.words_to_parse)
    if not args.input and not args.indices:
        raise UserError(
            'There are no inputs. Give files, or --indices of the test set.'
        )
    check('--fps', args.fps, above=0)
    return args, cfg


def load_samples(cfg: Config, args: argparse.Namespace) -> list[NamedSample]:
    """Read the files and the samples of the test set that the flags name.

    Raises:
        UserError: One cannot be read, or there is no such sample.
    """
    options = {}
    for task in all_tasks():
        for name in task.input_options:
            options[name] = getattr(args, name)
    samples = loading.samples_of_files(cfg, args.input, **options)
    return [*samples, *loading.samples_by_index(cfg, args.indices)]


def run(args: argparse.Namespace) -> None:
    """Draw a sheet for each input, and write the page with all of them."""
    args, cfg = read_config(args)
    points = parse_points(args.points)
    samples = load_samples(cfg, args)
    model, classes = loading.load_model(
        cfg, args.checkpoint, args.device, args.allow_partial, args.strict_config
    )
    resolve_points(model, points)
    name = Path(args.config).stem
    checkpoint = args.checkpoint
    if checkpoint in loading.UNTRAINED:
        checkpoint = 'untrained (seed 0)'
    folder = Path('work_dirs', name, 'activations')
    if args.out_dir:
        folder = Path(args.out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    heads = None if args.all_heads else _HEADS
    note = f'{name}, {checkpoint}'
    entries = []
    for sample in samples:
        batch = loading.collate(cfg, [sample.data])
        (sheet,) = draw_batch(
            model,
            batch,
            [sample.name],
            note,
            points,
            args.measures,
            attention=not args.no_attention,
            heads=heads,
            evaluator=tested_evaluator(cfg),
            classes=classes,
            files=[sample.path],
        )
        entry = write_sheet(sheet, folder, note, args.fps)
        entries.append(entry)
        print(entry.sheet)
    words = sys.argv[1:]
    facts = dict(
        config=args.config,
        checkpoint=checkpoint,
        command=f'lm4ve visualize {shlex.join(str(word) for word in words)}',
        date=datetime.now().astimezone().strftime('%Y-%m-%d %H:%M %Z'),
    )
    page = folder / 'index.html'
    write_page(page, f'Activations of {name}', facts, entries)
    print(page)
