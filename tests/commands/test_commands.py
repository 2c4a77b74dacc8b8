"""The console command: the tools of the same names, installed by the wheel."""

import os
import subprocess
import sys

import pytest

from lm4ve.apis import list_models
from lm4ve.commands import COMMANDS
from lm4ve.commands.flags import FLAGS
from lm4ve.runner.pipes import exit_when_output_is_closed
from lm4ve.version import __version__
from tests.helpers.tasks import ROOT
from tests.helpers.tools import run_command


def test_every_command_has_a_tool():
    tools = [
        p.read_text() for p in (ROOT / 'tools').rglob('*.py') if not p.is_symlink()
    ]
    for name in COMMANDS:
        line = f"main(['{name}', *sys.argv[1:]])"
        assert name in ('list', 'try') or any(line in text for text in tools), name


#: Arguments -> the exit code.
LIGHT = {
    **{words: 0 for words in ('', '--help', '--version', 'list --task motion')},
    **{f'{command} --help': 0 for command in COMMANDS},
    **{
        f'{command} a b c --block d --colour': 2
        for command in COMMANDS
        if command != 'visualize'
    },
    'list --task imags': 2,
    'tran': 2,
}


def test_help_and_mistakes_need_no_torch():
    """In one process, since each of them takes a third of a second."""
    lines = (
        'import sys; from lm4ve.commands import main',
        f'for words, code in {LIGHT}.items():',
        "    sys.argv = ['lm4ve', *words.split()]; print()",
        '    try: found = main() or 0',
        '    except SystemExit as e: found = e.code or 0',
        "    assert found == code and not {'torch', 'matplotlib'} & {*sys.modules}, words",
    )
    done = run_command(sys.executable, '-c', '\n'.join(lines))
    assert done.returncode == 0, done.stderr
    assert '\n'.join(['', *list_models(task='motion'), '\n']) in done.stdout
    assert done.stdout.count('\nusage: lm4ve ') == len(COMMANDS) + 2
    assert done.stderr.count('unrecognized arguments: ') == len(COMMANDS) - 1
    assert (
        "task='imags' must be one of" in done.stderr
        and "Did you mean 'train'?" in done.stderr
    )


#: Prints how long OpenMP's threads spin when a program imports torch, and ends it there.
AT_IMPORT_OF_TORCH = """
import os, runpy, sys
from importlib.abc import MetaPathFinder

class Ends(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == 'torch':
            print(os.environ.get('GOMP_SPINCOUNT'))
            sys.exit()

sys.meta_path.insert(0, Ends())
kind, name = sys.argv[1:3]
sys.argv = [name, 'config.py']
if kind == 'module':
    sys.argv.insert(1, 'train')
    runpy.run_module(name, run_name='__main__', alter_sys=True)
else:
    runpy.run_path(name, run_name='__main__')
"""
#: Programs that train.
TRAINING = (
    ('module', 'lm4ve'),
    ('module', 'lm4ve.commands'),
    ('tool', 'tools/demo.py'),
    ('tool', 'tools/distil_block.py'),
    ('tool', 'tools/pretrain_block.py'),
    ('tool', 'tools/train.py'),
    ('tool', 'tools/analysis/ablate.py'),
    ('tool', 'tools/analysis/probe.py'),
)


@pytest.mark.parametrize(('kind', 'name'), TRAINING)
@pytest.mark.parametrize('own', [None, '30'])
def test_program_that_trains_limits_spinning_unless_the_user_has(
    kind, name, own, monkeypatch
):
    monkeypatch.delenv('GOMP_SPINCOUNT', raising=False)
    if own is not None:
        monkeypatch.setenv('GOMP_SPINCOUNT', own)
    done = run_command(sys.executable, '-c', AT_IMPORT_OF_TORCH, kind, name, cwd=ROOT)
    assert done.stdout.strip() == (own or '1000'), done.stderr


def test_module_runs_as_the_command_does():
    done = run_command(sys.executable, '-m', 'lm4ve', '--version', check=True)
    assert done.stdout.strip() == __version__


#: Commands that print in each of the ways that there are: as text, by argparse, by a
#: table of rich, by MMEngine's logger.
DEMO = 'lm4ve/vit-demo_none_digits.py'
PRINTING = (
    'list',
    'train --help',
    f'cost lm4ve::{DEMO}',
    f'train lm4ve::{DEMO} --cfg-options train_cfg.max_epochs=1',
)


@pytest.mark.parametrize('buffered', [True, False])
@pytest.mark.parametrize('words', PRINTING)
def test_command_ends_in_silence_with_its_reader(words, buffered, tmp_path):
    pytest.importorskip('mmpretrain')
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, '-m', 'lm4ve', *words.split()],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, 'PYTHONUNBUFFERED': '' if buffered else '1'},
    )
    os.close(writing)
    # argparse itself passes over an error of an output without a buffer.
    expected = 0 if '--help' in words and not buffered else 141
    assert (done.returncode, done.stderr) == (expected, '')


def test_closed_pipe_of_something_else_is_an_error():
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(BrokenPipeError), exit_when_output_is_closed():
        os.write(writing, b'to nobody')
    os.close(writing)


def test_flags_offer_what_their_commands_have():
    from lm4ve.analysis.measures import MEASURES
    from lm4ve.release.exporting import FORMATS
    from lm4ve.study.heads.candidates import FAMILIES

    assert {*FLAGS['visualize']['--measures']['choices']} == {*MEASURES}
    assert {*FLAGS['export']['--format']['choices']} == {*FORMATS}
    assert [*FLAGS['try']['--variants']['choices']] == [*FAMILIES]
    assert FLAGS.keys() == COMMANDS.keys()


def test_shell_scripts_find_the_environment_of_the_clone(tmp_path):
    """Where `python` on the path has no lm4ve, as in a shell that activated nothing."""
    (tmp_path / 'tools').mkdir()
    script = tmp_path / 'tools/environment.sh'
    script.write_text((ROOT / 'tools/environment.sh').read_text())
    for folder, code in ((tmp_path / 'other', 1), (tmp_path / '.venv/bin', 0)):
        folder.mkdir(parents=True)
        (folder / 'python').write_text(f'#!/bin/sh\nexit {code}\n')
        (folder / 'python').chmod(0o755)
    path = {'PATH': f'{tmp_path}/other:/usr/bin:/bin'}
    done = run_command(
        'bash', '-c', f'. {script}; command -v python', check=True, env=path
    )
    assert done.stdout.strip() == f'{tmp_path}/.venv/bin/python'
