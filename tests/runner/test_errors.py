"""The commands' boundary: any exception becomes one line, and its traceback goes to the log."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Dataset

from lm4ve.errors import UserError
from lm4ve.runner.command_line import run_tool
from tests.helpers import quick_python
from tests.helpers.tasks import ROOT
from tests.runner.test_console import DEMO, SHORT

pytest.importorskip('mmpretrain')


@pytest.mark.parametrize(
    'option, words',
    [
        ('model.neck.in_chanels=64', "in_chanels is not a known field. Did you mean 'in_channels'"),
        ('runner_type=Runer', "Did you mean 'Runner'?"),
    ],
)
def test_own_error_is_printed_as_it_is(tmp_path, option, words, fails):
    said = fails('train.py', DEMO, '--work-dir', tmp_path, '--cfg-options', *SHORT, option)
    assert words in said and 'traceback' not in said


@pytest.mark.parametrize(
    'option, words',
    [
        ('optim_wrapper.optimizer.eps=-1', 'ValueError: Invalid epsilon'),
        ('model.type=5', 'TypeError: type must be a str'),
        ('model.backbone.arch.embed_dims=63', "RuntimeError: shape '[256, 17, 3, 4, 15]'"),
    ],
)
def test_foreign_error_is_one_line_with_log(tmp_path, option, words, fails):
    said = fails('train.py', DEMO, '--work-dir', tmp_path, '--cfg-options', *SHORT, option)
    (line,) = said.splitlines()
    assert line.startswith(f'train.py {DEMO}: ') and words in line
    log = Path(line.rpartition('(traceback: ')[2].rstrip(')'))
    assert log.is_relative_to(tmp_path) and 'Traceback' in log.read_text()


def test_error_without_log_writes_temporary_file(monkeypatch, capsys):
    def main() -> None:
        raise KeyError('x')

    with pytest.raises(SystemExit) as end:
        run_tool(main)
    line = capsys.readouterr().err.strip()
    log = Path(line.rpartition('(traceback: ')[2].rstrip(')'))
    assert end.value.code == 2 and "KeyError: 'x'" in line and 'Traceback' in log.read_text()
    log.unlink()


class Damaged(Dataset):
    """A data set that raises an error of ours."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, i: int) -> None:
        raise UserError("'a.jpg' is empty.")


def test_error_of_worker_prints_its_words_only(capsys):
    with pytest.raises(SystemExit):
        run_tool(lambda: list(DataLoader(Damaged(), num_workers=1)))
    assert capsys.readouterr().err.strip() == "error: 'a.jpg' is empty."


def test_unwritable_work_dir_is_named(tmp_path, fails):
    folder = '/dev/null/run'
    assert f"work_dir='{folder}' cannot be written" in fails('train.py', DEMO, '--work-dir', folder)


def launch(*words, **environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        ['bash', ROOT / 'tools/dist_train.sh', *map(str, words)],
        text=True,
        capture_output=True,
        check=False,
        env={**os.environ, 'PATH': quick_python.path(), **environment},
    )


def test_launcher_reports_wrong_values_in_one_line():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        s.listen()
        busy = launch(DEMO, 2, PORT=str(s.getsockname()[1]))
    for done, words in ((launch(DEMO, 'two'), 'two'), (busy, 'EADDRINUSE')):
        assert done.returncode == 2 and 'Traceback' not in done.stderr
        (line,) = (x for x in done.stderr.splitlines() if x.startswith('error: '))
        assert words in line


@pytest.mark.slow
def test_error_of_several_processes_is_printed_once(tmp_path):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = str(s.getsockname()[1])
    options = '--work-dir', tmp_path, '--cfg-options', 'model.neck.in_channels=32'
    done = launch(DEMO, 2, *options, PORT=port)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith('error: neck.in_channels=32')
    assert done.stderr.count('neck.in_channels=32') == 1
    assert 'Traceback' not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    'number, code, line',
    [
        (signal.SIGINT, 130, 'Stopped by SIGINT. Saved: '),
        (signal.SIGTERM, 143, 'Stopped by SIGTERM. Saved: '),
    ],
)
def test_stopped_training_names_last_checkpoint(tmp_path, number, code, line):
    every = (
        'train_cfg.max_epochs=500',
        'param_scheduler.total_steps=500',
        'default_hooks.checkpoint.interval=1',
    )
    words = 'train', DEMO, '--work-dir', tmp_path, '--cfg-options', *SHORT, *every
    process = subprocess.Popen(
        [quick_python.folder() / 'lm4ve', *map(str, words)],
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        # A shell's background job ignores SIGINT, and so would this process.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    end = time.monotonic() + 120
    while not (tmp_path / 'last_checkpoint').exists() and time.monotonic() < end:
        time.sleep(0.1)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1].strip().splitlines()
    assert process.returncode == code
    assert said[-1].startswith(line) and '--resume' in said[-1]
    assert not any('Traceback' in text for text in said)
