"""The console command: the tools of the same names, installed by the wheel."""

import subprocess
import sys

import pytest

from lm4ve.apis import list_models
from lm4ve.commands import COMMANDS, main
from tests.helpers.tasks import ROOT


@pytest.mark.parametrize('name', COMMANDS)
def test_every_command_has_entry_and_tool(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['lm4ve', name, '--help'])
    with pytest.raises(SystemExit, match='0'):
        main()
    assert f'usage: lm4ve {name} ' in capsys.readouterr().out
    tools = [p for p in (ROOT / 'tools').rglob('*.py') if not p.is_symlink()]
    assert name in ('list', 'try') or any(
        f'from lm4ve.commands.{name} import main' in p.read_text() for p in tools
    )


def test_list_prints_the_models_of_a_task(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['lm4ve', 'list', '--task', 'motion'])
    main()
    assert capsys.readouterr().out.split() == list_models(task='motion')


@pytest.mark.parametrize('words', [[], ['--help'], ['--version']])
def test_help_needs_no_torch(words):
    script = (
        'import sys; from lm4ve.commands import main; main(); assert "torch" not in sys.modules'
    )
    command = [sys.executable, '-c', script, *words]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert done.returncode == 0 and done.stdout


def test_shell_scripts_find_the_environment_of_the_clone(tmp_path):
    """Where `python` on the path has no lm4ve, as in a shell that activated nothing."""
    (tmp_path / 'tools').mkdir()
    script = tmp_path / 'tools/environment.sh'
    script.write_text((ROOT / 'tools/environment.sh').read_text())
    for folder, code in ((tmp_path / 'other', 1), (tmp_path / '.venv/bin', 0)):
        folder.mkdir(parents=True)
        (folder / 'python').write_text(f'#!/bin/sh\nexit {code}\n')
        (folder / 'python').chmod(0o755)
    find = ['bash', '-c', f'. {script}; command -v python']
    path = {'PATH': f'{tmp_path}/other:/usr/bin:/bin'}
    done = subprocess.run(find, text=True, capture_output=True, check=True, env=path)
    assert done.stdout.strip() == f'{tmp_path}/.venv/bin/python'
