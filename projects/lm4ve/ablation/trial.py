"""One trial in a process of its own: train, test the last epoch, write the result.

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

import lm4ve  # noqa: F401  (registers before the config is read)
from lm4ve.ablation.grid import Trial
from lm4ve.ablation.identity import identity
from lm4ve.ablation.store import trial_lock
from lm4ve.blocks import count_parameters
from lm4ve.errors import UserError
from lm4ve.files import write_json
from lm4ve.runner.command_line import build_runner, finish_config, load_config, run_tool
from lm4ve.runner.same_data import pixel_versions


def write_spec(trial: Trial, folder: Path, keep_checkpoints: bool) -> Path:
    """Write the specification that a trial's process reads; return the file."""
    spec = dict(
        id=trial.id,
        config=str(trial.config),
        # As Python, since JSON would make lists of tuples.
        options=repr(trial.options),
        keep_checkpoints=keep_checkpoints,
    )
    file = folder / 'spec.json'
    write_json(spec, file)
    return file


def trial_config(spec: dict, work_dir: Path, launcher: str = 'none') -> Config:
    """Build the config that a trial trains, from its specification.

    It is the config of ``lm4ve train`` with the trial's overrides, but without
    validation and, unless the specification keeps them, without checkpoints.

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
    cfg.resume = False
    hooks = cfg.setdefault('default_hooks', {})
    if not spec['keep_checkpoints']:
        hooks['checkpoint'] = None
    elif hooks.get('checkpoint'):
        hooks['checkpoint'].update(interval=-1, save_last=True, save_best=None)
    if cfg.get('visualizer') is not None:
        cfg.visualizer.vis_backends = [dict(type='LocalVisBackend')]
    return cfg


def train_and_test(spec: dict, folder: Path, launcher: str = 'none') -> dict:
    """Train and test a trial in this process, and return its result.

    Args:
        spec (dict): The specification, as :func:`write_spec` wrote it.
        folder (Path): The trial's folder; the run's own files go below it.
        launcher (str): See :func:`run_trial`.

    Returns:
        dict: The content of ``result.json``: the metrics, the number of trainable and
        frozen parameters, the median seconds of a training step, and the circumstances.
    """
    start = time.time()
    runner = build_runner(trial_config(spec, folder / 'run', launcher))
    trainable, frozen = count_parameters(runner.model)
    runner.train()
    step_seconds = runner.message_hub.get_scalar('train/time').data[0]
    device = 'CPU'
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    return dict(
        id=spec['id'],
        metrics=_numbers_of(runner.test()),
        trainable=trainable,
        frozen=frozen,
        step_seconds=median(float(seconds) for seconds in step_seconds),
        wall_seconds=time.time() - start,
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
        result = train_and_test(json.loads(spec.read_text()), folder, launcher)
        if get_rank() == 0:
            write_json(result, folder / 'result.json')


def run_logged(spec: Path, threads: int, launcher: str = 'none') -> None:
    """Run a trial as if this process were its command.

    The first process of a trial sends what it prints to ``log.txt`` beside the
    specification. An error ends the process, with a message that a user can mend.

    Args:
        spec (Path): The specification's file.
        threads (int): CPU threads of torch.
        launcher (str): See :func:`run_trial`.
    """
    if _is_first(launcher):
        with open(spec.with_name('log.txt'), 'wb') as log:
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
