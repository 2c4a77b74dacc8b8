"""Does a language model's block help your encoder on your data, and is it the language?

    lm4ve try timm/vit_small_patch14_dinov2 photos/ --block package:all-MiniLM-L6-v2
    lm4ve try package:efficientnet-lite0 photos.csv --block /models/llama-7b --layers 0
    15 31

DATA is a folder with a folder of pictures for each class, a CSV file, or a config.
Started again, also with other layers or more seeds, it uses what was trained before.
See docs/guides/try.md.
"""

import argparse
import inspect
import os
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
from lm4ve.probing.data import read_data
from lm4ve.probing.encoders import load_encoder
from lm4ve.probing.features import Features, extract_features
from lm4ve.probing.report import claim_folder, write_report
from lm4ve.probing.study import Study
from lm4ve.probing.training import DEVICE, start_workers
from lm4ve.probing.verdict import decide


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    args = parser_of('try').parse_args(argv)
    check('the number of --rates', len({*args.rates}) or 3, least=3)
    for name, least in (('seeds', 2), ('steps', 10), ('workers', 0)):
        check(f'--{name}', getattr(args, name) or least, least=least)
    positive = dict(margin=[args.margin], minutes=[args.minutes], rates=args.rates)
    for name, values in positive.items():
        for value in values:
            check(f'--{name}', value, above=0)
    if 'frozen' not in args.variants or len({*args.variants}) < 2:
        raise UserError("--variants needs 'frozen', and one to compare it with.")
    named = [w.split('=', 1) if '=' in w else (Path(w).name, w) for w in args.formal]
    args.formal = dict(named)
    check('the number of names in --formal', len(args.formal), least=len(named))
    if args.workers is None:
        args.workers = 1 if DEVICE == 'cuda' else len(os.sched_getaffinity(0))
    return args


def main(argv: Sequence[str] | None = None) -> None:
    started, args = time.monotonic(), parse_args(argv)
    MMLogger.get_instance('lm4ve-try', log_level='WARNING')
    out = args.work_dir or Path('work_dirs/try', default_name(args))
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
            run(features, args, started, out)


def default_name(args: argparse.Namespace) -> str:
    """Return the name of the folder of a report, by what is compared."""
    parts = [args.encoder, args.data, args.block]
    if args.layers != [-1]:
        parts += ['layers', *map(str, args.layers)]
    return re.sub(r'[^\w.-]+', '-', '-'.join(parts)).strip('-')


def run(
    features: Features, args: argparse.Namespace, started: float, out: Path
) -> None:
    """Run a study and write its report into a folder."""
    with start_workers(features, args.workers) as call:
        study = Study(features, args, call, started)
        count = len(study.blocks) * (len(study.variants) - len(study.blocks))
        about = (
            f'{study.plan["steps"]} steps, {study.plan["seeds"]} seeds, margin {args.margin:g}, '
            f'{len(features.data.splits["test"]):,} test pictures of {len(features.data.classes)} '
            f'classes, {count} comparison(s).'
        )
        rule = f'{inspect.getdoc(decide)}\n\nHere: {about}'
        print(f'{rule}\n')
        study.train()
    write_report(study, out, rule, shlex.join(['lm4ve', 'try', *sys.argv[1:]]))


if __name__ == '__main__':
    from lm4ve.runner.command_line import run_tool

    run_tool(main)
