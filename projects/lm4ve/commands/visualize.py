"""Draw activations and attention of a checkpoint, a sheet a sample and one page.

    lm4ve visualize CONFIG CHECKPOINT cat.jpg dog.png
    lm4ve visualize CONFIG CHECKPOINT --indices 0 1 2

INPUT are files of the config's task: images; videos or folders of frames; point
clouds and meshes; rooms (.npy, .ply); scenes (Argoverse 1's .csv, Argoverse 2's
.parquet). --indices are samples of its test set. docs/guides/activations.md describes
what is shown.
"""

import shlex
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from PIL import Image

from lm4ve.analysis import loading
from lm4ve.analysis.capture import analyse, read_points, resolve_points
from lm4ve.analysis.samples import Sample, samples_of
from lm4ve.analysis.sheets import Entry, animate, draw_sheet, write_page
from lm4ve.commands.flags import parser_of
from lm4ve.draw.figures import to_image
from lm4ve.errors import UserError, check
from lm4ve.runner.config import read_checked_config
from lm4ve.tasks import all_tasks


def write_sample(sample: Sample, folder: Path, note: str, fps: float) -> Entry:
    """Write a sample's PNG, and of a clip an MP4."""
    sheet, movie = folder / f'{sample.name}.png', None
    Image.fromarray(to_image(draw_sheet(sample, note))).save(sheet, optimize=True)
    if sample.picture.is_clip:
        from lm4ve.tasks.video.datasets.video_files import write_video

        frames, movie = animate(sample, note), sheet.with_suffix('.mp4')
        write_video(movie, frames, max(round(fps), 1))
    return Entry(sample, sheet, movie)


def main(argv: Sequence[str] | None = None) -> None:
    args, unknown = parser_of('visualize').parse_known_args(argv)
    cfg = read_checked_config(args.config, args.cfg_options)
    if unknown:  # perhaps a flag of the task that reading the config has registered
        args = parser_of('visualize').parse_args(argv)
    points = read_points(args.points)
    if not (args.input or args.indices):
        raise UserError(
            'There are no inputs. Give files, or --indices of the test set.'
        )
    check('--fps', args.fps, above=0)
    options = {
        name: getattr(args, name) for t in all_tasks() for name in t.input_options
    }
    given = [
        *loading.samples_of_files(cfg, args.input, **options),
        *loading.samples_by_index(cfg, args.indices),
    ]
    model, classes = loading.load_model(
        cfg, args.checkpoint, args.device, args.allow_partial
    )
    resolve_points(model, points)
    name = Path(args.config).stem
    untrained = args.checkpoint in loading.UNTRAINED
    checkpoint = 'untrained (seed 0)' if untrained else args.checkpoint
    folder = Path(args.out_dir or f'work_dirs/{name}/activations')
    folder.mkdir(parents=True, exist_ok=True)
    heads, entries = None if args.all_heads else 3, []
    for sample in given:
        batch = loading.collate(cfg, [sample.data])
        analysis = analyse(model, batch, points, not args.no_attention)
        (drawn,) = samples_of(
            analysis, model, [sample.name], args.measures, classes, heads
        )
        entries.append(write_sample(drawn, folder, f'{name}, {checkpoint}', args.fps))
        print(entries[-1].sheet)
    facts = dict(
        config=args.config,
        checkpoint=checkpoint,
        command=f'lm4ve visualize {shlex.join(map(str, argv or sys.argv[1:]))}',
        date=datetime.now().astimezone().strftime('%Y-%m-%d %H:%M %Z'),
    )
    write_page(folder / 'index.html', f'Activations of {name}', facts, entries)
    print(folder / 'index.html')
