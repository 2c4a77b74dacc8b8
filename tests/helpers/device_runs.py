"""Train small configs on the CPU and on the second device; print what differs as JSON.

    python -m tests.helpers.device_runs TASK CONFIG [CONFIG ...]
    python -m tests.helpers.device_runs --only-count TASK CONFIG [CONFIG ...]

A process of its own, since the device stays defined in it. One line a config:
``config``, ``losses`` and ``weights`` (the largest relative difference to the CPU's),
``metrics`` of both devices, ``waits`` of one training step by kind and line, and how
far a drawing of the device and an exported file are from the CPU's (``drawn``,
``exported``). With ``--only-count`` it trains on the device alone: ``waits`` and
``launches``.
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
from mmengine.runner import Runner
from PIL import Image

import lm4ve.openmmlab  # noqa: F401  (hosts are imported below)
from lm4ve.release.exporting import FORMATS, export_model
from lm4ve.runner.command_line import build_runner
from lm4ve.runner.config import read_config
from tests.helpers import second_device
from tests.helpers.remembered_runs import forget_runs
from tests.helpers.second_device import WAITS
from tests.helpers.shrink import Shrinker, shrinker_of
from tests.helpers.tools import run_lm4ve

#: Tasks whose models are hosts', which commands do not draw and export.
ONLY_TRAINED = ('medical',)
#: Tasks whose models are not traced.
ONLY_WEIGHTS = ('rooms',)


class StepWatch(Hook):
    """Keeps the losses of all steps, and what one step waits for and starts.

    A step goes from the batch that the loader gives to the next one, with all hooks. It
    is not the first one of a training, in which the block is checked once, and, if
    there is another one, not the last one of an epoch, which is logged.

    Attributes:
        losses (list[float]): Of all steps.
        waits (Counter): Kind and line -> how often the step has waited.
        launches (int): The step's operations on the device.
    """

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.waits: Counter[tuple[str, str]] = Counter()
        self.launches = 0
        self._counting: Any = None
        self._waits_of_step: Counter[tuple[str, str]] = Counter()
        self._steps = 0
        self._has_usual_step = False

    def before_train(self, runner: Runner) -> None:
        self._steps = 0

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any
    ) -> None:
        self._counting = WAITS.counting()
        self._waits_of_step = self._counting.__enter__()
        WAITS.launches = 0

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any, outputs: Any
    ) -> None:
        self._counting.__exit__(None, None, None)
        launches = WAITS.launches
        self.losses.append(outputs['loss'].item())
        self._steps += 1
        is_last = self.end_of_epoch(runner.train_dataloader, batch_idx)
        if self._steps == 1 or (is_last and self._has_usual_step):
            return
        self._has_usual_step = not is_last
        self.waits = self._waits_of_step
        self.launches = launches


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
            cfg.resume = 'newest'
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
        losses=watch.losses,
        metrics=metrics,
        weights=parameters,
        waits=watch.waits,
        work_dir=work_dir,
    )


def count(shrinker: Shrinker, name: str) -> dict[str, Any]:
    """Train a config on the device; return what a step waits for and starts."""
    mmengine.device.utils.DEVICE = second_device.NAME
    forget_runs()
    watch = StepWatch()
    runner = build_runner(shrinker.load(name, Path(tempfile.mkdtemp()), epochs=2))
    runner.register_hook(watch)
    runner.train()
    return dict(config=name, waits=listed(watch.waits), launches=watch.launches)


def listed(waits: Counter[tuple[str, str]]) -> list[list[Any]]:
    """Return waits as lists: kind, line and how often."""
    return [[*key, number] for key, number in sorted(waits.items())]


def drawn_and_exported(shrinker: Shrinker, name: str, work_dir: Path) -> dict[str, Any]:
    """Draw a test sample on both devices and export the model, by the commands.

    Args:
        shrinker (Shrinker): Of the config's task.
        name (str): The config.
        work_dir (Path): With the checkpoint of a training on the device.

    Returns:
        dict: ``drawn``, how far the two pictures are apart, of 255, on average; and
        ``exported``, how far the file's outputs are from the model's.
    """
    forget_runs()
    config = work_dir / 'shrunk.py'
    shrinker.load(name, work_dir).dump(config)
    checkpoint = str(work_dir / 'epoch_2.pth')
    pictures = []
    for device in ('cpu', second_device.NAME):
        out = work_dir / f'drawn_{device}'
        flags = ['--indices', '0', '--device', device, '--out-dir', str(out)]
        flags += ['--measures', 'magnitude', 'frequency']
        run_lm4ve('visualize', [str(config), checkpoint, *flags])
        (sheet,) = out.glob('*.png')
        with Image.open(sheet) as picture:
            pictures.append(np.asarray(picture.convert('RGB'), np.float64))
    form = 'torch-export'
    # A scene's sub-scenes are a list, which no exported program takes.
    if shrinker.task in ONLY_WEIGHTS or name.startswith('realmotion'):
        form = 'safetensors'
    path = work_dir / f'model{FORMATS[form]}'
    written = export_model(read_config(config), checkpoint, form, path)
    return dict(
        drawn=float(np.abs(pictures[0] - pictures[1]).mean()),
        exported=written.difference,
    )


def steady_steps(optimizer: dict[str, Any]) -> None:
    """Let Adam's steps depend smoothly on the gradient.

    With its small eps, a gradient that is rounding alone moves a weight by a whole
    step, in a direction that differs between any two devices.
    """
    if optimizer['type'].startswith('Adam'):
        optimizer['eps'] = 1e-3


def compare(shrinker: Shrinker, name: str) -> dict[str, Any]:
    """Train a config on both devices; return how far they are apart."""
    there = trained(shrinker, name, second_device.NAME)
    here = trained(shrinker, name, 'cpu')
    used = dict(drawn=0.0, exported=0.0)
    if shrinker.task not in ONLY_TRAINED:
        used = drawn_and_exported(shrinker, name, there['work_dir'])
    losses = np.array([here['losses'], there['losses']])
    expected = torch.cat([v.flatten() for v in here['weights'].values()])
    found = torch.cat([v.flatten() for v in there['weights'].values()])
    return dict(
        config=name,
        losses=float(np.max(np.abs(losses[0] - losses[1]) / np.abs(losses[0]))),
        weights=float((found - expected).norm() / expected.norm()),
        metrics=[plain(here['metrics']), plain(there['metrics'])],
        waits=listed(there['waits']),
        **used,
    )


def plain(metrics: dict[str, Any]) -> dict[str, float]:
    """Return the numbers among metrics."""
    return {k: float(v) for k, v in metrics.items() if isinstance(v, (int, float))}


def main() -> None:
    words = sys.argv[1:]
    run = compare
    if words[0] == '--only-count':
        run = count
        words.pop(0)
    task, *names = words
    second_device.define()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        # Work folders hold checkpoints of some hundred MB, and are made below it.
        tempfile.tempdir = folder
        shrinker = shrinker_of(task, Path(tempfile.mkdtemp()))
        with pytest.MonkeyPatch.context() as patch, second_device.SecondDevice():
            shrinker.enter(patch)
            for name in names:
                print(json.dumps(run(shrinker, name)), flush=True)


if __name__ == '__main__':
    main()
