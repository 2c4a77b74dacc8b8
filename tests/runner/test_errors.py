"""The commands' boundary: any exception becomes one line; the console is short, the log whole."""

import multiprocessing
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from torch.utils.data import DataLoader

from lm4ve.errors import UserError
from lm4ve.files import sole_use
from lm4ve.runner.command_line import build_runner, run_tool
from lm4ve.runner.console import shorten
from lm4ve.runner.ending.signals import current_signals
from lm4ve.runner.exit_codes import STOPPED, TRY_AGAIN, USERS_MISTAKE
from lm4ve.runner.resume import check_whole
from tests.helpers import quick_mmengine, quick_python
from tests.helpers.processes import environment
from tests.helpers.runner.random_run import config
from tests.helpers.tasks import ROOT
from tests.helpers.tools import ERRORS_ONLY, run_command, run_tool_here

pytest.importorskip('mmpretrain')

DEMO = ROOT / 'configs/lm4ve/vit-demo_minilm_digits.py'
#: Overrides that make a training short.
SHORT = [
    'train_cfg.max_epochs=2',
    'train_cfg.val_interval=2',
    'param_scheduler.total_steps=2',
    'train_dataloader.batch_size=256',
]


def fail(fails, folder: Path, option: str) -> str:
    """Train the demo with overrides that end in an error; return what it prints."""
    words = ['train.py', DEMO, '--work-dir', folder, '--cfg-options', *SHORT]
    return fails(*words, *option.split())


OWN_ERROR = [
    ('runner_type=Runer', "Did you mean 'Runner'"),
    (
        'default_hooks.timer=5',
        r"default_hooks.timer=5 must be a dict, as the dict\(type='Iter",
    ),
    ('train_cfg.max_epochs=0', 'train_cfg.max_epochs=0 must be at least 1'),
    (
        'model.neck.block.checkpoint=./llama',
        "block.checkpoint='./llama' does not exist",
    ),
    ('model.neck.in_channels=32', 'encoder gives .* Fix: set in_channels=64'),
    (
        'model.head.num_classes=3',
        'model.head.num_classes=3 is below the 10 classes of .* Fix: ',
    ),
    ('load_from=./nowhere/a.pth', "load_from='./nowhere/a.pth' does not exist"),
    (
        'train_cfg.val_interval=1 default_hooks.checkpoint.interval=9 '
        'default_hooks.checkpoint.save_best=precision/top1 '
        'default_hooks.checkpoint.rule=greater',
        "save_best='precision/top1' must be one of auto, accuracy/top1.",
    ),
]


@pytest.mark.parametrize('option, words', OWN_ERROR)
def test_own_error_is_printed_as_it_is(tmp_path, option, words, fails):
    output = fail(fails, tmp_path, option)
    assert re.search(words, output)
    assert 'traceback' not in output
    assert not list(tmp_path.glob('*.pth'))


#: What a library says follows the path of the part that was being built.
FOREIGN_ERROR = [
    (
        'optim_wrapper.optimizer.eps=-1',
        'optim_wrapper.optimizer: ValueError: Invalid epsilon',
    ),
    (
        'model.head.loss.mode=None',
        'model.head.loss: AssertionError: LabelSmoothLoss supports',
    ),
    (
        'model.backbone.arch.embed_dims=63',
        r"RuntimeError: shape '\[256, 17, 3, 4, 15\]'",
    ),
]


@pytest.mark.parametrize('option, words', FOREIGN_ERROR)
def test_foreign_error_is_one_line_with_log(tmp_path, option, words, fails):
    (line,) = fail(fails, tmp_path, option).splitlines()
    assert line.startswith(f'lm4ve train {DEMO}: ') and re.search(words, line), line
    log = Path(line.rpartition('(traceback: ')[2].rstrip(')'))
    assert log.is_relative_to(tmp_path) and 'Traceback' in log.read_text()


def test_second_training_in_a_folder_is_refused(tmp_path, fails, monkeypatch):
    monkeypatch.setattr('lm4ve.commands.train.ORPHANS', 0.2)
    with sole_use(tmp_path / 'training-0.lock'):
        assert 'training-0.lock' in fail(fails, tmp_path, 'log_level=INFO')
    assert not list(tmp_path.glob('*.pth'))


class SignalHook(Hook):
    """Sends SIGTERM in the middle of a checkpoint."""

    def before_save_checkpoint(self, runner, checkpoint):
        os.kill(os.getpid(), signal.SIGTERM)


def test_signal_waits_for_the_checkpoint(tmp_path, capsys):
    runner = build_runner(config(tmp_path, interval=1))
    runner.register_hook(SignalHook())
    with pytest.raises(SystemExit, match='143'):
        run_tool(runner.train)
    assert runner.iter == 1
    check_whole(tmp_path / 'iter_1.pth')
    assert f'Saved: {tmp_path}/iter_1.pth' in capsys.readouterr().err


SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture
def heeds_ctrl_c():
    """A shell's background job ignores SIGINT, and so would the tests of it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures('heeds_ctrl_c')
@pytest.mark.parametrize('number', SIGNALS)
def test_signal_ends_a_command_while_mmengine_formats_the_config(
    monkeypatch, capsys, number
):
    def stop(text: str, **_) -> tuple[str, bool]:
        os.kill(os.getpid(), number)
        return text, False

    monkeypatch.setattr(quick_mmengine.formatter(), 'FormatCode', stop)
    with pytest.raises(SystemExit) as end:
        run_tool(lambda: Config(dict(a=1)).pretty_text)
    assert end.value.code == 128 + number
    line = capsys.readouterr().err.strip()
    assert line == f'Stopped by {number.name}. Saved: nothing (--resume).'


class StopsWhenCopied:
    """Is a value of the message hub, which goes on whatever a copy raises."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __deepcopy__(self, memo: dict) -> None:
        os.kill(os.getpid(), self.number)


@pytest.mark.usefixtures('heeds_ctrl_c')
@pytest.mark.parametrize('number', SIGNALS)
def test_signal_that_mmengine_swallows_ends_the_training(tmp_path, capsys, number):
    runner = build_runner(config(tmp_path, interval=1))
    runner.message_hub.update_info('stops', StopsWhenCopied(number))
    with pytest.raises(SystemExit) as end:
        run_tool(runner.train)
    assert end.value.code == 128 + number and runner.iter == 1
    check_whole(tmp_path / 'iter_1.pth')
    assert f'Saved: {tmp_path}/iter_1.pth' in capsys.readouterr().err


def test_error_after_a_signal_is_reported(capsys):
    def main() -> None:
        current_signals().wait_for_training()
        os.kill(os.getpid(), signal.SIGTERM)
        raise UserError('The disk is full.')

    with pytest.raises(SystemExit) as end:
        run_tool(main)
    assert end.value.code == 2 and 'The disk is full.' in capsys.readouterr().err


def test_error_without_log_writes_temporary_file(monkeypatch, capsys):
    def main() -> None:
        raise KeyError('x')

    with pytest.raises(SystemExit) as end:
        run_tool(main)
    line = capsys.readouterr().err.strip()
    log = Path(line.rpartition('(traceback: ')[2].rstrip(')'))
    assert end.value.code == 2
    assert "KeyError: 'x'" in line
    assert 'Traceback' in log.read_text()
    log.unlink()


def test_error_of_worker_prints_its_words_only(capsys):
    def fail(samples: list) -> None:
        raise UserError("'a.jpg' is empty.")

    with pytest.raises(SystemExit):
        run_tool(lambda: list(DataLoader([1], num_workers=1, collate_fn=fail)))
    assert capsys.readouterr().err.strip() == "error: 'a.jpg' is empty."


def test_long_error_of_worker_ends_with_its_cause(capsys):
    def fail(samples: list, depth: int = 30) -> None:
        if depth == 0:
            raise ValueError('The picture is upside down.')
        fail(samples, depth - 1)

    with pytest.raises(SystemExit):
        run_tool(lambda: list(DataLoader([1], num_workers=1, collate_fn=fail)))
    line = capsys.readouterr().err.strip()
    assert ' ValueError: The picture is upside down. (traceback: ' in line
    assert 'File "' not in line
    Path(line.rpartition('(traceback: ')[2].rstrip(')')).unlink()


def test_killed_workers_are_one_line(capsys):
    def slow(samples: list) -> list:
        time.sleep(0.2)
        return samples

    def main() -> None:
        others = set(multiprocessing.active_children())
        batches = iter(DataLoader(range(100), num_workers=2, collate_fn=slow))
        next(batches)
        for worker in set(multiprocessing.active_children()) - others:
            os.kill(worker.pid, signal.SIGKILL)
        list(batches)

    with pytest.raises(SystemExit) as end:
        run_tool(main)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert end.value.code == TRY_AGAIN
    assert re.search(r'a worker of a dataloader .process \d+', line)
    Path(line.rpartition('(traceback: ')[2].rstrip(')')).unlink()


def test_stop_before_the_first_step_names_what_is_there(tmp_path, capsys):
    build_runner(config(tmp_path, interval=5)).train()
    saved = (tmp_path / 'last_checkpoint').read_text()

    def main() -> None:
        build_runner(config(tmp_path, resume=True))
        os.kill(os.getpid(), signal.SIGUSR1)

    with pytest.raises(SystemExit, match=str(STOPPED)):
        run_tool(main)
    line = capsys.readouterr().err.strip()
    assert line == f'Stopped by SIGUSR1. Saved: {saved} (--resume).'


@pytest.mark.parametrize('rank, printed', [('0', 1), ('1', 0)])
def test_before_they_meet_one_process_of_a_machine_reports_a_mistake(
    monkeypatch, capsys, rank, printed
):
    monkeypatch.setenv('WORLD_SIZE', '2')
    monkeypatch.setenv('LOCAL_RANK', rank)
    handlers = []

    def main() -> None:
        handlers.append(signal.getsignal(signal.SIGTERM))
        raise UserError('lr=-1 must be above 0.')

    with pytest.raises(SystemExit) as end:
        run_tool(main)
    assert end.value.code == USERS_MISTAKE
    assert capsys.readouterr().err.count('error: lr=-1 ') == printed
    assert handlers == [signal.SIG_DFL]


@pytest.mark.slow
def test_error_of_several_processes_is_printed_once(tmp_path):
    options = '--work-dir', tmp_path, '--cfg-options', 'model.neck.in_channels=32'
    words = 'bash', ROOT / 'tools/dist_train.sh', DEMO, 2, *options
    done = run_command(*words, env=environment())
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith('error: in_channels=32')
    assert done.stderr.count('in_channels=32 and') == 1
    assert 'Traceback' not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize('number', SIGNALS)
def test_stopped_training_names_last_checkpoint(tmp_path, number):
    long = [
        'train_cfg.max_epochs=500',
        'param_scheduler.total_steps=500',
        'default_hooks.checkpoint.interval=1',
    ]
    words = ['train', DEMO, '--work-dir', tmp_path, '--cfg-options', *SHORT, *long]
    process = subprocess.Popen(
        [quick_python.folder() / 'lm4ve', *map(str, words)],
        **ERRORS_ONLY,
        # A shell's background job ignores SIGINT, and so would this process.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    end = time.monotonic() + 120
    while not (tmp_path / 'last_checkpoint').exists() and time.monotonic() < end:
        time.sleep(0.1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert 'Traceback' not in errors
    last = errors.strip().splitlines()[-1]
    assert last.startswith(f'Stopped by {number.name}. Saved: ') and '--resume' in last


def test_training_prints_short_start_and_epoch_lines(tmp_path, capsys):
    run_tool_here('train.py', DEMO, '--work-dir', tmp_path, '--cfg-options', *SHORT)
    *start, first, second, saved = capsys.readouterr().out.strip().splitlines()
    assert len(start) <= 6
    (log,) = tmp_path.glob('*/*.log')
    for words in (
        'vit-demo_minilm_digits',
        '1,257 to train',
        '540 to validate',
        'trained',
        'log ',
        str(log),
    ):
        assert words in '\n'.join(start)
    assert first.startswith('epoch 1/2  loss ') and 'accuracy' not in first
    assert second.startswith('epoch 2/2  loss ') and 'accuracy/top1 ' in second
    assert saved.split() == ['saved', str(tmp_path / 'epoch_2.pth')]

    text = log.read_text()
    for words in (
        'System environment',
        'Config:',
        'after_train_iter',
        'Epoch(train) [2]',
    ):
        assert words in text

    run_tool_here('test.py', DEMO, tmp_path / 'epoch_2.pth', '--work-dir', tmp_path)
    *start, last = capsys.readouterr().out.strip().splitlines()
    assert last.startswith('test  accuracy/top1 ') and len(start) <= 5


def test_console_says_why_a_training_ends_early_and_what_is_best(tmp_path, capsys):
    stopping = dict(
        type='EarlyStoppingHook',
        monitor='accuracy/top1',
        rule='greater',
        min_delta=100,
        patience=1,
    )
    options = f'custom_hooks=[{stopping}]', 'train_cfg.val_interval=1'
    best = 'default_hooks.checkpoint.save_best=accuracy/top1'
    few = 'train_dataloader.dataset.indices=64'
    words = '--work-dir', tmp_path, '--epochs', 5, '--cfg-options', *options, best, few
    run_tool_here('train.py', DEMO, *words)
    lines = capsys.readouterr().out.strip().splitlines()
    (why,) = [line for line in lines if 'did not improve' in line]
    # Behind the line of the epoch whose score it is about, before the checkpoints.
    assert lines[lines.index(why) - 1].startswith('epoch 2/5  loss')
    assert [line.split()[0] for line in lines[lines.index(why) + 1 :]] == [
        'saved',
        'best',
    ]
    saved = lines[-2].split()[1]
    assert torch.load(saved, weights_only=True)['meta']['epoch'] == 2
    assert lines[-1].split()[0] == 'best'
    assert Path(lines[-1].split()[1]).is_file()


def test_console_shows_warnings_without_framework_noise(capsys):
    logger = MMLogger('test_console')
    shorten(logger)
    logger.warning('the loss is large')
    logger.warning('"HardDiskBackend" is the alias of "LocalBackend" and so on.')
    logger.info('paramwise_options -- a.bias:weight_decay=0.0')
    assert capsys.readouterr().out.splitlines() == ['warning: the loss is large']
