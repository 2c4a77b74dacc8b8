"""Train small configs on the CPU and on the second device; print what differs as JSON.

    python -m tests.helpers.device_runs TASK CONFIG [CONFIG ...]

A process of its own, since the device stays defined in it. One line a config:
``config``, ``losses`` and ``weights`` (the largest relative difference to the CPU's),
``metrics`` of both devices, and ``waits`` of one training step by kind and line.
"""

import json
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

os.environ['HF_HUB_OFFLINE'] = '1'

import mmengine.device.utils
import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.visualization import Visualizer

from lm4ve.runner.command_line import build_runner
from lm4ve.runner.resume import resume_newest
from tests.helpers import second_device
from tests.helpers.second_device import WAITS
from tests.helpers.shrink import Shrinker, shrinker_of


class StepWatch(Hook):
    """Keeps the losses of all steps, and the waits of the last one.

    A step goes from the batch that the loader gives to the next one, with all hooks.
    """

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.waits: Counter[tuple[str, str]] = Counter()
        self._counting: Any = None

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any
    ) -> None:
        self._counting = WAITS.counting()
        self.waits = self._counting.__enter__()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any, outputs: Any
    ) -> None:
        self._counting.__exit__(None, None, None)
        self.losses.append(outputs['loss'].item())


def trained(shrinker: Shrinker, name: str, device: str) -> dict[str, Any]:
    """Train a config for two epochs with a resume between them, and test it.

    Returns:
        dict: losses, metrics, weights (on the CPU) and the waits of the last step.
    """
    mmengine.device.utils.DEVICE = device
    work_dir = Path(tempfile.mkdtemp())
    watch = StepWatch()
    for epochs in (1, 2):
        forget_runs()
        torch.manual_seed(0)
        np.random.seed(0)
        cfg = shrinker.load(name, work_dir, epochs=epochs)
        cfg.randomness = dict(seed=7)
        steady_steps(cfg.optim_wrapper.optimizer)
        if epochs == 2:
            resume_newest(cfg, needed=True)
        runner = build_runner(cfg)
        runner.register_hook(watch)
        runner.train()
    parameters = {k: v.detach().cpu() for k, v in runner.model.named_parameters()}
    for value in parameters.values():
        assert value.device.type == 'cpu'
    on_device = {p.device.type for p in runner.model.parameters()}
    assert on_device == {device}, on_device
    forget_runs()
    cfg = shrinker.load(name, work_dir)
    cfg.load_from = str(work_dir / 'epoch_2.pth')
    metrics = build_runner(cfg).test()
    return dict(
        losses=watch.losses, metrics=metrics, weights=parameters, waits=watch.waits
    )


def steady_steps(optimizer: dict[str, Any]) -> None:
    """Let Adam's steps depend smoothly on the gradient.

    With its small eps, a gradient that is rounding alone moves a weight by a whole
    step, in a direction that differs between any two devices.
    """
    if optimizer['type'].startswith('Adam'):
        optimizer['eps'] = 1e-3


def forget_runs() -> None:
    """Forget the loggers, hubs and visualizers of earlier runs in this process."""
    kept = (DefaultScope, MessageHub, MMLogger, Visualizer)
    for manager in (*kept, *Visualizer.__subclasses__()):
        manager._instance_dict.clear()


def compare(shrinker: Shrinker, name: str) -> dict[str, Any]:
    """Train a config on both devices; return how far they are apart."""
    there = trained(shrinker, name, second_device.NAME)
    here = trained(shrinker, name, 'cpu')
    losses = np.array([here['losses'], there['losses']])
    expected = torch.cat([v.flatten() for v in here['weights'].values()])
    found = torch.cat([v.flatten() for v in there['weights'].values()])
    return dict(
        config=name,
        losses=float(np.max(np.abs(losses[0] - losses[1]) / np.abs(losses[0]))),
        weights=float((found - expected).norm() / expected.norm()),
        metrics=[plain(here['metrics']), plain(there['metrics'])],
        waits=[[*key, count] for key, count in sorted(there['waits'].items())],
    )


def plain(metrics: dict[str, Any]) -> dict[str, float]:
    """Return the numbers among metrics."""
    return {k: float(v) for k, v in metrics.items() if isinstance(v, (int, float))}


def main() -> None:
    task = sys.argv[1]
    second_device.define()
    torch.set_num_threads(1)
    shrinker = shrinker_of(task, Path(tempfile.mkdtemp()))
    with pytest.MonkeyPatch.context() as patch, second_device.SecondDevice():
        shrinker.enter(patch)
        for name in sys.argv[2:]:
            print(json.dumps(compare(shrinker, name)), flush=True)


if __name__ == '__main__':
    main()
