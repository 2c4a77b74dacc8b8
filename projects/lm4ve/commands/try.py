"""Does a language model's block help your encoder on your data, and is it the language?

    lm4ve try timm/vit_small_patch14_dinov2 photos/ --block package:all-MiniLM-L6-v2
    lm4ve try package:efficientnet-lite0 photos.csv --block /models/llama-7b --layers 15
    lm4ve try package:efficientnet-lite0 photos --block /models/gemma-4-31b --layers 24-29

DATA is a folder with a folder of pictures for each class, a CSV file, or a config.
Started again, also with other layers or more seeds, it uses what was trained before.
See docs/guides/try.md.
"""

import argparse
import os
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from mmengine.logging import MMLogger

from lm4ve.blocks import LLMBlock
from lm4ve.commands.engine import build_pool, run_only, say_after_stop
from lm4ve.errors import UserError, check
from lm4ve.files import require_writable, sole_use, write_text
from lm4ve.runner.cores import count_cores
from lm4ve.runner.devices import find_device
from lm4ve.study.compare import RULE
from lm4ve.study.earlier import write_plan
from lm4ve.study.heads.candidates import words_of_layers
from lm4ve.study.heads.contents import report_of
from lm4ve.study.heads.heard_warnings import hear_warnings
from lm4ve.study.heads.precision import DTYPES, choose_dtype
from lm4ve.study.heads.profiling import TokenShape
from lm4ve.study.heads.settings import StudySettings
from lm4ve.study.heads.stored import (
    StoredStudy,
    question_of,
    read_study,
    with_earlier,
    write_study,
)
from lm4ve.study.heads.study import Study, blocks_of, profile_heads
from lm4ve.study.heads.training import RECIPE
from lm4ve.study.pictures.data import ProbeData, read_data, write_left_out
from lm4ve.study.pool import Pool
from lm4ve.study.report import claim_folder, write_report
from lm4ve.study.store import Store
from lm4ve.study.tokens.encoders import load_encoder
from lm4ve.study.tokens.features import FeatureExtraction

#: Below the folder of tokens, that of the jobs' results.
JOBS = 'jobs'
#: Below the folder of the report: the files that are not used.
LEFT_OUT = 'left_out.csv'


def check_flags(args: argparse.Namespace) -> None:
    """Refuse values of flags that no study can have.

    Raises:
        UserError: It names the flag.
    """
    if args.rates:
        check('the number of --rates', len(set(args.rates)), least=3)
    check('--margin', args.margin, above=0)
    for rate in args.rates:
        check('--rates', rate, above=0)
    _check_variants(args.variants, has_formal=bool(args.formal))


def _check_variants(variants: Sequence[str], has_formal: bool) -> None:
    """Refuse variants that compare nothing, or leave out what another flag names.

    Raises:
        UserError: It names the flag.
    """
    others = {*variants} - {'frozen'}
    if not has_formal:
        others.discard('formal')
    elif 'formal' not in others:
        raise UserError(
            "--formal names a block, but --variants leaves 'formal' out. Fix: add it, or "
            'leave --formal out.'
        )
    if 'frozen' not in variants or not others:
        raise UserError(
            "--variants needs 'frozen', and one to compare it with ('formal' only with "
            '--formal).'
        )


def settings_of(args: argparse.Namespace) -> StudySettings:
    """Return the settings of a study by its flags, with defaults for those not given.

    Raises:
        UserError: Two folders of --formal have one name.
    """
    return StudySettings(
        block=args.block,
        layers=args.layers,
        kept_heads=args.heads,
        formal=_read_named(args.formal, '--formal'),
        dtype=args.dtype,
        families=args.variants,
        shots=args.shots,
        seeds=args.seeds,
        steps=args.steps,
        rates=list(dict.fromkeys(args.rates)),
        margin=args.margin,
    )


def _read_named(words: Sequence[str], flag: str) -> dict[str, str]:
    """Parse ``[NAME=]CHECKPOINT`` words to name -> checkpoint.

    Without a NAME, the last part of the folder or hub id is taken. A NAME has no slash,
    so that a folder may be called 'lr=0.1/model'.

    Args:
        words (Sequence[str]): The words after the flag.
        flag (str): The flag, for the error.

    Raises:
        UserError: Two have one name.
    """
    named: dict[str, str] = {}
    for word in words:
        name, separator, checkpoint = word.partition('=')
        if not separator or not name or '/' in name:
            name = os.path.basename(os.path.abspath(word.rpartition(':')[2]))
            checkpoint = word
        if name in named:
            raise UserError(
                f"{flag}: '{named[name]}' and '{checkpoint}' are both called '{name}'. "
                'Fix: NAME=CHECKPOINT gives one of them another name.'
            )
        named[name] = checkpoint
    return named


def _default_workers(gpus: str) -> int:
    """Return a process a GPU that is named, else one for the GPU, else one a core.

    Args:
        gpus (str): The flag ``--gpus``.
    """
    if gpus:
        return len(gpus.split(','))
    if find_device(None).type != 'cpu':
        return 1
    return count_cores()


def run(args: argparse.Namespace) -> None:
    """Compute features once, run the study on them, and write its report."""
    check_flags(args)
    if args.only:
        run_only(args, list(args.cache.glob(f'*/{JOBS}')))
        return
    settings = settings_of(args)
    if args.workers is None:
        args.workers = _default_workers(args.gpus)
    logger = MMLogger.get_instance('lm4ve-try', log_level='WARNING')
    out = args.work_dir
    if out is None:
        out = Path('work_dirs/try', default_name(args))
    if args.report_only:
        report(out)
        return
    say_after_stop(args.cache)
    # Before anything is computed: nobody waits ten minutes for a report that cannot be
    # written.
    require_writable(args.cache, '--cache')
    require_writable(out, '--work-dir')
    with sole_use(out / '.lock'), hear_warnings(logger) as warnings:
        claim_folder(out, identity_of(args))
        require_blocks(settings)
        encoder = load_encoder(args.encoder, args.encoder_checkpoint, args.size)
        data = read_data(
            args.data, seed=args.seed, limit=args.limit, group_by=args.group_by
        )
        write_left_out(data, out / LEFT_OUT)
        extraction = FeatureExtraction(encoder, data, args.cache, args.tokens)
        store = Store(extraction.folder / JOBS)
        with store.lock('--cache'):
            pool = build_pool(store, args, ['lm4ve.study.heads.training'])
            run_study(extraction, settings, pool, out, warnings)


def require_blocks(settings: StudySettings) -> None:
    """Build each block of a study once, so that a wrong one is named at once.

    Raises:
        UserError: A language model, or one of its layers or heads, does not exist.
    """
    # Any type serves here.
    with_dtype = replace(settings, dtype=DTYPES[0])
    for head in blocks_of(with_dtype):
        is_wanted = head.family in settings.families
        if is_wanted and head.family in ('frozen', 'formal'):
            LLMBlock(**head.block)


def identity_of(args: argparse.Namespace) -> dict[str, str]:
    """Return what decides which study a report is of: flag -> what the user named."""
    identity = dict(encoder=args.encoder, data=args.data, block=args.block)
    if args.encoder_checkpoint is not None:
        identity['encoder checkpoint'] = str(args.encoder_checkpoint)
    if args.size is not None:
        identity['size'] = str(args.size)
    if args.limit is not None:
        identity['limit'] = str(args.limit)
    if args.seed:
        identity['seed'] = str(args.seed)
    if args.group_by is not None:
        identity['groups'] = args.group_by
    if args.formal:
        identity['formal'] = ' '.join(args.formal)
    return identity


def default_name(args: argparse.Namespace) -> str:
    """Return the name of the folder of a report, by what is compared."""
    parts = [args.encoder, args.data, args.block]
    if args.encoder_checkpoint is not None:
        parts += ['checkpoint', Path(args.encoder_checkpoint).stem]
    if args.size is not None:
        parts += ['size', str(args.size)]
    if args.limit is not None:
        parts += ['limit', str(args.limit)]
    if args.seed:
        parts += ['seed', str(args.seed)]
    if args.group_by is not None:
        parts += ['by', args.group_by]
    if args.formal:
        parts += ['formal', *args.formal]
    if args.layers != (-1,):
        parts += ['layers', words_of_layers(args.layers)]
    if args.shots:
        parts += ['shots', str(args.shots)]
    if args.heads:
        parts.append('heads')
        parts += [str(head) for head in args.heads]
    name = re.sub(r'[^\w.-]+', '-', '-'.join(parts))
    return name.strip('-')


def require_shots(shots: int, data: ProbeData) -> None:
    """Refuse more shots than the smallest class has pictures to train on.

    Raises:
        UserError: It names the class.
    """
    labels = data.labels[data.splits['train']]
    counts = np.bincount(labels, minlength=len(data.classes))
    smallest = int(counts.argmin())
    check(
        f"--shots ('{data.classes[smallest]}' has {counts[smallest]} pictures to train on)",
        shots,
        most=int(counts[smallest]),
    )


def run_study(
    extraction: FeatureExtraction,
    settings: StudySettings,
    pool: Pool,
    out: Path,
    warnings: Sequence[str],
) -> None:
    """Compute features, train, and write the report into a folder.

    Args:
        extraction (FeatureExtraction): Runs the encoder.
        settings (StudySettings): What the user asks for.
        pool (Pool): Trains.
        out (Path): The folder.
        warnings (Sequence[str]): What is warned of; it grows until the report.
    """
    require_shots(settings.shots, extraction.data)
    dtype = choose_dtype(settings.dtype, extraction.folder)
    settings = replace(settings, dtype=dtype)
    features = extraction.extract()
    # Damage that only the encoder's reading finds is left out by now.
    left_out = features.data.left_out
    data = replace(extraction.data, splits=features.data.splits, left_out=left_out)
    if left_out != extraction.data.left_out:
        write_left_out(data, out / LEFT_OUT)
    require_shots(settings.shots, data)
    _, tokens, channels = features.shape
    shape = TokenShape(
        tokens=tokens,
        channels=channels,
        has_class_token=extraction.encoder.has_class_token,
        classes=len(data.classes),
    )
    heads = profile_heads(settings, shape)
    study = Study(features, settings, heads, pool)
    numbers = _describe(study)
    rule = f'{RULE}\n\nHere: {numbers}'
    write_text(f'{rule}\n', out / 'rule.txt')
    write_plan(
        out,
        question_of(settings),
        study.planned(),
        settings.seeds,
        settings.margin,
        [asdict(head) for head in heads.values()],
    )
    print(f'Verdicts by the rule in {out / "rule.txt"}, fixed now: {numbers}\n')
    results = study.train()
    command = shlex.join(['lm4ve', 'try', *sys.argv[1:]])
    found = StoredStudy(
        features, settings, heads, results, rule, command, list(warnings)
    )
    write_study(with_earlier(found, out), data, out)
    report(out)


def report(out: Path) -> None:
    """Write the report of the study in a folder, from its files alone.

    Raises:
        UserError: There is no study.
    """
    study, data = read_study(out)
    write_report(report_of(study, data), out)


def _describe(study: Study) -> str:
    """Return the numbers of a study that its verdicts depend on, as text."""
    data = study.features.data
    settings = study.settings
    return (
        f'{settings.steps} steps, {settings.seeds} seeds, margin '
        f'{settings.margin:g}, {len(data.splits["test"]):,} test pictures of '
        f'{len(data.classes)} classes, products in {settings.dtype}, recipe '
        f'{RECIPE}.'
    )
