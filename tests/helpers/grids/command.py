"""Runs of ``tools/analysis/ablate.py``, and what lies in their folder."""

import contextlib
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.tasks import ROOT

TOOL = ROOT / 'tools/analysis/ablate.py'


def run(grid, folder, *args) -> int:
    """Run the tool here; return its exit code."""
    before = {kind: signal.getsignal(kind) for kind in (signal.SIGTERM, signal.SIGINT)}
    # A shell's background jobs, as CI may be one, start with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    words = [str(TOOL), *map(str, (grid, '--work-dir', folder, *args))]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(sys, 'argv', words)
        try:
            runpy.run_path(str(TOOL), run_name='__main__')
        except SystemExit as e:
            return e.code
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)
    return 0


def results(folder) -> list:
    return list(folder.glob('jobs/*/result.json'))


@contextlib.contextmanager
def when_a_trial_hangs(hang: Path, commands: str):
    """Run commands once a trial is in the middle of its training, inside of the context."""
    wait = f'until [ -e {hang}.hanging ]; do sleep .1; done'
    process = subprocess.Popen(['bash', '-c', f'{wait}; {commands}'])
    try:
        yield
    finally:
        process.kill()
        process.wait()
