"""--epochs, --lr and --batch-size change a recipe as a whole."""

import pytest
import torch
from mmengine.config import Config

from lm4ve.commands.flags import parser_of
from lm4ve.commands.train import configure_training
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


@pytest.mark.parametrize('epochs', [1, 13])
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
        for key in ('end', 'total_steps', 'T_max'):
            if key in schedule:
                found.append(schedule[key] - schedule.get('skipped', 0))
                break
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
    runner = build_runner(configure_training(args))
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
