"""One trial in a process of its own: train, test the last epoch, write the result.

A trial that was stopped or killed continues from its last checkpoint.

    python -m lm4ve.ablation.trial SPEC.json --launcher pytorch

The executor writes the specification. The config is built and adapted as ``lm4ve
train`` does it.
"""

import argparse
import ast
import contextlib
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner

import lm4ve.openmmlab  # noqa: F401  (before the config is read)
from lm4ve.ablation.grid import Trial
from lm4ve.ablation.identity import identity
from lm4ve.ablation.store import trial_lock
from lm4ve.blocks import count_parameters
from lm4ve.compat.mmengine_runner_state import starts_training
from lm4ve.errors import UserError, require
from lm4ve.files import write_json
from lm4ve.runner.command_line import build_runner, finish_config, load_config, run_tool
from lm4ve.runner.resume import resume_newest
from lm4ve.runner.same_data import pixel_versions
from lm4ve.runner.scored_data import SCORED_KEY, TOTAL_KEY, count_samples

#: Below a trial's folder, that of its training.
RUN = 'run'
#: The entry of a checkpoint with the seconds that a trial has taken so far.
_SECONDS = 'lm4ve_trial_seconds'


def write_spec(
    trial: Trial, folder: Path, keep_checkpoints: bool, world_size: int = 1
) -> Path:
    """Write the specification that a trial's process reads; return the file."""
    spec = dict(
        id=trial.id,
        config=str(trial.config),
        # As Python, since JSON would make lists of tuples.
        options=repr(trial.options),
        keep_checkpoints=keep_checkpoints,
        world_size=world_size,
        pixel_versions=pixel_versions(),
    )
    file = folder / 'spec.json'
    write_json(spec, file)
    return file


def trial_config(spec: dict, work_dir: Path, launcher: str = 'none') -> Config:
    """Build the config that a trial trains, from its specification.

    It is the config of ``lm4ve train`` with the trial's overrides, but without
    validation. It saves as often as the config says, keeps one checkpoint, and continues
    from it.

    Args:
        spec (dict): The specification, as :func:`write_spec` wrote it.
        work_dir (Path): The folder of the run.
        launcher (str): See :func:`run_trial`.

    Raises:
        UserError: The config is not what it was when the grid was read.
    """
    options = ast.literal_eval(spec['options'])
    path = Path(spec['config'])
    if identity(path, options) != spec['id']:
        raise UserError(
            f"The config '{path}' has changed since the grid was read. Start again."
        )
    flags = argparse.Namespace(
        config=str(path),
        work_dir=str(work_dir),
        launcher=launcher,
        cfg_options=options,
        no_pin_memory=False,
        local_rank=0,
    )
    cfg = finish_config(load_config(flags), flags)
    # Only the last epoch is tested, and nothing is selected by scores before it.
    cfg.val_cfg = None
    cfg.val_dataloader = None
    cfg.val_evaluator = None
    hooks = cfg.setdefault('default_hooks', {})
    hooks['checkpoint'] = _checkpoint_hook(hooks.get('checkpoint', {}))
    if cfg.get('visualizer') is not None:
        cfg.visualizer.vis_backends = [dict(type='LocalVisBackend')]
    resume_newest(cfg)
    return cfg


def _checkpoint_hook(own: dict | None) -> dict:
    """Return the config of the hook that saves a trial as often as a config's hook does.

    Args:
        own (dict, optional): The config's hook. None: the trial is saved at signals only.
    """
    if own is None:
        own = dict(interval=-1, save_last=False)
    return dict(
        type='lm4ve.AtomicCheckpointHook',
        by_epoch=own.get('by_epoch', True),
        interval=own.get('interval', 1),
        save_last=own.get('save_last', True),
        max_keep_ckpts=1,
    )


class TestDataHook(Hook):
    """Build the data of the test before the first step, which finds what is damaged in it."""

    def before_train(self, runner: Runner) -> None:
        """Build the loop of the test; the runner keeps it."""
        # The property builds it.
        _ = runner.test_loop


class TimingHook(Hook):
    """Count the seconds of a trial over all of its starts, as far as they were saved."""

    def __init__(self) -> None:
        self._before = 0.0
        self._start = time.time()

    @property
    def seconds(self) -> float:
        """How many seconds the trial has taken."""
        return self._before + time.time() - self._start

    def before_save_checkpoint(
        self, runner: Runner, checkpoint: dict[str, Any]
    ) -> None:
        """Store the seconds so far."""
        checkpoint[_SECONDS] = self.seconds

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Go on counting from those of the earlier starts.

        Another trial's checkpoint, from which this one begins, has seconds of its own.
        """
        if not starts_training(runner):
            self._before = checkpoint.get(_SECONDS, 0.0)


def train_and_test(spec: dict, folder: Path, launcher: str = 'none') -> dict:
    """Train and test a trial in this process, and return its result.

    Args:
        spec (dict): The specification, as :func:`write_spec` wrote it.
        folder (Path): The trial's folder; the run's own files go below it.
        launcher (str): See :func:`run_trial`.

    Returns:
        dict: The content of ``result.json``: the metrics, the number of samples that they
        are over and of those that there would be without damage, the number of trainable
        and frozen parameters, the median seconds of a training step, and the
        circumstances.
    """
    timing = TimingHook()
    runner = build_runner(trial_config(spec, folder / RUN, launcher))
    runner.register_hook(timing)
    runner.register_hook(TestDataHook())
    trainable, frozen = count_parameters(runner.model)
    runner.train()
    step_seconds = runner.message_hub.get_scalar('train/time').data[0]
    device = 'CPU'
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    metrics = _numbers_of(runner.test())
    counts = count_samples(runner.test_dataloader.dataset)
    if counts is None:
        raise UserError(
            'test_dataloader.dataset has no length, so that nobody knows what its score is over.'
        )
    for key in (SCORED_KEY, TOTAL_KEY):
        metrics.pop(key, None)
    return dict(
        id=spec['id'],
        metrics=metrics,
        scored=counts.scored,
        total=counts.total,
        trainable=trainable,
        frozen=frozen,
        step_seconds=median(float(seconds) for seconds in step_seconds),
        wall_seconds=timing.seconds,
        world_size=get_world_size(),
        threads=torch.get_num_threads(),
        pixel_versions=pixel_versions(),
        device=device,
    )


def _numbers_of(metrics: dict) -> dict[str, float]:
    """Return the metrics that are numbers, as Python floats."""
    numbers = {}
    for name, value in metrics.items():
        if isinstance(value, (int, float, np.number, torch.Tensor)):
            numbers[name] = float(value)
    return numbers


def run_trial(spec: Path, launcher: str = 'none') -> None:
    """Train, test and write the result beside the specification, unless it is there.

    The first process of a trial holds the trial's lock, so that two commands or two
    jobs never run one trial at a time.

    Args:
        spec (Path): The specification's file, in the trial's folder.
        launcher (str): 'pytorch' if torchrun starts a process for each device, else
            'none'.
    """
    folder = spec.parent
    lock: Any = contextlib.nullcontext()
    if _is_first(launcher):
        lock = trial_lock(folder, timeout=-1)
    with lock:
        if (folder / 'result.json').exists():
            print(f'{folder} has a result already.')
            return
        content = json.loads(spec.read_text())
        # The folder's name is a hash of config and overrides, so that it, not the file,
        # says what is built.
        require(
            content['id'] == folder.name,
            f"'{spec}' is of another trial than its folder. Fix: lm4ve ablate.",
        )
        result = train_and_test(content, folder, launcher)
        if get_rank() != 0:
            return
        write_json(result, folder / 'result.json')
        if not content['keep_checkpoints']:
            _delete_checkpoints(folder / RUN)


def _delete_checkpoints(folder: Path) -> None:
    """Delete the checkpoints of a training, which nothing continues from any more."""
    for path in (*folder.glob('*.pth'), folder / 'last_checkpoint'):
        path.unlink(missing_ok=True)


def run_logged(spec: Path, threads: int, launcher: str = 'none') -> None:
    """Run a trial as if this process were its command.

    The first process of a trial appends what it prints to ``log.txt`` beside the
    specification. An error ends the process, with a message that a user can mend.

    Args:
        spec (Path): The specification's file.
        threads (int): CPU threads of torch.
        launcher (str): See :func:`run_trial`.
    """
    if _is_first(launcher):
        with open(spec.with_name('log.txt'), 'ab') as log:
            os.dup2(log.fileno(), 1)  # stdout, also of libraries in C
            os.dup2(log.fileno(), 2)  # stderr
    torch.set_num_threads(threads)
    sys.argv = ['trial', str(spec)]
    run_tool(lambda: run_trial(spec, launcher))


def _is_first(launcher: str) -> bool:
    """Return whether this is the first process of a trial."""
    return launcher == 'none' or int(os.environ.get('RANK', 0)) == 0


def end_with_parent() -> None:
    """Kill this process and its group as soon as the command that started it has ended.

    A thread looks four times a second.
    """
    # A process of the fork server is the server's child; `parent_process` is the command
    # that had it started.
    command = multiprocessing.parent_process()
    parent = os.getppid()

    def has_parent() -> bool:
        if command is not None:
            return command.is_alive()
        return os.getppid() == parent

    def watch() -> None:
        while has_parent():
            time.sleep(0.25)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Run the trial that the command line names; its parent's end is its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('spec', type=Path)
    parser.add_argument('--launcher', default='none')
    args = parser.parse_args()
    end_with_parent()
    run_trial(args.spec, args.launcher)


if __name__ == '__main__':
    run_tool(main)
