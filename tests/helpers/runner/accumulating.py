"""A small training in float64, whose updates add up the gradients of several iterations."""

import os
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook, Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, MODELS

from lm4ve.runner.ending.hook import save_iteration
from lm4ve.runner.runner import build_runner

#: How many batches of eight samples an epoch has.
BATCHES = 4
EPOCHS = 2


@DATASETS.register_module()
class Numbers(torch.utils.data.Dataset):
    """Points of a curve."""

    metainfo = dict(classes=('a',))

    def __len__(self):
        return 8 * BATCHES

    def __getitem__(self, i):
        return dict(inputs=torch.full((1,), i / 8.0, dtype=torch.float64))


@MODELS.register_module()
class Curve(BaseModel):
    """Two layers that learn a sine."""

    def __init__(self):
        super().__init__()
        layers = [torch.nn.Linear(1, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)]
        self.net = torch.nn.Sequential(*layers).double()

    def forward(self, inputs, mode='tensor'):
        points = torch.stack(list(inputs))
        return dict(loss=(self.net(points) - points.sin()).square().mean())


@HOOKS.register_module()
class WatchHook(Hook):
    """Note each loss, and count how often the weights change."""

    def __init__(self):
        self.losses = []
        self.updates = 0
        self._weights = None

    def before_train(self, runner):
        self._weights = weights_of(runner.model)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(float(outputs['loss'].detach()))
        weights = weights_of(runner.model)
        if not torch.equal(weights, self._weights):
            self.updates += 1
        self._weights = weights


@HOOKS.register_module()
class SaveWithinUpdateHook(Hook):
    """Save once within an update, with the gradients so far, as earlier versions did.

    Args:
        after (int): After which iteration.
    """

    priority = 'LOWEST'

    def __init__(self, after: int) -> None:
        self.after = after

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.after:
            save_iteration(runner, self.after)

    def before_save_checkpoint(self, runner, checkpoint):
        if checkpoint['meta']['iter'] == self.after:
            gradients = {}
            for name, parameter in runner.model.named_parameters():
                gradients[name] = parameter.grad
            checkpoint['lm4ve_gradients'] = gradients


class Trained:
    """What is left of a training."""

    def __init__(self, runner):
        self.runner = runner
        (watch,) = [hook for hook in runner.hooks if isinstance(hook, WatchHook)]
        self.losses = watch.losses
        self.updates = watch.updates

    def states(self) -> list[torch.Tensor]:
        """Return the weights and their average."""
        (average,) = [hook for hook in self.runner.hooks if isinstance(hook, EMAHook)]
        return [weights_of(self.runner.model), weights_of(average.ema_model.module)]


def weights_of(model: torch.nn.Module) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def config(
    batch: int, recipe: int, optimizer: str = 'AdamW', work_dir: Path | str = 'none'
) -> Config:
    """Return a config whose updates add up to a batch.

    Args:
        batch (int): Samples of an iteration.
        recipe (int): Samples of an update.
        optimizer (str): Its type.
        work_dir (Path | str): Of the run.
    """
    sampler = dict(type='DefaultSampler', shuffle=True)
    loader = dict(batch_size=batch, num_workers=0, sampler=sampler)
    return Config(
        dict(
            model=dict(type='Curve'),
            work_dir=str(work_dir),
            train_dataloader=dict(loader, dataset=dict(type='Numbers')),
            train_cfg=dict(by_epoch=True, max_epochs=EPOCHS),
            optim_wrapper=dict(
                type='OptimWrapper',
                optimizer=dict(type=optimizer, lr=1e-2),
                accumulative_counts='auto',
            ),
            auto_scale_lr=dict(base_batch_size=recipe),
            default_hooks=dict(
                checkpoint=dict(type='lm4ve.AtomicCheckpointHook', interval=1)
            ),
            custom_hooks=[dict(type='EMAHook', momentum=0.1), dict(type='WatchHook')],
            randomness=dict(seed=0),
            experiment_name=f'accumulating-{os.urandom(6).hex()}',
        )
    )


def train(cfg: Config) -> Trained:
    runner = build_runner(cfg)
    runner.train()
    return Trained(runner)
