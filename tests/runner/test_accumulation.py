"""Gradients of several iterations make one update, of the batch that a recipe names."""

import pytest
import torch
from mmengine.runner import Runner

from lm4ve.cost import length_of_training
from lm4ve.dry_run.plan import Plan
from lm4ve.dry_run.schedule import check_schedule
from lm4ve.dry_run.steps import check_steps
from lm4ve.errors import UserError
from lm4ve.runner.accumulation import check_batch, iterations_of_update
from lm4ve.runner.config import check_config
from lm4ve.runner.runner import build_runner
from tests.helpers.runner.accumulating import BATCHES, Curve, config, train

FIELD = 'optim_wrapper.accumulative_counts'


@pytest.mark.parametrize(
    ('batch', 'processes', 'expected'),
    [(128, 1, 4), (128, 4, 1), (32, 1, 16), (32, 4, 4), (64, 8, 1), (512, 1, 1)],
)
def test_recipes_batch_is_made_up_of_iterations(batch, processes, expected):
    cfg = config(batch=batch, recipe=512)
    check_batch(cfg, processes)
    assert iterations_of_update(cfg, processes) == expected
    assert length_of_training(cfg, processes, samples=8).steps_of_update == expected


@pytest.mark.parametrize(
    ('batch', 'processes', 'fix'),
    [
        (128, 3, 'another number of processes'),
        (100, 1, 'train_dataloader.batch_size=64'),
        (128, 8, 'train_dataloader.batch_size=64'),
    ],
)
def test_batch_that_does_not_divide_the_recipes_is_refused(batch, processes, fix):
    cfg = config(batch=batch, recipe=512)
    with pytest.raises(
        UserError, match=f'{FIELD}.*{processes} x {batch}.*512'
    ) as error:
        check_batch(cfg, processes)
    assert fix in str(error.value)
    assert '\n' not in str(error.value)
    # The learning rate may follow the batch instead.
    cfg.auto_scale_lr.enable = True
    check_batch(cfg, processes)
    assert iterations_of_update(cfg, processes) == 1


def test_training_is_refused_before_its_data_are_built(tmp_path):
    cfg = config(batch=3, recipe=8, work_dir=tmp_path)
    cfg.train_dataloader.dataset = dict(type='NoSuchData')
    with pytest.raises(UserError, match='3 samples'):
        train(cfg)


def test_recipe_has_to_name_its_batch():
    cfg = config(batch=2, recipe=8)
    cfg.auto_scale_lr = None
    with pytest.raises(UserError, match='auto_scale_lr=dict'):
        check_batch(cfg, 1)


def test_other_words_and_runners_are_refused(tmp_path):
    check_config(config(batch=2, recipe=8))
    cfg = config(batch=2, recipe=8)
    cfg.optim_wrapper.accumulative_counts = 'many'
    with pytest.raises(UserError, match=f"{FIELD}='many' must be a number"):
        check_config(cfg)
    cfg = config(batch=2, recipe=8, work_dir=tmp_path)
    cfg.runner_type = 'FlexibleRunner'
    with pytest.raises(UserError, match=f'{FIELD}=auto: runner_type'):
        train(cfg)


@pytest.mark.parametrize('optimizer', ['SGD', 'AdamW'])
def test_small_batches_train_as_a_large_one(optimizer, tmp_path):
    """Weights, losses and the average of weights are those of the recipe's batch."""
    large = train(config(8, recipe=8, optimizer=optimizer, work_dir=tmp_path / 'large'))
    small = train(config(2, recipe=8, optimizer=optimizer, work_dir=tmp_path / 'small'))
    assert large.updates == small.updates == 2 * BATCHES
    assert len(small.losses) == 4 * len(large.losses)
    for of_large, of_small in zip(large.states(), small.states(), strict=True):
        torch.testing.assert_close(of_small, of_large)
    means = torch.tensor(small.losses).view(-1, 4).mean(dim=1)
    torch.testing.assert_close(means, torch.tensor(large.losses))
    assert len(set(large.losses)) == len(large.losses)  # it did train


def test_an_epoch_ends_with_an_update(tmp_path):
    """A checkpoint between two updates would lack the gradients of other processes."""
    cfg = config(2, recipe=6, work_dir=tmp_path)
    trained = train(cfg)
    # Sixteen batches an epoch are five updates of three batches and one of one.
    assert trained.updates == 2 * 6
    for file in tmp_path.glob('epoch_*.pth'):
        saved = torch.load(file, weights_only=True)
        assert not saved.get('lm4ve_gradients')


def test_a_model_that_skips_a_gradient_trains_no_longer(tmp_path, monkeypatch):
    """Its last update has too few iterations to end."""
    step = Curve.train_step
    iterations = []

    def skip_first(model, data, optim_wrapper):
        iterations.append(len(iterations))
        if len(iterations) > 1:
            return step(model, data, optim_wrapper)
        return dict(loss=torch.zeros(()))

    monkeypatch.setattr(Curve, 'train_step', skip_first)
    cfg = config(2, recipe=6, work_dir=tmp_path)
    cfg.train_cfg = dict(by_epoch=False, max_iters=6)
    train(cfg)
    assert len(iterations) == 6


def test_the_number_is_logged(tmp_path):
    train(config(2, recipe=8, work_dir=tmp_path))
    (log,) = tmp_path.glob('*/*.log')
    assert 'an update adds up 4 iterations: 8 samples' in log.read_text()


def test_console_says_before_the_training_when_checkpoints_are_written(
    tmp_path, capsys
):
    build_runner(config(2, recipe=8, work_dir=tmp_path), short_console=True).train()
    start, _, _ = capsys.readouterr().out.partition('epoch 1/2')
    assert 'update       adds up 4 iterations: 8 samples\n' in start
    assert 'A checkpoint is written at its end, also at a signal; if the kill' in start


def test_dry_run_measures_the_checkpoint_of_an_update(tmp_path):
    """In its two steps nothing would be updated, and the optimizer have no state yet."""
    sizes = []
    for recipe in (2, 8):
        cfg = config(2, recipe, work_dir=tmp_path / str(recipe))
        plan = Plan(configure=cfg.copy, folder=tmp_path / 'folder', cfg=cfg)
        plan.loaders = dict(train=Runner.build_dataloader(cfg.train_dataloader, seed=0))
        check_steps(plan)
        sizes.append(plan.checkpoint_bytes)
    assert sizes[1] == pytest.approx(sizes[0], rel=0.01)


def test_dry_run_says_what_an_update_is(tmp_path):
    cfg = config(2, recipe=8)
    plan = Plan(configure=cfg.copy, folder=tmp_path, cfg=cfg)
    assert check_schedule(plan).text.endswith(
        '; an update adds up 4 iterations: 8 samples'
    )
    cfg.train_dataloader.batch_size = 3
    with pytest.raises(UserError, match='1 x 3 samples'):
        check_schedule(plan)
