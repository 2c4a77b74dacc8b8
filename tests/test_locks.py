"""A run that works in a folder alone: another one is refused, waits, or is warned of."""

import errno
import fcntl
import json
import logging
import math
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from lm4ve import files
from lm4ve.errors import StorageError, UserError
from lm4ve.files import machine, sole_use

#: Holds the lock of its argument until its input ends.
HOLDER = """
import sys
from lm4ve.files import sole_use
with sole_use(sys.argv[1]):
    print('held', flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds ``tmp_path/lock``."""
    command = [sys.executable, '-c', HOLDER, str(tmp_path / 'lock')]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.readline() == 'held\n'
        yield process
        process.kill()


def test_refusal_names_host_process_age_and_file(tmp_path, holder):
    lock = tmp_path / 'lock'
    content = json.loads(lock.read_text())
    content['since'] -= 7265
    lock.write_text(json.dumps(content))
    with pytest.raises(UserError) as refused, sole_use(lock):
        pass
    words = f"process {holder.pid} on {socket.gethostname()} has held '{lock}' for 2:01"
    assert words in str(refused.value)


def test_killed_holder_frees_the_lock(tmp_path, holder):
    holder.kill()
    holder.wait()
    with sole_use(tmp_path / 'lock'):
        pass


def test_waiting_run_gets_the_lock_once_it_is_free(tmp_path, holder, monkeypatch):
    said = []
    monkeypatch.setattr(files, '_LOCK_PATIENCE', 0.1)
    monkeypatch.setattr(files, 'print_log', lambda text, **how: said.append(text))
    threading.Timer(1.0, holder.stdin.close).start()
    with sole_use(tmp_path / 'lock', wait=math.inf):
        content = json.loads((tmp_path / 'lock').read_text())
    assert content['pid'] == os.getpid()
    (line,) = said
    assert line.startswith(f'Waiting: process {holder.pid} on ')


def test_run_waits_no_longer_than_it_is_told(tmp_path, holder):
    start = time.monotonic()
    with pytest.raises(UserError), sole_use(tmp_path / 'lock', wait=0.6):
        pass
    assert 0.6 <= time.monotonic() - start < 10


def test_file_system_without_locks_is_warned_of(tmp_path, monkeypatch):
    def refuse(file, operation):
        raise OSError(errno.ENOLCK, 'No locks available')

    said = []
    monkeypatch.setattr(fcntl, 'flock', refuse)
    monkeypatch.setattr(files, 'print_log', lambda *words, **how: said.append(how))
    with sole_use(tmp_path / 'lock'), sole_use(tmp_path / 'lock'):
        pass
    assert [how['level'] for how in said] == [logging.WARNING] * 2


def test_lock_that_cannot_be_written_is_an_error_of_the_storage(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(StorageError, match='cannot be written'):
        with sole_use(tmp_path / 'file' / 'lock'):
            pass


def test_containers_of_one_host_name_are_different_machines(tmp_path, monkeypatch):
    here = machine()
    assert here == machine.__wrapped__()
    other = tmp_path / 'boot_id'
    other.write_text('another kernel')
    monkeypatch.setattr(files, '_IDENTITIES', (str(other),))
    elsewhere = machine.__wrapped__()
    assert elsewhere != here
    assert elsewhere.startswith(f'{socket.gethostname()}-')
