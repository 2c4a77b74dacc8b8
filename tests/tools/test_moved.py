"""Every command that the documentation of older versions named still runs."""

import runpy
import sys

import pytest

from tests.helpers.tasks import ROOT

TOOLS = ROOT / 'tools'
MOVED = runpy.run_path(str(TOOLS / 'moved.py'))['MOVED']
OLD = {p.name: p for p in TOOLS.rglob('*.py') if p.is_symlink()}


def test_every_old_path_has_a_new_one():
    assert set(OLD) == set(MOVED)
    assert all((TOOLS / new).is_file() for new in MOVED.values())


@pytest.mark.parametrize('name', MOVED)
def test_an_old_path_names_the_new_one_and_runs_it(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', [str(OLD[name]), '--help'])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(OLD[name]), run_name='__main__')
    said = capsys.readouterr()
    assert end.value.code == 0
    assert f'{name} is now tools/{MOVED[name]}.' in said.err and 'usage:' in said.out
