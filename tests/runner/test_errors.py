"""A mistake of the user ends in one message, which comes last, and not in a traceback."""

import os
import signal
import socket
import subprocess
import time

import pytest

from tests.helpers import quick_python
from tests.helpers.tasks import ROOT
from tests.runner.test_console import DEMO, SHORT

pytest.importorskip('mmpretrain')


@pytest.mark.parametrize(
    'options, found',
    [
        (['model.neck.type=LLMBlockNek'], "Did you mean 'LLMBlockNeck'"),
        (['model.neck.in_chanels=64'], "no argument 'in_chanels'. Did you mean 'in_channels'?"),
        (['model.backbone.drop_rte=0.1'], "no argument 'drop_rte'. Did you mean 'drop_rate'"),
        (['optim_wrapper.optimizer.type=AdmW'], "Did you mean 'AdamW'"),
        (['optim_wrapper.optimizer.lrr=1'], "no argument 'lrr'. Did you mean 'lr'?"),
        (['model.head.num_classes=3'], 'num_classes of model.head'),
        (['train_dataloader.batch_size=0'], 'train_dataloader.batch_size=0'),
        (['model.head.num_classes=0'], "Head' refuses its arguments: num_classes=0 must be"),
        (['optim_wrapper.optimizer.eps=-1'], 'refuses its arguments: Invalid epsilon value: -1'),
        (['model.type=5'], 'type=5 of a config must be the name'),
        (['model.head.num_classes=ten'], "VisionTransformerClsHead' refuses its arguments"),
        (['model.backbone.arch.embed_dims=63'], 'widths of the model do not fit in MultiheadAtt'),
        (['model.head.in_channels=63'], 'do not fit in VisionTransformerClsHead: mat1 and mat2'),
        (['train_dataloader.dataset.indices=0'], 'indices=0 leaves no sample'),
        (['train_dataloader.collate_fn.type=default_colate'], "Did you mean 'default_collate'"),
        (['compile=5'], 'compile=5 must be True, False or a dict'),
        (['default_hooks.checkpoint.interval=0'], 'checkpoint.interval=0 must be a whole number'),
        (['runner_type=Runer'], "Did you mean 'Runner'?"),
    ],
    ids=lambda x: x[0] if isinstance(x, list) else '',
)
def test_a_typo_ends_in_one_message(tmp_path, options, found, fails):
    arguments = DEMO, '--work-dir', tmp_path, '--cfg-options', *SHORT, *options
    assert found in fails('train.py', *arguments)


def test_a_folder_in_the_place_of_a_checkpoint_is_named(tmp_path, fails):
    arguments = '--work-dir', tmp_path / 'run'
    for name, *more in (('test.py', tmp_path), ('train.py', '--resume', tmp_path)):
        assert f"checkpoint '{tmp_path}' is a folder. Fix" in fails(name, DEMO, *more, *arguments)


@pytest.mark.parametrize('folder', ['/dev/null/run', '/proc/run'])
def test_a_work_dir_that_cannot_be_made_is_named_at_the_start(folder, fails):
    assert f"work_dir='{folder}' cannot be written" in fails('train.py', DEMO, '--work-dir', folder)


def test_a_full_disk_is_named_at_the_start(tmp_path):
    from lm4ve.errors import UserError
    from lm4ve.runner.command_line import check_writable

    check_writable(str(tmp_path / 'fine'))
    # A limit on the size of files stands for the disk that has no more space.
    limit = 'import resource as r; r.setrlimit(r.RLIMIT_FSIZE, (9999, 9999));'
    call = (
        f'from lm4ve.runner.command_line import check_writable as c; {limit} c({str(tmp_path)!r})'
    )
    python = quick_python.folder() / 'python'
    done = subprocess.run([python, '-c', call], text=True, capture_output=True, check=False)
    assert f"{UserError.__name__}: work_dir='{tmp_path}' cannot be written" in done.stderr


def launch(*words, **environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        ['bash', ROOT / 'tools/dist_train.sh', *map(str, words)],
        text=True,
        capture_output=True,
        check=False,
        env={**os.environ, 'PATH': quick_python.path(), **environment},
    )


def test_the_number_of_processes_must_be_one():
    done = launch(DEMO, 'two')
    assert done.returncode == 2
    assert (
        done.stderr.strip() == "error: GPUS='two' must be a whole number from 1. Fix: correct it."
    )


@pytest.mark.parametrize('value', ['0', '-1', '65536', '9' * 20, '\u0661', '1e3', ''])
def test_numbers_of_the_launcher_are_whole_and_within_their_limits(value):
    from lm4ve.commands.launch import number
    from lm4ve.errors import UserError

    with pytest.raises(UserError, match=f"PORT='{value}' must be a whole number from 1 to 65535"):
        number('PORT', value, 1, 65535)
    assert number('PORT', '65535', 1, 65535) == 65535


def test_a_busy_port_names_the_variable_to_set():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        s.listen()
        done = launch(DEMO, 2, PORT=str(s.getsockname()[1]))
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert 'is in use' in line and 'PORT=' in line


@pytest.mark.slow
def test_an_error_of_several_processes_is_printed_once_and_last(tmp_path):
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
        (signal.SIGINT, 130, 'Stopped. Saved: '),
        (signal.SIGTERM, 143, 'Stopped by SIGTERM. Saved: '),
    ],
)
def test_a_stopped_training_says_what_was_saved(tmp_path, number, code, line):
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
