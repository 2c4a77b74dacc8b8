"""A run that is cut and resumed ends with the very weights of a run that is not."""

import logging
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from lm4ve.errors import UserError
from lm4ve.runner.command_line import build_runner
from lm4ve.runner.console import FOREIGN
from tests.helpers.runner import accumulating as accumulating  # registers its hooks
from tests.helpers.runner.random_run import EPOCHS, READ, STEPS, Killed, config
from tools.dev.check_resume import is_same, state_of

# A training that was resumed gives the same bits as one that was not.
pytestmark = pytest.mark.bitwise


def train(work_dir: Path, **kwargs):
    """Train; return the runner after it, killed or not."""
    runner = build_runner(config(work_dir, **kwargs))
    if kwargs.get('kill'):
        with pytest.raises(Killed):
            runner.train()
    else:
        runner.train()
    return runner


def cut_and_resume(folder: Path, kill=8, **options) -> None:
    """Train 'whole', and 'cut', which saves more often and goes on after a kill."""
    train(folder / 'whole', interval=STEPS, **options)
    train(folder / 'cut', kill=kill, **options)
    READ.clear()
    train(folder / 'cut', resume=True, **options)


def assert_equal_runs(folder: Path, steps=STEPS * EPOCHS) -> dict:
    """Compare weights, average, optimizer and schedule at the end of 'cut' and 'whole'."""
    cut = state_of(folder / f'cut/iter_{steps}.pth')
    whole = state_of(folder / f'whole/iter_{steps}.pth')
    assert is_same(cut, whole)
    return cut


# At the 3rd and the 5th (last) step of an epoch, and after each of several steps.
KILLS = [((8,), 2, 0), ((6, 11), 5, 0), ((1, 4, 7, 10), 1, 0), ((9,), 3, 1)]


@pytest.mark.parametrize('kills, interval, workers', KILLS)
def test_interrupted_run_equals_uninterrupted_run(tmp_path, kills, interval, workers):
    train(tmp_path / 'whole', interval=STEPS)
    for i, kill in enumerate(kills):
        train(
            tmp_path / 'cut',
            kill=kill,
            interval=interval,
            workers=workers,
            resume=i > 0,
        )
    runner = train(tmp_path / 'cut', interval=interval, workers=workers, resume=True)
    assert runner.iter == STEPS * EPOCHS
    assert_equal_runs(tmp_path)


def test_config_with_hooks_of_mmengine_alone_resumes_bit_equal(tmp_path):
    checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=STEPS)
    cut_and_resume(tmp_path, kill=13, default_hooks=dict(checkpoint=checkpoint))
    assert_equal_runs(tmp_path)
    for path in tmp_path.rglob('*.pth'):
        torch.load(path, weights_only=True)


def test_resume_skips_trained_batches_unread(tmp_path):
    train(tmp_path, kill=8, interval=1)
    READ.clear()
    train(tmp_path, resume=True)
    # 2 of 5 steps of the second epoch, and the third.
    assert len(READ) == 4 * (2 + STEPS) - 1 - 1


SAMPLERS = [('DefaultSampler', 0), ('InfiniteSampler', 0), ('InfiniteSampler', 1)]


@pytest.mark.parametrize('sampler, workers', SAMPLERS)
def test_iteration_loop_resumes_bit_equal(tmp_path, sampler, workers):
    loop = dict(by_epoch=False, max_iters=13)
    cut_and_resume(tmp_path, workers=workers, sampler=sampler, loop=loop)
    assert len(READ) <= 4 * 5
    assert_equal_runs(tmp_path, 13)


@pytest.mark.parametrize('differs', [False, True])
def test_resume_restores_random_seed_and_sample_order(differs, tmp_path):
    randomness = dict(seed=None, diff_rank_seed=differs)
    whole = train(tmp_path, interval=1, randomness=randomness)
    order = READ[-4 * STEPS * EPOCHS :]
    last = STEPS * EPOCHS
    (tmp_path / f'iter_{last}.pth').unlink()
    READ.clear()
    cfg = config(tmp_path / 'again', randomness=randomness, resume=True)
    cfg.load_from = str(tmp_path / f'iter_{last - 2}.pth')
    again = build_runner(cfg)
    again.train()
    assert READ == order[-len(READ) :]
    assert is_same(dict(whole.model.state_dict()), dict(again.model.state_dict()))


def warnings_of(cfg: Config) -> list[str]:
    """Train a config as the command does; return the warnings of its console."""
    cfg.log_level = 'WARNING'
    runner = build_runner(cfg, short_console=True)
    warnings = []

    def keep(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if record.levelname == 'WARNING' and not re.search(FOREIGN, text):
            warnings.append(text)
        return True

    runner.logger.addFilter(keep)
    runner.train()
    return warnings


@pytest.mark.parametrize(
    'field, by_epoch', [('max_epochs', True), ('max_iters', False)]
)
def test_resuming_finished_run_warns(tmp_path, field, by_epoch):
    length = 1 if by_epoch else STEPS
    loop = {'by_epoch': by_epoch, field: length}
    assert not warnings_of(config(tmp_path, loop=loop, interval=STEPS))
    warning, *_ = warnings_of(config(tmp_path, loop=loop, interval=STEPS, resume=True))
    assert 'Nothing is left to train' in warning
    assert f'larger train_cfg.{field}' in warning


def test_ignored_new_schedule_warns(tmp_path):
    """MMEngine takes the checkpoint's, so that the rate stays where it ended."""
    train(tmp_path, loop=dict(by_epoch=True, max_epochs=1), interval=STEPS)
    cfg = config(tmp_path, interval=STEPS, resume=True)
    cfg.param_scheduler[1].T_max = 9
    (warning,) = warnings_of(cfg)
    assert "T_max=9 does not apply: the checkpoint's schedule has 3" in warning


@pytest.mark.parametrize('has_schedule', [True, False])
@pytest.mark.parametrize('key, value', [('lr', 4e-2), ('weight_decay', 0.3)])
def test_another_rate_than_the_checkpoints_is_refused(
    key, value, has_schedule, tmp_path
):
    """MMEngine goes on with the checkpoint's, and ignores that of the config."""
    changes = {} if has_schedule else dict(param_scheduler=None)
    train(tmp_path, kill=3, interval=1, **changes)
    cfg = config(tmp_path, resume=True, **changes)
    cfg.optim_wrapper.optimizer[key] = value
    with pytest.raises(UserError, match=f'{key} is {value}, .* had 0.01.* Fix: that'):
        build_runner(cfg).train()


def test_another_optimizer_than_the_checkpoints_is_refused(tmp_path):
    """Its state has other values, and a step would end in a KeyError."""
    train(tmp_path, kill=3, interval=1)
    cfg = config(tmp_path, resume=True)
    cfg.optim_wrapper.optimizer = dict(type='SGD', lr=1e-2, momentum=0.9)
    with pytest.raises(
        UserError,
        match="iter_3.pth' has .*optimizer AdamW, .* has SGD. Fix: .*=AdamW; or",
    ):
        build_runner(cfg).train()


def test_scaled_rate_is_refused_where_the_checkpoint_was_not_scaled(tmp_path):
    scaling = dict(enable=True, base_batch_size=4)
    train(tmp_path, kill=3, interval=1, auto_scale_lr=scaling)
    cfg = config(tmp_path, auto_scale_lr=scaling, resume=True, kill=4)
    with pytest.raises(Killed):  # as before
        build_runner(cfg).train()
    cfg.auto_scale_lr.base_batch_size = 1
    with pytest.raises(
        UserError, match='lr is 0.04, scaled by --auto-scale-lr, .* had 0.01'
    ):
        build_runner(cfg).train()


def test_training_beyond_a_schedule_is_refused(tmp_path):
    cycle = dict(
        type='OneCycleLR', eta_max=1e-3, total_steps=1, convert_to_iter_based=True
    )
    with pytest.raises(UserError, match='total_steps=5 must be at least 15'):
        train(tmp_path, interval=STEPS, param_scheduler=cycle)


#: Updates of three iterations, and one of two at the end of an epoch of five.
OF_THREE = dict(optimizer=dict(type='AdamW', lr=1e-2), accumulative_counts=3)


def saved_at(folder: Path) -> list[int]:
    """Return after which iterations the checkpoints of a folder were written."""
    return sorted(int(path.stem.removeprefix('iter_')) for path in folder.glob('*.pth'))


@pytest.mark.parametrize('runner_type', ['Runner', 'FlexibleRunner'])
@pytest.mark.parametrize('hook', ['lm4ve.AtomicCheckpointHook', 'CheckpointHook'])
def test_checkpoints_are_written_at_the_end_of_an_update(hook, runner_type, tmp_path):
    """An interval that ends within one is saved at its end."""
    saving = dict(checkpoint=dict(type=hook, by_epoch=False, interval=4))
    options = dict(optim_wrapper=OF_THREE, default_hooks=saving)
    if runner_type == 'FlexibleRunner':
        strategy = dict(type='SingleDeviceStrategy')
        options.update(runner_type=runner_type, strategy=strategy, env_cfg=dict())
    cut_and_resume(tmp_path, kill=12, **options)
    assert saved_at(tmp_path / 'cut') == [5, 8, 13, 15]
    for path in (tmp_path / 'cut').glob('*.pth'):
        assert 'lm4ve_gradients' not in torch.load(path, weights_only=True)
    assert_equal_runs(tmp_path)


def test_file_with_the_gradients_of_an_update_resumes_bit_equal(tmp_path):
    """As earlier versions wrote it."""
    average = dict(type='EMAHook', momentum=0.1)
    old = dict(type='SaveWithinUpdateHook', after=7)
    options = dict(interval=STEPS, optim_wrapper=OF_THREE)
    train(tmp_path / 'whole', **options)
    train(tmp_path / 'cut', kill=7, hooks=[average, old], **options)
    content = torch.load(tmp_path / 'cut/iter_7.pth', weights_only=True)
    assert content['lm4ve_gradients']
    train(tmp_path / 'cut', resume=True, **options)
    assert_equal_runs(tmp_path)


def test_resume_after_a_short_update_does_not_warn(tmp_path):
    cfg = config(tmp_path, interval=STEPS, optim_wrapper=OF_THREE, kill=6)
    with pytest.raises(Killed):
        build_runner(cfg).train()
    again = config(tmp_path, interval=STEPS, optim_wrapper=OF_THREE, resume=True)
    assert not [text for text in warnings_of(again) if 'is lost' in text]


@pytest.mark.parametrize('hook', [None, 'EMAHook', 'lm4ve.KeptEMAHook'])
def test_flexible_runner_resumes_bit_equal(tmp_path, hook):
    """With an average too, which MMEngine's hook makes after this runner has loaded."""
    hooks = []
    if hook is not None:
        hooks.append(dict(type=hook, momentum=0.1))
    cut_and_resume(
        tmp_path,
        runner_type='FlexibleRunner',
        strategy=dict(type='SingleDeviceStrategy'),
        env_cfg=dict(),
        hooks=hooks,
    )
    state = assert_equal_runs(tmp_path)
    has_average = hook is not None
    assert ('ema_state_dict' in state) == has_average
