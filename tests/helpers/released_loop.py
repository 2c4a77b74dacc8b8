"""Trains by our loop what a released loop has trained (``tools/dev/released``), and compares."""

import argparse
import tomllib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from lm4ve.convert.key_rules import Rules
from lm4ve.runner.command_line import build_runner, finish_config
from tests.helpers.stored_results import our_names, text_of
from tests.helpers.tasks import ROOT
from tools.dev.released.loops import marks_of_changes
from tools.dev.released.seeding import seeded_weights


class ReleasedLoop:
    """A stored training.

    Args:
        stored (Mapping[str, np.ndarray]): Of a released loop.
        rules (Rules): How its tensors are renamed.

    Attributes:
        state (dict[str, Tensor]): The weights that it began with, by the released names.
        names (dict[str, str]): Released name of each tensor that it moved -> ours.
    """

    def __init__(self, stored: Mapping[str, np.ndarray], rules: Rules) -> None:
        self.stored = stored
        self.state = {}
        for name, values in seeded_weights(text_of(stored['shapes'])).items():
            self.state[name] = torch.from_numpy(values)
        # It is never loaded.
        self.state['llama.norm.weight'] = torch.ones_like(
            self.state['llama.norm.weight']
        )
        moved = [name for name in self.state if not name.startswith('llama.')]
        self.names = our_names(np.array(moved), rules)

    @property
    def groups(self) -> dict[str, tuple[float, float]]:
        """Peak of the rate, and weight decay, of each of our parameters."""
        groups = {}
        for group in text_of(self.stored['groups']):
            for name in group['names']:
                groups[self.names[name]] = rounded(group)
        return groups

    @property
    def rates(self) -> dict[str, np.ndarray]:
        """The rates of each of our parameters, of all steps."""
        rates = {}
        groups = text_of(self.stored['groups'])
        for group, rates_of_group in zip(groups, self.stored['rates'].T, strict=True):
            for name in group['names']:
                rates[self.names[name]] = rates_of_group
        return rates

    def changes(self, ours: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the marks of how far a training of ours moved the tensors."""
        before, after = {}, {}
        for released_name, name in self.names.items():
            before[released_name] = self.state[released_name].numpy()
            after[released_name] = ours[name]
        return marks_of_changes(before, after)


class GivenRates(Hook):
    """Gives each parameter the rates of a stored training, and keeps what ours gives.

    Args:
        rates (Mapping[str, np.ndarray]): See :attr:`ReleasedLoop.rates`.

    Attributes:
        groups (dict): As :attr:`ReleasedLoop.groups`.
        losses, norms (list[float]): Of each step, the loss and the norm of the gradients
            before they are clipped.
    """

    priority = 'LOWEST'

    def __init__(self, rates: Mapping[str, np.ndarray]) -> None:
        self.rates = rates
        self.groups: dict[str, tuple[float, float]] = {}
        self.losses: list[float] = []
        self.norms: list[float] = []

    def before_train(self, runner):
        for name, group in groups_of(runner):
            self.groups[name] = rounded(group)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        for name, group in groups_of(runner):
            group['lr'] = float(self.rates[name][runner.iter])

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(outputs['loss'].item())
        if 'train/grad_norm' in runner.message_hub.log_scalars:
            norm = runner.message_hub.get_scalar('train/grad_norm').current()
            self.norms.append(float(norm))


def rounded(group: Mapping[str, Any]) -> tuple[float, float]:
    """Return a group's rate and weight decay, without the last digits of their products."""
    return round(group['lr'], 12), round(group['weight_decay'], 12)


def groups_of(runner: Runner) -> list[tuple[str, dict[str, Any]]]:
    """Return the name of each trained parameter with its group."""
    names = {id(p): name for name, p in runner.model.named_parameters()}
    found = []
    for group in runner.optim_wrapper.param_groups:
        for parameter in group['params']:
            if parameter.requires_grad:
                found.append((names[id(parameter)], group))
    return found


def rates_in_row(section: str) -> dict[int, str]:
    """Return the released rates that a section's row of epochs quotes, by epoch."""
    path = ROOT / f'docs/results/recipes/{section}.toml'
    for row in tomllib.loads(path.read_text())['row']:
        if row['what'].startswith('rates of epochs '):
            epochs = row['what'].removeprefix('rates of epochs ').split(', ')
            rates = row['released'].split(', ')
            return dict(zip(map(int, epochs), rates, strict=True))
    raise AssertionError(f'{path} has no row of epochs')


def assert_rounded(schedule: np.ndarray, rates: Mapping[int, str]) -> None:
    """Rates, by their epochs, are those of a schedule to two digits."""
    for epoch, rate in rates.items():
        assert f'{float(rate):.1e}' == f'{schedule[epoch]:.1e}', epoch


def train(
    cfg: Config, epochs: int, rates: GivenRates, patch: pytest.MonkeyPatch
) -> Runner:
    """Train a config in float64 with given rates, without validation.

    Args:
        cfg (Config): It has its model and data. Changed in place.
        epochs (int): How many.
        rates (GivenRates): Replaces the schedule.
        patch (pytest.MonkeyPatch): Undoes what lets ``Tensor.float`` round nothing.
    """
    cfg.launcher = 'none'
    cfg.randomness = dict(seed=0)
    cfg.train_cfg.max_epochs = epochs
    cfg.param_scheduler = None
    for split in ('val', 'test'):
        for part in ('dataloader', 'cfg', 'evaluator'):
            cfg[f'{split}_{part}'] = None
    # Mixed precision would round.
    cfg.optim_wrapper.type = 'OptimWrapper'
    cfg.optim_wrapper.pop('loss_scale', None)
    finish_config(cfg, argparse.Namespace(no_pin_memory=True, cfg_options=None))
    runner = build_runner(cfg)
    runner.register_hook(rates)
    runner.model.double()
    patch.setattr(Tensor, 'float', Tensor.double)
    runner.train()
    return runner


def loader_of(dataset: str, batch_size: int) -> ConfigDict:
    """Return a dataloader that reads a data set in its order."""
    return ConfigDict(
        batch_size=batch_size,
        num_workers=0,
        dataset=dict(type=dataset),
        sampler=dict(type='DefaultSampler', shuffle=False),
    )
