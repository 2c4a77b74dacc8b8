"""A command by a tool's old path runs the tool and prints its new path.

``tests/test_old_names.py`` checks that each old path is there.
"""

import os
import runpy
import sys

import pytest

from tests.helpers.tasks import ROOT

LINKS = [path.relative_to(ROOT) for path in ROOT.glob('tools/**/*.py') if path.is_symlink()]


@pytest.mark.parametrize('old', LINKS, ids=str)
def test_an_old_path_names_the_new_one_and_runs_it(old, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, 'argv', [str(old), '--help'])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(old), run_name='__main__')
    said = capsys.readouterr()
    new = os.path.normpath(old.parent / os.readlink(old))
    assert end.value.code == 0 and 'usage:' in said.out
    assert f'{old} is now {new}.' in said.err
