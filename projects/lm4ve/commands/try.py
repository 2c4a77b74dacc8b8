"""Does a language model's block help your encoder on your data, and is it the language?

    lm4ve try timm/vit_small_patch14_dinov2 photos/ --block package:all-MiniLM-L6-v2
    lm4ve try package:efficientnet-lite0 photos.csv --block /models/llama-7b --layers 0 15 31
    lm4ve try package:efficientnet-lite0 photos --block /models/gemma-4-31b --layers 24-29 26

DATA is a folder with a folder of pictures for each class, a CSV file, or a config.
Started again, also with other layers or more seeds, it uses what was trained before.
See docs/guides/try.md.
"""

import argparse
import inspect
import re
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mmengine.logging import MessageHub, MMLogger

from lm4ve.commands.flags import parser_of
from lm4ve.errors import UserError, check
from lm4ve.files import require_writable, sole_use
from lm4ve.probing.candidates import words_of_layers
from lm4ve.probing.data import read_data
from lm4ve.probing.encoders import load_encoder
from lm4ve.probing.features import Features, extract_features
from lm4ve.probing.plan import StudySettings
from lm4ve.probing.report import claim_folder, write_report
from lm4ve.probing.results import DEVICE
from lm4ve.probing.study import Study
from lm4ve.probing.verdict import decide
from lm4ve.probing.workers import start_workers
from lm4ve.runner.cores import count_cores


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line, and refuse values that no study can have.

    Raises:
        UserError: It names the flag.
    """
    args = parser_of('try').parse_args(argv)
    if args.rates:
        check('the number of --rates', len(set(args.rates)), least=3)
    for name, least in (('seeds', 2), ('steps', 10), ('workers', 0)):
        value = getattr(args, name)
        # A zero is allowed: no seeds or steps are the default, no workers this process.
        if value:
            check(f'--{name}', value, least=least)
    check('--margin', args.margin, above=0)
    check('--minutes', args.minutes, above=0)
    for rate in args.rates:
        check('--rates', rate, above=0)
    if 'frozen' not in args.variants or len(set(args.variants)) < 2:
        raise UserError("--variants needs 'frozen', and one to compare it with.")
    return args


def settings_of(args: argparse.Namespace) -> StudySettings:
    """Return the settings of a study by its flags, with defaults for those not given.

    Raises:
        UserError: Two folders of --formal have one name.
    """
    workers = args.workers
    if workers is None:
        workers = 1 if DEVICE == 'cuda' else count_cores()
    return StudySettings(
        block=args.block,
        layers=args.layers,
        heads=args.heads,
        formal=_read_formal(args.formal),
        dtype=args.dtype,
        families=args.variants,
        seeds=args.seeds or None,
        steps=args.steps or None,
        minutes=args.minutes,
        rates=args.rates,
        margin=args.margin,
        workers=workers,
        resume=args.resume,
    )


def _read_formal(words: Sequence[str]) -> dict[str, str]:
    """Parse the words of --formal, ``[NAME=]FOLDER``, to name -> folder.

    Without a NAME, the folder's own is taken.

    Raises:
        UserError: Two folders have one name.
    """
    folders = {}
    for word in words:
        name, separator, folder = word.partition('=')
        if not separator:
            name = Path(word).name
            folder = word
        folders[name] = folder
    check('the number of names in --formal', len(folders), least=len(words))
    return folders


def main(argv: Sequence[str] | None = None) -> None:
    """Compute features once, run the study on them, and write its report."""
    started = time.monotonic()
    args = parse_args(argv)
    settings = settings_of(args)
    MMLogger.get_instance('lm4ve-try', log_level='WARNING')
    out = args.work_dir
    if out is None:
        out = Path('work_dirs/try', default_name(args))
    # Before anything is computed: nobody waits ten minutes for a report that cannot be
    # written.
    require_writable(args.cache, '--cache')
    require_writable(out, '--work-dir')
    with sole_use(out / '.lock'):
        claim_folder(out, dict(encoder=args.encoder, data=args.data, block=args.block))
        encoder = load_encoder(args.encoder, args.encoder_checkpoint, args.size)
        data = read_data(args.data, limit=args.limit)
        # A stopped command prints this path as what it saved.
        MessageHub.get_instance('lm4ve-try').update_info('last_ckpt', str(args.cache))
        features = extract_features(encoder, data, args.cache, args.views, args.tokens)
        with sole_use(features.folder / 'study.lock'):
            run_study(features, settings, started, out)


def default_name(args: argparse.Namespace) -> str:
    """Return the name of the folder of a report, by what is compared."""
    parts = [args.encoder, args.data, args.block]
    if args.layers != [(-1,)]:
        parts.append('layers')
        parts += [words_of_layers(layers) for layers in args.layers]
    if args.heads:
        parts.append('heads')
        parts += [str(head) for head in args.heads]
    name = re.sub(r'[^\w.-]+', '-', '-'.join(parts))
    return name.strip('-')


def run_study(
    features: Features, settings: StudySettings, started: float, out: Path
) -> None:
    """Run a study and write its report into a folder.

    Args:
        features (Features): The tokens.
        settings (StudySettings): What the user asks for.
        started (float): ``time.monotonic()`` when the minutes began.
        out (Path): The folder.
    """
    with start_workers(features, settings.workers) as run:
        study = Study.prepare(features, settings, run, started)
        rule = f'{inspect.getdoc(decide)}\n\nHere: {_describe(study)}'
        print(f'{rule}\n')
        results = study.train()
    command = shlex.join(['lm4ve', 'try', *sys.argv[1:]])
    write_report(study, results, out, rule, command)


def _describe(study: Study) -> str:
    """Return the numbers of a study that its verdicts depend on, as text."""
    data = study.features.data
    others = len(study.heads) - len(study.blocks)
    return (
        f'{study.plan.steps} steps, {study.plan.seeds} seeds, margin '
        f'{study.settings.margin:g}, {len(data.splits["test"]):,} test pictures of '
        f'{len(data.classes)} classes, {len(study.blocks) * others} comparison(s).'
    )


if __name__ == '__main__':
    from lm4ve.runner.command_line import run_tool

    run_tool(main)
