"""A runner ends a training whose loss or weights are not finite; nothing of it is saved."""

import math
import random
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook

from lm4ve.errors import UserError
from lm4ve.runner.ending import hook
from tests.helpers.processes import outputs_of_two
from tests.helpers.runner.scripted import Scripted, scripted_runner, validation

NAN = math.nan
INF = math.inf


def saved(folder: Path) -> list[int]:
    """Return the iterations after which a checkpoint was saved."""
    return sorted(int(path.stem.partition('_')[2]) for path in folder.glob('iter_*'))


def first_refused(losses: Sequence[float], tolerate: int) -> int | None:
    """Return the iteration, from 1, at which too many in a row are not finite."""
    in_a_row = 0
    for iteration, loss in enumerate(losses, 1):
        in_a_row = 0 if math.isfinite(loss) else in_a_row + 1
        if in_a_row > tolerate:
            return iteration
    return None


@pytest.mark.parametrize('seed', range(12))
def test_it_stops_where_reading_every_loss_would(seed, tmp_path):
    draw = random.Random(seed)
    epochs = draw.choice([1, 2, 3])
    length = draw.choice([3, 5, 8, 25])
    losses = [draw.choice([0.5, 2.0, NAN, INF]) for _ in range(epochs * length)]
    tolerate = draw.choice([0, 1, 2, 3])
    save = draw.choice([1, 3, 100])
    options = dict(tolerate=tolerate)
    runner = scripted_runner(tmp_path, Scripted(losses), epochs, save, hook=options)
    stop = first_refused(losses, tolerate)
    if stop is None:
        runner.train()
        assert runner.iter == len(losses)
    else:
        epoch = (stop - 1) // length + 1
        words = (
            f'loss_scripted of iteration {stop} .epoch {epoch}. is {losses[stop - 1]}:'
        )
        with pytest.raises(UserError, match=words):
            runner.train()
        # It is read in time: after ten iterations at most, and at the end of its epoch.
        assert (
            stop <= runner.iter + 1 <= min(stop + hook.ITERATIONS, epoch * length + 1)
        )
    done = len(losses) if stop is None else stop - 1
    expected = [i for i in range(1, done + 1) if i % save == 0]
    if stop is None and len(losses) not in expected:
        expected.append(len(losses))
    assert saved(tmp_path) == expected


def test_slow_iterations_are_looked_at_one_by_one(tmp_path, monkeypatch):
    class Slow(Hook):
        def after_train_iter(self, runner, *args, **kwargs) -> None:
            time.sleep(0.03)

    monkeypatch.setattr(hook, 'SECONDS', 0.05)
    losses = [1.0] * 6 + [NAN] + [1.0] * 18
    runner = scripted_runner(
        tmp_path, Scripted(losses), save=100, custom_hooks=[Slow()]
    )
    with pytest.raises(UserError, match='iteration 7 '):
        runner.train()
    assert runner.iter == 7


def test_all_losses_of_the_iteration_are_named(tmp_path):
    model = Scripted([1.0, NAN, 1.0])
    with pytest.raises(UserError, match='loss, loss_scripted of iteration 2 .* is nan'):
        scripted_runner(tmp_path, model).train()


def test_any_loss_is_tolerated_on_request(tmp_path):
    model = Scripted([NAN] * 4, poisons=True)
    scripted_runner(tmp_path, model, hook=dict(tolerate=-1)).train()
    assert saved(tmp_path) == [1, 2, 3, 4]


def test_weights_that_a_finite_loss_makes_nan_are_not_saved(tmp_path):
    model = Scripted([1.0, 1.0, 1.0, 1.0])

    def ruin(gradient: torch.Tensor) -> torch.Tensor:
        return gradient if model.done < 3 else gradient * NAN

    model.weight.register_hook(ruin)
    with pytest.raises(UserError, match='After iteration 3 .epoch 1. 1 weights'):
        scripted_runner(tmp_path, model).train()
    assert saved(tmp_path) == [1, 2]


AVERAGE = dict(type='EMAHook', momentum=0.5)
LOOPS = [
    dict(type='lm4ve.EpochLoop', max_epochs=3),
    dict(type='lm4ve.IterLoop', max_iters=9, val_interval=3),
]


@pytest.mark.parametrize('loop', LOOPS, ids=lambda loop: loop['type'])
def test_average_that_took_a_bad_step_is_neither_evaluated_nor_saved(loop, tmp_path):
    losses = [1.0] * 4 + [NAN] + [1.0] * 4
    model = Scripted(losses, poisons=True)
    validated = []

    class Watch(Hook):
        def before_val_epoch(self, runner) -> None:
            validated.append(runner.iter)

    runner = scripted_runner(
        tmp_path,
        model,
        epochs=3,
        save=4,
        train_cfg=dict(loop),
        custom_hooks=[AVERAGE, Watch()],
        **validation(),
    )
    with pytest.raises(UserError, match='iteration 5 .* is nan'):
        runner.train()
    assert saved(tmp_path) == [4]
    assert validated == [3]
    state = torch.load(tmp_path / 'iter_4.pth', weights_only=False)
    for key in ('state_dict', 'ema_state_dict'):
        for name, value in state[key].items():
            assert torch.isfinite(value).all(), name


def test_a_saved_average_equals_that_of_a_training_that_ended_there(tmp_path):
    states = []
    for folder, losses in (
        ('whole', [1.0] * 6),
        ('bad', [1.0] * 6 + [NAN] * 3),
    ):
        model = Scripted(losses, poisons=True)
        runner = scripted_runner(
            tmp_path / folder, model, save=3, custom_hooks=[AVERAGE]
        )
        try:
            runner.train()
        except UserError:
            assert folder == 'bad'
        path = tmp_path / folder / 'iter_6.pth'
        states.append(torch.load(path, weights_only=False)['ema_state_dict'])
    torch.testing.assert_close(states[1], states[0], rtol=0, atol=0)


def test_a_resumed_training_stops_at_the_same_iteration(tmp_path):
    losses = [1.0] * 5 + [NAN] + [1.0] * 2
    with pytest.raises(UserError, match='iteration 6 .epoch 2.'):
        scripted_runner(tmp_path, Scripted(losses), 2, save=3).train()
    assert saved(tmp_path) == [3]
    again = scripted_runner(tmp_path, Scripted(losses), 2, save=3, resume=True)
    with pytest.raises(UserError, match='iteration 6 .epoch 2.'):
        again.train()
    repaired = [1.0] * 8
    better = scripted_runner(tmp_path, Scripted(repaired), 2, save=3, resume=True)
    better.train()
    assert saved(tmp_path) == [3, 6, 8]


def test_a_save_between_two_reads_is_refused(tmp_path):
    class Saves(Hook):
        priority = 'LOWEST'

        def after_train_iter(self, runner, *args, **kwargs) -> None:
            runner.save_checkpoint(str(tmp_path), f'mine_{runner.iter + 1}.pth')

    model = Scripted([1.0, NAN, 1.0, 1.0])
    runner = scripted_runner(tmp_path, model, save=100, custom_hooks=[Saves()])
    with pytest.raises(UserError, match='iteration 2 .epoch 1. is nan'):
        runner.train()
    assert [path.name for path in tmp_path.glob('*.pth')] == ['mine_1.pth']


def test_an_error_after_a_bad_loss_is_explained_by_it(tmp_path):
    model = Scripted([1.0, NAN, 1.0, 1.0], poisons=True, fails=True)
    with pytest.raises(UserError, match='iteration 2 .epoch 1. is nan') as caught:
        scripted_runner(tmp_path, model, save=100).train()
    assert isinstance(caught.value.__context__, ValueError)


def test_processes_stop_together_where_one_has_a_bad_loss(tmp_path):
    for stdout in outputs_of_two('losses_in_processes.py', tmp_path):
        assert 'loss (rank 1), loss_scripted (rank 1) of iteration 3' in stdout, stdout
    assert not saved(tmp_path / 'work')


def test_a_signal_saves_no_bad_loss_of_another_process(tmp_path):
    for stdout in outputs_of_two('stopped_losses_in_processes.py', tmp_path):
        assert 'loss_scripted (rank 1) of iteration 3' in stdout, stdout
    assert not saved(tmp_path / 'work')
