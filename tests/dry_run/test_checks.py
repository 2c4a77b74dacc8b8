"""What single checks of a dry run compute."""

import math
import multiprocessing
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config

from lm4ve.dry_run.disk import check_disk, count_newest
from lm4ve.dry_run.duration import check_time
from lm4ve.dry_run.files import describe_odds
from lm4ve.dry_run.finding import Verdict, describe_failure
from lm4ve.dry_run.peak import find_explosion
from lm4ve.dry_run.plan import Plan
from lm4ve.dry_run.processes import check_processes
from lm4ve.dry_run.schedule import check_schedule, follow_rates
from lm4ve.dry_run.steps import FirstOfBatches, StepsHook, describe_losses
from lm4ve.errors import UserError


def config_with(schedules: list, epochs: int) -> Config:
    optimizer = dict(type='SGD', lr=0.1)
    return Config(
        dict(
            optim_wrapper=dict(optimizer=optimizer),
            param_scheduler=schedules,
            train_cfg=dict(by_epoch=True, max_epochs=epochs),
        )
    )


def cosine(length: int, begin: int = 0) -> dict:
    return dict(type='CosineAnnealingLR', T_max=length, begin=begin, by_epoch=True)


def warmup(end: int) -> dict:
    return dict(type='LinearLR', start_factor=0.01, end=end, by_epoch=True)


@pytest.mark.parametrize('epoch_length', [7, 5000])
def test_rates_follow_the_closed_form_of_a_cosine(epoch_length):
    cfg = config_with([cosine(10)], epochs=10)
    rates = follow_rates(cfg, 0.1, 10 * epoch_length, epoch_length)
    assert rates.first == rates.peak == 0.1
    # The last epoch has the rate after nine of ten.
    assert rates.last == pytest.approx(0.05 * (1 + math.cos(0.9 * math.pi)))


@pytest.mark.parametrize(
    ('schedules', 'epochs', 'problem'),
    [
        ([cosine(10)], 10, ''),
        ([warmup(2), cosine(8, begin=2)], 10, ''),
        ([cosine(100)], 10, 'still high at the end'),
        ([warmup(8), cosine(2, begin=8)], 10, 'warm-up takes more than half'),
        ([dict(type='MultiStepLR', milestones=[3])], 10, 'stays at its end'),
        ([], 10, ''),
    ],
)
def test_schedules_of_another_length_are_a_warning(schedules, epochs, problem):
    plan = Plan(lambda: None, None)
    plan.cfg = config_with(schedules, epochs)
    plan.loaders['train'] = range(50)
    plan.iterations = 50 * epochs
    finding = check_schedule(plan)
    assert problem in finding.text
    assert (finding.verdict is Verdict.WARNING) == bool(problem)


@pytest.mark.parametrize(
    ('lowest', 'is_raised'),
    [(dict(eta_min=1e-5), True), (dict(eta_min_ratio=0.1), False)],
)
def test_a_schedule_that_trains_what_is_kept_is_a_warning(lowest, is_raised):
    plan = Plan(lambda: None, None)
    plan.cfg = config_with([{**cosine(10), **lowest}], epochs=10)
    keys = {'backbone': dict(lr_mult=0.0), 'head': dict(lr_mult=0.1)}
    plan.cfg.optim_wrapper.paramwise_cfg = dict(custom_keys=keys)
    plan.loaders['train'] = range(50)
    plan.iterations = 500
    finding = check_schedule(plan)
    assert ("The rate of 'backbone' is 0 by lr_mult" in finding.text) == is_raised
    assert (finding.verdict is Verdict.WARNING) == is_raised


@pytest.mark.parametrize('opened', [10, 100, 3000])
def test_odds_are_those_of_independent_draws(opened):
    words = describe_odds(opened, 10**6)
    share = float(words.split()[2].rstrip('%')) / 100
    seen = 1 - (1 - share) ** opened
    assert seen == pytest.approx(0.95, abs=0.01)
    assert describe_odds(7, 7) == 'all of them'


@pytest.mark.parametrize(
    ('writer', 'newest'),
    [
        (dict(max_keep_ckpts=2), 3),
        (dict(max_keep_ckpts=1, save_best='acc'), 3),
        (dict(max_keep_ckpts=1, save_best=['acc', 'loss']), 4),
        (dict(), 2),
    ],
)
def test_one_checkpoint_more_than_are_kept_exists_at_once(writer, newest):
    assert count_newest(writer) == newest


@pytest.mark.parametrize(
    ('free', 'is_enough'),
    [(99, False), (100, True)],
)
def test_checkpoints_that_are_there_make_room_for_the_newest(
    tmp_path, monkeypatch, free, is_enough
):
    for name, size in (('epoch_1', 100), ('epoch_2', 100), ('best_acc_epoch_1', 100)):
        (tmp_path / f'{name}.pth').write_bytes(bytes(size))
    plan = Plan(lambda: None, None, iterations=10)
    writer = dict(max_keep_ckpts=2, save_best='acc')
    hooks = dict(checkpoint=writer)
    plan.cfg = Config(dict(work_dir=str(tmp_path), default_hooks=hooks))
    plan.checkpoint_bytes = 100
    usage = SimpleNamespace(free=free)
    monkeypatch.setattr('shutil.disk_usage', lambda path: usage)
    if is_enough:
        assert check_disk(plan).text.startswith('4 of 0.0 MB at once')
        return
    with pytest.raises(UserError, match='max_keep_ckpts'):
        check_disk(plan)


@pytest.mark.parametrize(
    ('workers', 'seconds', 'problem'),
    [
        # Of a batch of 60: 0.5 s to compute, 0.3 s to load.
        (0, 100 * 0.8, ''),
        (2, 100 * 0.5, ''),
        # Two workers that give 60 a second together need 1 s; four would do.
        (2, 100 * 1.0, '4 workers and cores would do'),
    ],
)
def test_the_time_is_that_of_the_timed_step_and_of_loading(workers, seconds, problem):
    plan = Plan(lambda: None, None, iterations=120, done=20, step_seconds=0.5)
    loader = dict(batch_size=60, num_workers=workers)
    plan.cfg = Config(dict(train_dataloader=loader))
    plan.samples_of_worker = 30.0
    plan.samples_per_second = 60.0 if problem else 200.0
    finding = check_time(plan)
    assert finding.text.startswith(
        f'0:0{seconds // 60:.0f}:{seconds % 60:02.0f} for 100'
    )
    assert problem in finding.text
    assert (finding.verdict is Verdict.WARNING) == bool(problem)


@pytest.mark.parametrize(
    ('first', 'at_peak', 'explodes'),
    [
        (2.3, [2.3, 22.0, 4.0], False),
        (2.3, [2.3, 24.0, 4.0], True),
        (2.3, [2.3, 2.3, math.nan], True),
        # A trained model begins with almost no loss.
        (0.01, [0.5, 9.0], False),
        (-30.0, [200.0], False),
    ],
)
def test_a_loss_explodes_that_is_ten_times_the_first_one(first, at_peak, explodes):
    losses = dict(loss=[first, 1000.0], loss_part=[0.0, 0.0])
    assert bool(find_explosion(losses, at_peak)) == explodes


def test_losses_of_other_names_are_noted_and_checked():
    hook = StepsHook()
    runner = SimpleNamespace(iter=0, max_iters=10)
    hook.after_train_iter(runner, 0, outputs=dict(loss_a=torch.ones(2), loss_b=2.0))
    assert describe_losses(hook.losses) == 'loss_a 1; loss_b 2'
    with pytest.raises(UserError, match='loss_b of step 2 is nan'):
        hook.after_train_iter(runner, 1, outputs=dict(loss_b=math.nan))


def test_a_checkpoint_of_unknown_size_is_a_warning(tmp_path):
    plan = Plan(lambda: None, None, iterations=10)
    hooks = dict(checkpoint=dict(interval=1))
    plan.cfg = Config(dict(work_dir=str(tmp_path), default_hooks=hooks))
    assert check_disk(plan).verdict is Verdict.WARNING
    plan.done = 10  # nothing is left to train
    assert check_disk(plan).verdict is Verdict.OK


def test_cut_batches_are_as_many_as_whole_ones():
    batches = SimpleNamespace(batch_size=4)
    whole = [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    cut = FirstOfBatches(whole)
    cut.cut_to(2)
    assert list(cut) == [[0, 1], [4, 5], [8]]
    assert len(cut) == len(whole)
    assert FirstOfBatches(batches).batch_size == 4


def test_an_error_of_a_loaders_worker_is_its_message():
    text = (
        'Caught UserError in worker.\nTraceback:\nlm4ve.errors.UserError: x.png is bad.'
    )
    assert describe_failure(UserError(text), None) == 'x.png is bad.'


DATA = dict(data_root='data/photos', ann_file='train.txt')


@pytest.mark.parametrize(
    ('path', 'field'),
    [
        ('data/photos/train', 'train_dataloader.dataset.data_root'),
        ('elsewhere/train.txt', 'train_dataloader.dataset.ann_file'),
    ],
)
@pytest.mark.parametrize('in_worker', [False, True])
def test_a_path_that_cannot_be_read_is_named_with_its_field(path, field, in_worker):
    error = FileNotFoundError(2, 'No such file or directory', path)
    if in_worker:
        error = FileNotFoundError(f'Caught it in a worker.\nFileNotFoundError: {error}')
    cfg = Config(dict(train_dataloader=dict(dataset=DATA)))
    assert describe_failure(error, cfg) == (
        f"{field}: '{path}': no such file or directory. Fix: put it there, or name "
        f'another place: --cfg-options {field}=PATH'
    )


def test_a_list_that_is_missing_in_a_folder_that_is_there_is_named(tmp_path):
    error = FileNotFoundError(2, 'No such file or directory', f'{tmp_path}/train.txt')
    dataset = dict(data_root=str(tmp_path), ann_file='train.txt')
    cfg = Config(dict(train_dataloader=dict(dataset=dataset)))
    said = describe_failure(error, cfg)
    assert said.startswith("train_dataloader.dataset.ann_file: '")


def test_a_path_of_no_field_and_any_other_error_are_a_line():
    error = FileNotFoundError(2, 'No such file or directory', 'x.txt')
    assert describe_failure(error, None).startswith("'x.txt': no such file")
    line = describe_failure(KeyError('a'), None)
    assert line.startswith("KeyError: 'a' (traceback: ")


def test_workers_start_as_in_the_training(monkeypatch, tmp_path):
    """MMEngine's own start of several processes, which selects a GPU, sets what is not set."""
    methods = []

    def init_dist(launcher, **options):
        methods.append(multiprocessing.get_start_method(allow_none=True))

    monkeypatch.setattr('lm4ve.dry_run.processes.init_dist', init_dist)
    for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS'):
        monkeypatch.setenv(name, '1')
    before = multiprocessing.get_start_method(allow_none=True)
    plan = Plan(lambda: None, tmp_path)
    plan.cfg = Config(dict(launcher='pytorch', env_cfg=dict(mp_cfg=dict())))
    try:
        multiprocessing.set_start_method(None, force=True)
        check_processes(plan)
    finally:
        multiprocessing.set_start_method(before, force=True)
    assert methods == ['fork']
