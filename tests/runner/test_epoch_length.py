"""A run that is resumed with epochs of another length trains all data of its epochs."""

import logging
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.runner import Runner

from lm4ve.runner.command_line import build_runner
from tests.helpers.runner import accumulating
from tests.helpers.runner.random_run import READ, Killed, config

SAMPLES = list(range(19))


@MODELS.register_module()
class Plane(BaseModel):
    """A linear layer, which takes batches of one sample too."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def forward(self, inputs, mode='tensor'):
        return dict(loss=self.layer(torch.stack(list(inputs))).square().mean())


def make(work_dir: Path, batch: int, epochs: int, **changes) -> Config:
    """Return the config of a training that saves after each epoch."""
    loop = dict(by_epoch=True, max_epochs=epochs)
    cfg = config(work_dir, loop=loop, model=dict(type='Plane'), **changes)
    cfg.param_scheduler.pop()
    cfg.default_hooks.checkpoint.update(interval=1, by_epoch=True)
    cfg.train_dataloader.batch_size = batch
    return cfg


def save_each_iteration(cfg: Config) -> Config:
    cfg.default_hooks.checkpoint.by_epoch = False
    return cfg


def train(cfg: Config) -> tuple[Runner, list[str]]:
    """Train, with an empty list of read samples; return the warnings of epochs too."""
    READ.clear()
    cfg.log_level = 'WARNING'
    runner = build_runner(cfg)
    warnings = []

    def keep(record: logging.LogRecord) -> bool:
        if 'epochs have' in record.getMessage():
            warnings.append(record.getMessage())
        return True

    runner.logger.addFilter(keep)
    if cfg.custom_hooks[-1].get('after'):
        with pytest.raises(Killed):
            runner.train()
    else:
        runner.train()
    return runner, warnings


def resumed(cfg: Config, checkpoint: Path) -> Config:
    cfg.resume = True
    cfg.load_from = str(checkpoint)
    return cfg


def forget_length(checkpoint: Path) -> None:
    """Make a checkpoint one that an earlier version has written."""
    content = torch.load(checkpoint, weights_only=True)
    del content['meta']['epoch_length']
    torch.save(content, checkpoint)


@pytest.mark.parametrize('is_old', [False, True])
@pytest.mark.parametrize('before, after', [(2, 4), (4, 2), (4, 5)])
def test_epochs_after_a_change_train_all_samples(before, after, is_old, tmp_path):
    train(make(tmp_path / 'before', before, epochs=1))
    checkpoint = tmp_path / 'before/epoch_1.pth'
    if is_old:
        forget_length(checkpoint)
    cfg = resumed(make(tmp_path / 'after', after, epochs=3), checkpoint)
    runner, (warning,) = train(cfg)
    assert sorted(READ) == sorted(2 * SAMPLES)
    length = -(-19 // after)
    assert runner.iter == runner.max_iters == 3 * length
    assert f'epochs have {length} iterations, and had {-(-19 // before)} in' in warning
    assert 'anew' not in warning


def test_epoch_that_was_begun_begins_anew_and_goes_on_from_there(tmp_path):
    train(save_each_iteration(make(tmp_path, batch=2, epochs=2, kill=14)))
    cfg = make(tmp_path, batch=4, epochs=2, kill=9)
    _, (warning,) = train(resumed(save_each_iteration(cfg), tmp_path / 'iter_13.pth'))
    assert 'Epoch 2 begins anew, with samples that it has trained on' in warning
    assert 'iteration 5 now' in warning
    seen = READ[: 4 * 3]
    # Eight iterations of the present length are one epoch and three of its second.
    cfg = make(tmp_path, batch=4, epochs=2)
    runner, warnings = train(resumed(cfg, tmp_path / 'iter_8.pth'))
    assert not warnings
    assert sorted(seen + READ) == SAMPLES
    assert runner.iter == 10


def test_epoch_whose_last_iteration_was_saved_is_not_trained_again(tmp_path):
    train(save_each_iteration(make(tmp_path, batch=2, epochs=2, kill=11)))
    cfg = resumed(make(tmp_path, batch=4, epochs=2), tmp_path / 'iter_10.pth')
    runner, (warning,) = train(cfg)
    assert sorted(READ) == SAMPLES
    assert 'anew' not in warning


def test_checkpoint_without_a_length_counts_by_the_present_one(tmp_path):
    train(save_each_iteration(make(tmp_path, batch=4, epochs=2, kill=9)))
    seen = READ[4 * 5 - 1 :][: 4 * 3]
    forget_length(tmp_path / 'iter_8.pth')
    cfg = resumed(make(tmp_path, batch=4, epochs=2), tmp_path / 'iter_8.pth')
    _, warnings = train(cfg)
    assert not warnings
    assert sorted(seen + READ) == SAMPLES
    # Of the second epoch there cannot be 8 iterations of 3.
    cfg = resumed(make(tmp_path / 'other', batch=8, epochs=2), tmp_path / 'iter_8.pth')
    _, (warning,) = train(cfg)
    assert 'had others' in warning
    assert 'Epoch 2 begins anew' in warning
    assert sorted(READ) == SAMPLES


def test_stock_mmengine_resumes_a_file_with_a_length(tmp_path):
    train(make(tmp_path, batch=4, epochs=1))
    cfg = resumed(make(tmp_path, batch=4, epochs=2), tmp_path / 'epoch_1.pth')
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 10


@pytest.mark.parametrize('epochs', [1, 6])
def test_updates_fit_epochs_after_a_change(epochs, tmp_path):
    """Where gradients of 4 batches are added up, then of 2 of the same recipe."""
    cfg = accumulating.config(2, recipe=8, work_dir=tmp_path / 'before')
    cfg.train_cfg.max_epochs = epochs
    accumulating.train(cfg)
    cfg = accumulating.config(4, recipe=8, work_dir=tmp_path / 'after')
    cfg.train_cfg.max_epochs = 8
    resumed(cfg, tmp_path / f'before/epoch_{epochs}.pth')
    trained = accumulating.train(cfg)
    assert trained.updates == accumulating.BATCHES * (8 - epochs)
    assert trained.runner.iter == trained.runner.max_iters


def test_gradients_of_an_epoch_that_begins_anew_are_left_out(tmp_path):
    cfg = accumulating.config(2, recipe=8, work_dir=tmp_path / 'before')
    cfg.custom_hooks.append(dict(type='SaveWithinUpdateHook', after=18))
    cfg.custom_hooks.append(dict(type='KillHook', after=18))
    train(cfg)
    checkpoint = tmp_path / 'before/iter_18.pth'
    assert torch.load(checkpoint, weights_only=True)['lm4ve_gradients']
    weights = []
    for is_without in (False, True):
        content = torch.load(checkpoint, weights_only=True)
        if is_without:
            del content['lm4ve_gradients']
        torch.save(content, tmp_path / 'iter_18.pth')
        cfg = accumulating.config(4, recipe=8, work_dir=tmp_path / str(is_without))
        trained = accumulating.train(resumed(cfg, tmp_path / 'iter_18.pth'))
        weights.append(accumulating.weights_of(trained.runner.model))
    assert torch.equal(*weights)
