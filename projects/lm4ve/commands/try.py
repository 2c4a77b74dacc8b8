"""Does a language model's block help your encoder on your data, and is it the language?

    lm4ve try timm/vit_small_patch14_dinov2 photos/ --block package:all-MiniLM-L6-v2
    lm4ve try package:efficientnet-lite0 photos.csv --block /models/llama-7b --layers 0 15 31

DATA is a folder with a folder of pictures for each class, a CSV file, or a config. Started
again, also with other layers or more seeds, it uses what was trained before. See
docs/guides/try.md.
"""

import argparse
import re
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout
from mmengine.logging import MMLogger
from rich.console import Console

from lm4ve.errors import UserError, check
from lm4ve.probing.data import read_data
from lm4ve.probing.encoders import load_encoder
from lm4ve.probing.features import Features, extract_features
from lm4ve.probing.report import write_report
from lm4ve.probing.study import Settings, Study
from lm4ve.probing.training import Pool, default_workers
from lm4ve.probing.variants import FAMILIES
from lm4ve.probing.verdict import compare, describe_rule


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('encoder', help='timm/NAME, a folder, a hub id, package:NAME or a config')
    add('data', help='a folder of class folders, a CSV file or a config')
    add('--block', required=True, metavar='CHECKPOINT', help='package:NAME, a folder, a hub id')
    add('--layers', type=int, nargs='+', default=[-1], help='a frozen variant each; default: last')
    add('--formal', nargs='+', default=[], metavar='[NAME=]FOLDER',
        help='weights of tools/pretrain_block.py, pre-trained on a formal language')  # fmt: skip
    add('--variants', nargs='+', default=FAMILIES, choices=FAMILIES, help='default: all')
    add('--seeds', type=int, help='default: 8, or 5 or 6 where 8 do not fit the minutes')
    add('--minutes', type=float, default=10.0, help='what all may take; the steps follow')
    add('--steps', type=int, help='of each training, whatever that takes')
    add('--rates', type=float, nargs='+', default=[], help='learning rates; default: a ladder')
    add('--margin', type=float, default=1.0, help='points that matter to you')
    add('--tokens', type=int, default=16, help='average-pool to so many tokens; 0 keeps all')
    add('--views', type=int, default=1, help='of each picture to train: itself, augmented ones')
    add('--dtype', choices=['float32', 'bfloat16'], default='float32', help="the block's")
    add('--encoder-checkpoint', help='weights of an encoder that is named by a config')
    add('--size', type=int, help="side of the pictures; default: the encoder's")
    add('--limit', type=int, help='take so many pictures at most')
    add('--cache', type=Path, default=Path('work_dirs/try/features'), help='of tokens, trainings')
    add('--work-dir', type=Path, help='of the report; default: work_dirs/try/ENCODER-DATA')
    add('--workers', type=int, help='processes; default: one for each core, or one on a GPU')
    text = 'use what was trained before (the default)'
    add('--resume', action=argparse.BooleanOptionalAction, default=True, help=text)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    started, args = time.monotonic(), parse_args(argv)
    formal = dict(_named(word) for word in args.formal)
    fields = 'block', 'layers', 'seeds', 'minutes', 'rates', 'steps', 'dtype', 'resume'
    picked = {name: getattr(args, name) for name in fields}
    families = [f for f in args.variants if f != 'formal' or formal]
    settings = Settings(**picked, formal=formal, families=families)
    check('--margin', args.margin, above=0)
    check('--workers', args.workers or 1, least=1)
    MMLogger.get_instance('lm4ve-try', log_level='WARNING')
    encoder = load_encoder(args.encoder, args.encoder_checkpoint, args.size)
    data = read_data(args.data, limit=args.limit)
    sizes = dict(views=args.views, tokens=args.tokens)
    features = extract_features(encoder, data, args.cache, **sizes)
    try:
        with FileLock(features.folder / 'study.lock', timeout=0):
            run(features, settings, args, started)
    except Timeout as e:
        raise UserError(f"Another run is training on these features: '{e.lock_file}'.") from e


def run(features: Features, settings: Settings, args: argparse.Namespace, started: float) -> str:
    """Run a study and write its report; return the sentence."""
    console = Console()

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    with Pool(features, args.workers or default_workers()) as pool:
        study = Study(features, settings, pool, console, started)
        study.prepare()
        steps, seeds = study.plan['steps'], study.plan['seeds']
        blocks = [v.name for v in study.variants if v.family == 'frozen']
        count = len(blocks) * (len(study.variants) - len(blocks))
        rule = describe_rule(args.margin, seeds, len(features.splits['test']), count)
        say(rule)
        minutes = study.estimate(study.plan) / 60
        say(
            f'Plan: {seeds} seeds of {steps} steps; all trainings take about {minutes:.1f} minutes.'
        )
        outcome = study.run()
    comparisons = compare(outcome.correct, blocks, args.margin)
    name = re.sub(r'[^\w.-]+', '-', f'{features.encoder}-{features.data}').strip('-')
    out = args.work_dir or Path('work_dirs/try') / name
    facts = dict(rule=rule, command=shlex.join(['lm4ve', 'try', *sys.argv[1:]]))
    return write_report(features, outcome, comparisons, out, console, facts)


def _named(word: str) -> tuple[str, str]:
    name, found, folder = word.partition('=')
    return (name, folder) if found else (Path(word).name, word)


if __name__ == '__main__':
    from lm4ve.runner.command_line import run_tool

    run_tool(main)
