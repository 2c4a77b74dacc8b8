"""Run the studies of docs/results/protocol.md in its order, and keep what their tables follow from.

    python tools/analysis/evidence.py --list
    python tools/analysis/evidence.py --sets data --dinov2 dinov2-small \\
        --vit vit_glyphs.pth --dyck work_dirs/blocks/dyck --commit

Started again it goes on where it was: a study whose folder is below docs/results/evidence
is done, and finished trainings of one that was stopped are not repeated. The order is the
protocol's. A study that fails is named at the end, with exit code 1, and those behind it
run. Fashion comes last, when all that precedes it is stored; once it has begun, nothing
else runs.

Studies run in --work-dir, where links lead to the inputs, so that no stored file names a
folder of the machine.
"""

import argparse
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import evidence_page
from evidence_studies import (
    DIGESTS,
    EVIDENCE,
    FEW_SHOT_ROWS,
    LAST,
    OPTIONAL,
    ROOT,
    ROWS,
    STAGES,
    STUDIES,
    Study,
)

import lm4ve
from lm4ve.commands.engine import say_after_stop
from lm4ve.errors import StorageError, UserError, require
from lm4ve.files import read_json, write_json
from lm4ve.runner.command_line import build_parser, run_tool
from lm4ve.runner.flags import at_least

#: What all studies of heads share.
COMMON = '--seeds 8 --steps 120 --margin 1 --seed 0 --tokens 16 --dtype bfloat16'
BLOCK = 'package:all-MiniLM-L6-v2'
#: Where this clone has its package.
PACKAGE = ROOT / 'projects'
#: Where grids look for the block of dyck, from the current folder.
DYCK = 'work_dirs/blocks/dyck'
#: What stays of a report. All its other files follow from these, and comparisons and
#: sentence too: they are what the pages quote.
KEPT = (
    'study.json',
    'rule.txt',
    'results.csv',
    'tuning.csv',
    'pictures.csv',
    'timings.csv',
    'comparisons.csv',
    'sentence.txt',
)
#: Those without which a study is not stored.
_NEEDED = ('study.json', 'rule.txt', 'results.csv', 'comparisons.csv', 'sentence.txt')
#: Says that fashion has begun, and with which code.
BEGUN = 'fashion_begun.json'


# --------------------------------------------------------------------------- commands
def list_commands(study: Study, controls: bool = True) -> list[list[str]]:
    """Return the arguments of ``lm4ve`` for a study, without those about this machine.

    A grid trains the two variants of its primary comparison first. The others follow in
    a command of their own, which takes the results of the first.

    Args:
        study (Study): The study.
        controls (bool): Whether a grid trains the others.
    """
    if not study.is_grid:
        return [_heads_words(study)]
    grid = ['ablate', f'configs/ablations/{study.name}.py']
    primary = [*grid, '--variants', study.baseline, study.block]
    return [primary, grid] if controls else [primary]


def _heads_words(study: Study) -> list[str]:
    """Return the arguments of ``lm4ve try`` for a study of heads."""
    rows = FEW_SHOT_ROWS if study.shots else ROWS
    words = ['try', *_encoder_words(study), '--block', BLOCK, '--variants', *rows]
    if 'formal' in rows:
        words += ['--formal', f'dyck={DYCK}']
    if study.shots:
        words += ['--shots', str(study.shots)]
    if study.has_pictures:
        words += ['--group-by', 'group']
    return [*words, *COMMON.split()]


def _encoder_words(study: Study) -> list[str]:
    """Return the arguments that name the encoder and the data."""
    pictures = f'sets/{study.data}/pictures.csv'
    if study.encoder == 'lite0':
        return ['package:efficientnet-lite0', pictures, '--size', '96']
    if study.encoder == 'dinov2':
        return ['dinov2-small', pictures]
    if study.encoder == 'vit':
        config = 'configs/ablations/_base_/vit_glyphs.py'
        return [config, pictures, '--encoder-checkpoint', 'vit_glyphs.pth']
    config = f'configs/{study.encoder}.py'
    weights = f'weights/{study.name}.safetensors'
    return [config, f'config:{config}', '--encoder-checkpoint', weights]


# ------------------------------------------------------------------------------ order
def choose(stage: int | None, leave_out: int, out: Path) -> list[Study]:
    """Return the studies that are to run, in their order.

    Args:
        stage (int, optional): The only one that is to run.
        leave_out (int): So many studies of stages 4 and 5 are left out, the last ones.
        out (Path): The folder of stored studies.

    Raises:
        UserError: The protocol has something else first, or fashion has begun.
    """
    optional = [study for study in STUDIES if study.stage in OPTIONAL]
    left_out = optional[len(optional) - leave_out :] if leave_out else []
    missing = []
    for study in STUDIES:
        if study not in left_out and not (out / study.name).is_dir():
            missing.append(study)
    chosen = [study for study in missing if stage in (None, study.stage)]
    if not chosen:
        return []
    earlier = [study.name for study in missing if study.stage < chosen[0].stage]
    if (out / BEGUN).exists():
        others = [study.name for study in chosen if study.stage != LAST]
        require(
            not others,
            f'Fashion has begun ({out / BEGUN}), after which the protocol runs nothing else: '
            f'{", ".join(others)}. Fix: --stage {LAST}.',
        )
        return chosen
    require(
        not earlier,
        f'Stage {chosen[0].stage} comes after {", ".join(earlier)}. Fix: run these first; '
        '--leave-out N leaves out the last ones of stages 4 and 5.',
    )
    return chosen


def begin_fashion(out: Path) -> None:
    """Record that fashion is scored now; refuse to go on with other code than it began with.

    Raises:
        UserError: The code is another one.
    """
    code = _git('rev-parse', 'HEAD:projects', 'HEAD:configs').split()
    begun = read_json(out / BEGUN)
    if begun is None:
        write_json(dict(date=_today(), code=code), out / BEGUN)
        return
    require(
        begun['code'] == code,
        f'Fashion began with other code ({out / BEGUN}). Fix: go back to that commit. If a fault '
        f"had to be mended, the page has to say 'fashion was scored twice': delete the file, "
        'and say so there.',
    )


# ----------------------------------------------------------------------------- inputs
def list_inputs(args: argparse.Namespace) -> dict[str, tuple[str, Path]]:
    """Return the links of the work folder: name -> the flag, and where it leads."""
    return {
        'sets': ('--sets', args.sets),
        'dinov2-small': ('--dinov2', args.dinov2),
        'vit_glyphs.pth': ('--vit', args.vit),
        DYCK: ('--dyck', args.dyck),
        'configs': ('this clone', ROOT / 'configs'),
        'weights': ('this clone', ROOT / 'projects/lm4ve/zoo/weights'),
    }


def link_inputs(args: argparse.Namespace, studies: Sequence[Study]) -> None:
    """Make the links that studies need, and look whether their targets are there.

    Raises:
        UserError: An input lacks, or a set is not the protocol's.
    """
    words = []
    for study in studies:
        for command in list_commands(study):
            words += command
        if study.is_grid:
            words.append(DYCK)
    for name, (flag, path) in list_inputs(args).items():
        is_needed = any(name in word for word in words)
        if not is_needed:
            continue
        require(
            path.exists(),
            f"{flag}: '{path}' is not there. docs/results/protocol.md says what makes it.",
        )
        link = args.work_dir / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(path.resolve())
    for name in sorted({study.data for study in studies if study.has_pictures}):
        require_set(args.sets / name / 'pictures.csv', name)


def require_set(path: Path, name: str) -> None:
    """Refuse a set that is not the one of the protocol.

    Raises:
        UserError: Its list lacks, or has another SHA-256.
    """
    fix = 'Fix: make it by tools/image/picture_sets.py.'
    require(path.is_file(), f"--sets: '{path}' is not there. {fix}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    require(
        digest.startswith(DIGESTS[name]),
        f"'{path}' has SHA-256 {digest[:12]}, that of the protocol {DIGESTS[name]}. {fix}",
    )


# --------------------------------------------------------------------------- one study
def run_study(study: Study, args: argparse.Namespace) -> None:
    """Run a study and store it.

    Args:
        study (Study): The study, of which nothing is stored yet.
        args (argparse.Namespace): Of :func:`main`.

    Raises:
        UserError: It failed.
    """
    commit = describe_code()
    for words in list_commands(study, not args.without_controls):
        words = [*words, *_places(study)]
        if args.workers is not None:
            words += ['--workers', str(args.workers)]
        print(f'\n== {study.name}\nlm4ve {shlex.join(words)}', flush=True)
        command = [sys.executable, '-m', 'lm4ve.commands', *words]
        # The package of this clone, also where another one is installed.
        env = dict(os.environ, PYTHONPATH=str(PACKAGE))
        done = subprocess.run(command, cwd=args.work_dir, env=env)
        require(done.returncode == 0, f"'{study.name}' failed, see above.")
    report = args.work_dir / 'reports' / study.name
    store(report, args.out / study.name, dict(date=_today(), commit=commit))


def run_all(studies: Sequence[Study], args: argparse.Namespace) -> list[str]:
    """Run studies and store them; return the names of those that failed.

    Fashion does not begin after a failure, since all else has to be stored before.

    Args:
        studies (Sequence[Study]): Of which nothing is stored yet, in their order.
        args (argparse.Namespace): Of :func:`main`.
    """
    failed: list[str] = []
    for study in studies:
        if study.stage == LAST:
            if failed and not (args.out / BEGUN).exists():
                print('\nFashion waits until all else is stored.', flush=True)
                return failed
            begin_fashion(args.out)
        try:
            run_study(study, args)
            if args.commit:
                commit_stored(args.out, f'Store the study {study.name}')
        except (UserError, StorageError, OSError) as e:
            print(f'\nerror: {e}', file=sys.stderr, flush=True)
            failed.append(study.name)
    return failed


def _places(study: Study) -> list[str]:
    """Return the flags for the folders, from the work folder."""
    if study.is_grid:  # its report stands in a folder of its name
        return ['--work-dir', 'reports']
    return ['--work-dir', f'reports/{study.name}', '--cache', 'features']


def store(report: Path, target: Path, facts: dict[str, str]) -> None:
    """Copy what stays of a report, and print its sizes.

    The folder gets its name as a whole, since a study whose folder is there is done. What
    a killed run has left in a partial one is overwritten.

    Args:
        report (Path): The folder of the report.
        target (Path): The new folder.
        facts (dict[str, str]): Date and commit.

    Raises:
        UserError: The report is not complete.
    """
    for name in _NEEDED:
        require((report / name).is_file(), f"'{report}' lacks {name}.")
    partial = target.with_suffix('.partial')
    partial.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        if (report / name).is_file():
            shutil.copyfile(report / name, partial / name)
    write_json(facts, partial / evidence_page.RUN)
    partial.rename(target)
    sizes = []
    for path in sorted(target.iterdir()):
        sizes.append(f'{path.name} {path.stat().st_size / 1e3:.0f}')
    print(f'{target} (kB): {", ".join(sizes)}')


def describe_code() -> str:
    """Return the commit, with a word where tracked files differ from it."""
    commit = _git('rev-parse', '--short=12', 'HEAD')
    changes = _git('status', '--porcelain', '--untracked-files=no')
    if changes:
        commit += ' with changes'
    return commit


def commit_stored(out: Path, subject: str) -> None:
    """Write the pages anew and commit them with what is stored, if anything is new."""
    evidence_page.write_pages(out)
    paths = [str(path.resolve()) for path in (out, *evidence_page.PAGES)]
    _git('add', '--', *paths)
    if _git('status', '--porcelain', '--', *paths):
        _git('commit', '--quiet', '-m', subject, '--', *paths)


def _git(*words: str) -> str:
    """Return what git prints about this clone.

    Raises:
        UserError: It fails.
    """
    done = subprocess.run(
        ['git', *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    require(done.returncode == 0, f'git {words[0]}: {done.stderr.strip()}')
    return done.stdout.strip()


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _describe(study: Study, out: Path) -> Iterator[str]:
    """Yield the lines of --list: stage and name, and the commands."""
    state = 'done' if (out / study.name).is_dir() else 'to do'
    yield f'stage {study.stage} ({STAGES[study.stage]})  {state}  {study.name}'
    for words in list_commands(study):
        yield f'    lm4ve {shlex.join(words)}'


def main(argv: Sequence[str] | None = None) -> None:
    """Run the studies that are not stored yet."""
    add = (parser := build_parser(__doc__, {})).add_argument
    folders = {
        '--sets': ('data', 'folder of the sets of tools/image/picture_sets.py'),
        '--dinov2': (
            'dinov2-small',
            'folder that tools/analysis/dinov2_small.py wrote',
        ),
        '--vit': ('vit_glyphs.pth', 'checkpoint of _base_/vit_glyphs.py'),
        '--dyck': (DYCK, 'folder that tools/pretrain_block.py wrote'),
        '--work-dir': ('work_dirs/evidence', 'of features, trainings and reports'),
        '--out': (EVIDENCE, 'of the stored studies'),
    }
    for flag, (default, words) in folders.items():
        add(flag, type=Path, default=Path(default), help=f'{words}; default: {default}')
    add('--stage', type=int, choices=STAGES, help='run this one alone')
    add(
        '--leave-out',
        type=at_least(0),
        default=0,
        metavar='N',
        help='leave out the last N studies of stages 4 and 5',
    )
    add(
        '--without-controls',
        action='store_true',
        help='train only none and frozen in grids',
    )
    add('--workers', type=at_least(0), help='processes; as that of the commands')
    add('--commit', action='store_true', help='commit each study before the next')
    add('--list', action='store_true', help='print the studies and stop')
    args = parser.parse_args(argv)
    if args.list:
        for study in STUDIES:
            print('\n'.join(_describe(study, args.out)))
        return
    studies = choose(args.stage, args.leave_out, args.out)
    require(
        Path(lm4ve.__file__).is_relative_to(PACKAGE),
        f"lm4ve is that of '{Path(lm4ve.__file__).parent}', not of this clone. Fix: "
        f'PYTHONPATH={PACKAGE}.',
    )
    say_after_stop(args.out)
    args.work_dir.mkdir(parents=True, exist_ok=True)
    link_inputs(args, studies)
    if args.commit:
        args.out.mkdir(parents=True, exist_ok=True)
        commit_stored(args.out, 'Store the studies before a stop')
    failed = run_all(studies, args)
    if failed:
        sys.exit(f'Failed: {", ".join(failed)}. Fix: see above, then start again.')


if __name__ == '__main__':
    run_tool(main)
