"""--epochs, --lr and --batch-size change a recipe as a whole."""

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger

from lm4ve.commands.flags import parser_of
from lm4ve.commands.train import training_config
from lm4ve.errors import UserError
from lm4ve.runner.config.lengths import set_batch_size, set_epochs, set_rate
from lm4ve.runner.config.reading import read_config
from lm4ve.runner.runner import build_runner
from tests.helpers.tasks import FOLDERS, ROOT, configs_of


def training(epochs: int, *schedules: dict, rate: float = 1e-3) -> Config:
    return Config(
        dict(
            train_cfg=dict(max_epochs=epochs, val_interval=10),
            optim_wrapper=dict(optimizer=dict(type='AdamW', lr=rate)),
            param_scheduler=list(schedules),
            train_dataloader=dict(batch_size=8),
        )
    )


def warm_cosine() -> Config:
    cosine = dict(type='CosineAnnealingLR', begin=20, end=300, T_max=280, eta_min=1e-5)
    return training(300, dict(type='LinearLR', begin=0, end=20), cosine)


def test_schedules_move_in_proportion():
    cfg = warm_cosine()
    set_epochs(cfg, 30)
    warm, cosine = cfg.param_scheduler
    assert (warm.begin, warm.end) == (0, 2)
    assert (cosine.begin, cosine.end, cosine.T_max) == (2, 30, 28)
    assert cfg.train_cfg.max_epochs == 30


def test_a_schedule_without_an_end_still_meets_that_of_the_training():
    warm = dict(type='LinearLR', begin=0, end=10)
    cfg = training(300, warm, dict(type='CosineAnnealingLR', begin=10, T_max=290))
    set_epochs(cfg, 45)
    warm, cosine = cfg.param_scheduler
    assert (warm.end, cosine.begin, cosine.T_max) == (2, 2, 43)


def test_what_begins_later_than_the_training_moves_too():
    cfg = training(100)
    cfg.train_cfg.update(val_begin=50, dynamic_intervals=[(80, 1)])
    cfg.default_hooks = dict(checkpoint=dict(interval=20, save_begin=40))
    cfg.custom_hooks = [dict(type='EMAHook', begin_epoch=60)]
    set_epochs(cfg, 10)
    assert cfg.train_cfg.val_begin == 5
    assert cfg.train_cfg.dynamic_intervals == [(8, 1)]
    assert cfg.default_hooks.checkpoint == dict(interval=10, save_begin=4)
    assert cfg.custom_hooks[0].begin_epoch == 6


def lines_of(cfg: Config, epochs: int) -> list[str]:
    """Set the epochs of a config; return the lines that are logged."""
    logger = MMLogger.get_instance('lines_of_epochs')
    lines = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            logger, 'handle', lambda record: lines.append(record.getMessage())
        )
        set_epochs(cfg, epochs)
    return lines


def test_epochs_of_other_hooks_are_named():
    cfg = training(100)
    hook = dict(type='AskFirstHook', epochs=10)
    cfg.custom_hooks = [dict(hook), dict(type='Other', by_epoch=True)]
    lines = lines_of(cfg, 10)
    assert cfg.custom_hooks[0] == hook
    assert lines == [
        '--epochs does not change custom_hooks.0.epochs=10; --cfg-options does.'
    ]


def test_periods_and_steps_move():
    restarts = dict(type='CosineRestartLR', periods=[5, 5, 10], eta_min=0)
    cfg = training(20, restarts, dict(type='StepLR', step_size=4))
    set_epochs(cfg, 10)
    assert cfg.param_scheduler[0].periods == [2, 3, 5]
    assert cfg.param_scheduler[1].step_size == 2


def test_length_that_would_be_below_one_is_one_and_named():
    step = dict(type='StepLR', step_size=3, by_epoch=False)
    warm = dict(type='LinearLR', begin=0, end=20, by_epoch=False)
    cfg = training(300, step, warm, dict(type='StepLR', step_size=100))
    lines = lines_of(cfg, 3)
    assert [each.get('step_size') for each in cfg.param_scheduler] == [1, None, 1]
    assert cfg.param_scheduler[1].end == 1
    first, second = lines
    assert 'param_scheduler.0.step_size=3 iterations would be 0.03, and is 1.' in first
    assert 'param_scheduler.1.end=20 iterations would be 0.2, and is 1.' in second
    assert 'Fix: --cfg-options param_scheduler.1.end=N' in second


def test_a_warm_up_below_half_an_epoch_is_left_out():
    cfg = warm_cosine()
    set_epochs(cfg, 6)
    (cosine,) = cfg.param_scheduler
    assert (cosine.begin, cosine.end, cosine.T_max) == (0, 6, 6)
    assert cfg.train_cfg.val_interval == 6


def test_milestones_and_iterations_move():
    steps = dict(type='MultiStepLR', milestones=[10, 15, 20])
    warm = dict(type='LinearLR', begin=0, end=200, by_epoch=False)
    cfg = training(30, warm, steps)
    set_epochs(cfg, 60)
    assert cfg.param_scheduler[0].end == 400
    assert cfg.param_scheduler[1].milestones == [20, 30, 40]


def test_checkpoints_are_written_in_a_short_training():
    cfg = warm_cosine()
    cfg.default_hooks = dict(checkpoint=dict(interval=10))
    set_epochs(cfg, 4)
    assert cfg.default_hooks.checkpoint.interval == 4


def test_the_lowest_rate_moves_with_the_rate():
    cfg = warm_cosine()
    set_rate(cfg, 1e-4)
    assert cfg.optim_wrapper.optimizer.lr == 1e-4
    assert cfg.param_scheduler[1].eta_min == pytest.approx(1e-6)


@pytest.mark.parametrize(
    'schedule',
    [
        dict(type='CosineAnnealingMomentum', eta_min=0.85),
        dict(type='CosineAnnealingParamScheduler', param_name='betas', eta_min=0.85),
        dict(type='OneCycleParamScheduler', param_name='momentum', eta_max=0.95),
    ],
)
def test_a_momentum_is_no_rate(schedule):
    cfg = training(100, schedule)
    set_rate(cfg, 2e-3)
    assert cfg.param_scheduler == [schedule]
    assert cfg.optim_wrapper.optimizer.lr == 2e-3


def test_a_one_cycle_gets_the_rate_as_its_peak():
    cycle = dict(type='OneCycleLR', eta_max=3e-3, total_steps=100)
    cfg = training(100, cycle, rate=3e-3)
    set_rate(cfg, 1e-3)
    set_epochs(cfg, 7)
    assert cfg.param_scheduler[0].eta_max == cfg.optim_wrapper.optimizer.lr == 1e-3
    assert cfg.param_scheduler[0].total_steps == 7


def test_what_a_config_does_not_have_is_refused_in_one_line():
    iterations = warm_cosine()
    iterations.train_cfg = dict(max_iters=100)
    with pytest.raises(UserError, match='--epochs: .*max_iters=N'):
        set_epochs(iterations, 3)
    several = warm_cosine()
    several.optim_wrapper = dict(first=dict(optimizer=dict(lr=1)))
    with pytest.raises(UserError, match='--lr: .*several optimizers'):
        set_rate(several, 1e-3)
    with pytest.raises(UserError, match='--lr=0.0'):
        set_rate(warm_cosine(), 0.0)
    own_batches = warm_cosine()
    own_batches.train_dataloader = dict(batch_sampler=dict(type='Own'))
    with pytest.raises(UserError, match='--batch-size: .*batch_sampler'):
        set_batch_size(own_batches, 4)


@pytest.mark.parametrize('epochs', [1, 45])
@pytest.mark.parametrize('task', FOLDERS)
def test_every_recipe_ends_with_its_last_epoch(task, epochs):
    """Its schedules do as well: those that spanned the whole training still do."""
    for name in configs_of(task):
        cfg = read_config(FOLDERS[task] / name)
        if 'max_epochs' not in (cfg.get('train_cfg') or {}):
            continue
        ends_before = ends(cfg)
        length_before = cfg.train_cfg.max_epochs
        set_epochs(cfg, epochs)
        assert ends(cfg).count(epochs) >= ends_before.count(length_before)
        assert max(ends(cfg), default=0) <= epochs
        for schedule in list_of(cfg.param_scheduler):
            if 'end' in schedule:
                assert schedule.get('begin', 0) < schedule.end


def ends(cfg: Config) -> list[int]:
    """Return the epochs with which schedules end."""
    found = []
    for schedule in list_of(cfg.get('param_scheduler')):
        if not schedule.get('by_epoch', True):
            continue
        begin = schedule.get('begin', 0)
        if 'end' in schedule:
            found.append(schedule.end - schedule.get('skipped', 0))
        elif 'total_steps' in schedule:
            found.append(begin + schedule.total_steps)
        elif 'T_max' in schedule:
            found.append(begin + schedule.T_max)
    return found


def list_of(schedules) -> list:
    if schedules is None:
        return []
    if isinstance(schedules, dict):
        return [schedules]
    return schedules


def test_the_flags_train_so(tmp_path):
    """The rates of a real training of the digits' demo, step by step."""
    demo = ROOT / 'configs/lm4ve/vit-demo_minilm_digits.py'
    words = [demo, '--epochs', '2', '--lr', '1e-4', '--batch-size', '50']
    words += [
        '--work-dir',
        tmp_path,
        '--cfg-options',
        'train_dataloader.dataset.indices=200',
    ]
    args = parser_of('train').parse_args([str(word) for word in words])
    runner = build_runner(training_config(args))
    rates = []
    step = torch.optim.AdamW.step

    def record(optimizer, *args, **kwargs):
        rates.append(optimizer.param_groups[0]['lr'])
        return step(optimizer, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, 'step', record)
        runner.train()
    assert len(rates) == 2 * 4
    assert max(rates) == pytest.approx(1e-4, rel=0.2)
    assert rates[-1] < rates[0] < max(rates)
