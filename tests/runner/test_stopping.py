"""A training that a signal stops saves the iteration, and ends as an undisturbed one."""

import multiprocessing
import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch.utils.data import DataLoader

from lm4ve.runner.command_line import build_runner, run_tool
from lm4ve.runner.ending.signals import keep_workers_at_signals
from lm4ve.runner.exit_codes import STOPPED
from lm4ve.runner.resume import check_whole, newest_checkpoint
from tests.helpers.runner.random_run import EPOCHS, STEPS, config
from tests.helpers.runner.toy import Score
from tools.dev.check_resume import is_same, state_of

pytestmark = pytest.mark.bitwise

#: Saves after every second epoch, and keeps one checkpoint.
BY_EPOCH = dict(
    type='lm4ve.AtomicCheckpointHook', by_epoch=True, interval=2, max_keep_ckpts=1
)


@HOOKS.register_module()
class SignalAtHook(Hook):
    """Has a signal sent to this process and its children, as schedulers do.

    Args:
        number (int): The signal.
        train (int, optional): In which iteration of the training, from 1.
        val (int, optional): After which iteration of the first validation, from 1.
    """

    def __init__(
        self, number: int, train: int | None = None, val: int | None = None
    ) -> None:
        self.number = number
        self.train = train
        self.val = val

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter + 1 == self.train:
            self.send()

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if batch_idx + 1 == self.val:
            self.send()

    def send(self):
        workers = [process.pid for process in multiprocessing.active_children()]
        processes = [str(process) for process in (*workers, os.getpid())]
        # Not by this process itself, from which its workers heed a signal.
        subprocess.run(['kill', '-s', str(self.number), *processes], check=True)


def train(folder: Path, stop: dict | None = None, **changes) -> int:
    """Train in a folder, from its newest checkpoint; return the command's exit code."""
    hooks = [dict(type='EMAHook', momentum=0.1)]
    if stop is not None:
        hooks.append(dict(type='SignalAtHook', **stop))
    changes.setdefault('default_hooks', dict(checkpoint=BY_EPOCH))
    changes.setdefault('workers', 1)
    cfg = config(folder, hooks=hooks, resume=True, **changes)
    runner = build_runner(cfg)
    try:
        run_tool(runner.train)
    except SystemExit as e:
        return e.code
    return 0


def validation() -> dict:
    """Return a config's fields for a validation after each epoch."""
    data = dict(
        dataset=dict(type='Augmented'),
        batch_size=4,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
    )
    score = dict(type=Score, values=[1.0] * EPOCHS)
    return dict(val_dataloader=data, val_cfg=dict(), val_evaluator=[score])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob('*.pth'))


def assert_equal_ends(one: Path, other: Path) -> None:
    """Compare the last checkpoints of two runs, which have all kept only that one."""
    last = f'epoch_{EPOCHS}.pth'
    assert names(one) == names(other) == [last]
    assert is_same(state_of(one / last), state_of(other / last))


# In the middle of an epoch, at its last iteration, and in the first one of all.
STOPS = [
    (signal.SIGTERM, 7),
    (signal.SIGUSR1, STEPS),
    (signal.SIGUSR2, 1),
    (signal.SIGUSR1, 2 * STEPS),
]


@pytest.mark.parametrize('number, at', STOPS)
def test_stopped_run_ends_as_an_undisturbed_one(tmp_path, number, at, capsys):
    assert train(tmp_path / 'whole') == 0
    stopped = tmp_path / 'stopped'
    code = train(stopped, dict(number=int(number), train=at))
    assert code == STOPPED
    saved = stopped / f'iter_{at}.pth'
    assert check_whole(saved) == at
    line = f'Stopped by {number.name}. Saved: {saved} (--resume).'
    assert line in capsys.readouterr().err
    assert newest_checkpoint(stopped) == (saved, [])
    assert train(stopped) == 0
    assert_equal_ends(stopped, tmp_path / 'whole')


def test_of_stops_in_a_row_as_many_are_kept_as_of_other_checkpoints(tmp_path):
    for at in (2, 3, 4):
        assert train(tmp_path, dict(number=int(signal.SIGUSR1), train=at)) == STOPPED
        assert names(tmp_path) == [f'iter_{at}.pth']
    # A regular checkpoint, after the second epoch, takes the place of that of a signal.
    stop = dict(number=int(signal.SIGUSR1), train=2 * STEPS + 1)
    assert train(tmp_path, stop) == STOPPED
    assert names(tmp_path) == ['epoch_2.pth', f'iter_{2 * STEPS + 1}.pth']


def test_stop_right_after_a_regular_checkpoint_saves_nothing_again(tmp_path):
    regular = dict(BY_EPOCH, by_epoch=False, interval=4, max_keep_ckpts=3)
    hooks = dict(checkpoint=regular)
    stop = dict(number=int(signal.SIGTERM), train=4)
    written = []
    save = torch.save

    def count(content, *args, **kwargs):
        written.append(content['meta']['iter'])
        save(content, *args, **kwargs)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(torch, 'save', count)
        assert train(tmp_path, stop, default_hooks=hooks) == STOPPED
    assert written == [4]
    # It is a regular one, which later ones do not delete.
    assert train(tmp_path, default_hooks=hooks) == 0
    assert names(tmp_path) == ['iter_12.pth', 'iter_15.pth', 'iter_8.pth']


def test_stop_in_a_validation_saves_weights_and_not_their_average(tmp_path):
    assert train(tmp_path / 'whole', **validation()) == 0
    stop = dict(number=int(signal.SIGTERM), val=2)
    stopped = tmp_path / 'stopped'
    assert train(stopped, stop, **validation()) == STOPPED
    assert names(stopped) == [f'iter_{STEPS}.pth']
    assert train(stopped, **validation()) == 0
    assert_equal_ends(stopped, tmp_path / 'whole')


#: Updates of three iterations, of which two are left for the last of an epoch of five.
OF_THREE = dict(optimizer=dict(type='AdamW', lr=1e-2), accumulative_counts=3)


@pytest.mark.parametrize('at, saved', [(6, 8), (8, 8), (9, 10)])
def test_signal_within_an_update_waits_for_its_end(at, saved, tmp_path):
    options = dict(optim_wrapper=OF_THREE)
    assert train(tmp_path / 'whole', **options) == 0
    stopped = tmp_path / 'stopped'
    stop = dict(number=int(signal.SIGTERM), train=at)
    assert train(stopped, stop, **options) == STOPPED
    assert names(stopped) == [f'iter_{saved}.pth']
    assert train(stopped, **options) == 0
    assert_equal_ends(stopped, tmp_path / 'whole')


def test_loop_by_iterations_validates_and_stops_between_updates(tmp_path):
    """So that the best checkpoint, and that of a signal, lack no gradients."""
    saving = dict(
        type='lm4ve.AtomicCheckpointHook',
        by_epoch=False,
        interval=5,
        save_best='score',
        rule='greater',
    )
    options = dict(
        loop=dict(by_epoch=False, max_iters=13, val_interval=4),
        default_hooks=dict(checkpoint=saving),
        optim_wrapper=OF_THREE,
        **validation(),
    )
    options['val_evaluator'][0]['values'] = [1.0, 2.0, 3.0, 4.0]
    assert train(tmp_path / 'whole', **options) == 0
    assert names(tmp_path / 'whole') == [
        'best_score_iter_13.pth',
        *(f'iter_{at}.pth' for at in (12, 13, 6, 9)),
    ]
    stopped = tmp_path / 'stopped'
    stop = dict(number=int(signal.SIGTERM), val=2)
    assert train(stopped, stop, **options) == STOPPED
    assert names(stopped) == ['iter_6.pth']
    assert train(stopped, **options) == 0
    ends = [state_of(tmp_path / f'{name}/iter_13.pth') for name in ('whole', 'stopped')]
    assert is_same(*ends)


def test_flexible_runner_saves_after_the_validation(tmp_path):
    flexible = dict(
        runner_type='FlexibleRunner',
        strategy=dict(type='SingleDeviceStrategy'),
        env_cfg=dict(),
        **validation(),
    )
    stop = dict(number=int(signal.SIGTERM), val=2)
    assert train(tmp_path, stop, **flexible) == STOPPED
    saved = tmp_path / f'iter_{STEPS}.pth'
    assert newest_checkpoint(tmp_path) == (saved, [])
    assert check_whole(saved) == STEPS
    assert train(tmp_path, **flexible) == 0
    assert names(tmp_path) == [f'epoch_{EPOCHS}.pth']


def test_damaged_checkpoint_of_a_signal_falls_back_to_an_epoch(tmp_path):
    stop = dict(number=int(signal.SIGUSR1), train=2 * STEPS + 3)
    assert train(tmp_path, stop) == STOPPED
    damaged = tmp_path / f'iter_{2 * STEPS + 3}.pth'
    damaged.write_bytes(damaged.read_bytes()[:1000])
    # An earlier run may have left it.
    content = torch.load(tmp_path / 'epoch_2.pth', weights_only=True)
    content['meta']['iter'] = 3 * STEPS
    torch.save(content, tmp_path / 'epoch_3.pth')
    path, notes = newest_checkpoint(tmp_path)
    assert path == tmp_path / 'epoch_2.pth'
    assert damaged.name in notes[0]
    assert f"epoch_3.pth' is of iteration {3 * STEPS}" in notes[1]


def test_killed_while_saving_at_a_signal_keeps_the_checkpoint_before(
    tmp_path, monkeypatch
):
    first = dict(number=int(signal.SIGUSR1), train=2)
    assert train(tmp_path, first) == STOPPED

    class Killed(BaseException):
        """Stands for the end of the process."""

    def die(source, target):
        raise Killed

    monkeypatch.setattr(os, 'replace', die)
    with pytest.raises(Killed):
        train(tmp_path, dict(number=int(signal.SIGUSR1), train=4))
    monkeypatch.undo()
    assert newest_checkpoint(tmp_path) == (tmp_path / 'iter_2.pth', [])
    check_whole(tmp_path / 'iter_2.pth')


def test_worker_ends_where_the_sender_of_a_signal_is_unknown(monkeypatch):
    """As on macOS."""
    monkeypatch.delattr(signal, 'sigwaitinfo')
    others = set(multiprocessing.active_children())
    loader = DataLoader(range(20), num_workers=1)
    keep_workers_at_signals(loader)
    batches = iter(loader)
    next(batches)
    (worker,) = set(multiprocessing.active_children()) - others
    os.kill(worker.pid, signal.SIGUSR1)
    assert len(list(batches)) == 19

    batches = iter(loader)
    next(batches)
    (worker,) = set(multiprocessing.active_children()) - others
    worker.terminate()
    worker.join(30)
    assert worker.exitcode == 0


def test_worker_outlives_signals_that_its_training_did_not_send():
    others = set(multiprocessing.active_children())
    loader = DataLoader(range(20), num_workers=1)
    keep_workers_at_signals(loader)
    batches = iter(loader)
    next(batches)
    (worker,) = set(multiprocessing.active_children()) - others
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        subprocess.run(['kill', '-s', str(int(number)), str(worker.pid)], check=True)
    assert len(list(batches)) == 19

    batches = iter(loader)
    next(batches)
    (worker,) = set(multiprocessing.active_children()) - others
    worker.terminate()
    worker.join(30)
    assert worker.exitcode == 0
