"""What takes a while shows how far it is: a bar on a terminal, one line elsewhere."""

import contextlib
import os
import pty
import sys

from lm4ve.tasks.base.progress import progress


def test_a_pipe_gets_one_line(capsys):
    assert list(progress(range(3), 'simulating')) == [0, 1, 2]
    out, err = capsys.readouterr()
    assert not out and err == 'simulating: 3 in all\n'


def _read_all(reader: int) -> str:
    """Return what a terminal was shown, once its writer is closed."""
    shown = b''
    with contextlib.suppress(OSError):  # the end, on Linux
        while more := os.read(reader, 65536):
            shown += more
    os.close(reader)
    return shown.decode()


def test_a_terminal_gets_a_bar(monkeypatch):
    reader, writer = pty.openpty()
    with os.fdopen(writer, 'w') as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, 'stderr', terminal)
        patch.setenv('TERM', 'xterm')
        assert list(progress(iter('abc'), 'drawing', 3)) == ['a', 'b', 'c']
    shown = _read_all(reader)
    assert 'drawing' in shown and '100%' in shown
