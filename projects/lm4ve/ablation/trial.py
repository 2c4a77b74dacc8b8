"""Runs one trial in a process of its own: train, test the last epoch, write the result.

    python -m lm4ve.ablation.trial SPEC.json

The runner writes the specification and starts this module. The config is built and
adapted as ``tools/train.py`` does it.
"""

import argparse
import ast
import json
import os
import sys
import threading
import time
from pathlib import Path
from statistics import median

import torch
from mmengine.config import Config
from mmengine.dist import get_world_size, is_main_process

import lm4ve  # noqa: F401  (registers before the config is read)
from lm4ve.ablation.fields import fresh_config, identity, merge
from lm4ve.ablation.grid import Trial
from lm4ve.ablation.store import WRITE_FIX, hold
from lm4ve.blocks import count_parameters
from lm4ve.errors import UserError
from lm4ve.files import write_json
from lm4ve.runner.command_line import build_runner, finish_config, load_config, run_tool

#: Environment variable with the tool's process id.
OWNER = 'LM4VE_ABLATION_OWNER'
#: Environment variable with the configs' default scopes, separated by commas.
SCOPES = 'LM4VE_ABLATION_SCOPES'


def write_spec(trial: Trial, folder: Path, keep_checkpoints: bool) -> Path:
    """Write what a trial's process needs to know; return the file."""
    spec = dict(
        id=trial.id,
        config=str(trial.config),
        # As Python, since JSON would make lists of tuples.
        options=repr(trial.options),
        keep_checkpoints=keep_checkpoints,
    )
    path = folder / 'spec.json'
    write_json(spec, path, WRITE_FIX)
    return path


def trial_config(spec: dict, work_dir: Path, launcher: str = 'none') -> Config:
    """Build a trial's config as the grid says, without validation and checkpoints.

    Raises:
        UserError: The config is not what it was when the grid was read.
    """
    options = ast.literal_eval(spec['options'])
    path = Path(spec['config'])
    if identity(merge(fresh_config(path), options, 'trial')) != spec['id']:
        raise UserError(
            f"The config '{path}' (or one it inherits from) has changed since the grid was read. "
            'Fix: start the grid again.'
        )
    args = argparse.Namespace(
        config=str(path),
        work_dir=str(work_dir),
        launcher=launcher,
        cfg_options=options,
        no_pin_memory=False,
        local_rank=0,
    )
    cfg = finish_config(load_config(args), args)
    # The last epoch is what is tested: nothing looks at scores on the way.
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.resume = False
    hooks = cfg.setdefault('default_hooks', {})
    if not spec['keep_checkpoints']:
        hooks['checkpoint'] = None
    elif hooks.get('checkpoint'):
        hooks['checkpoint'].update(interval=-1, save_last=True, save_best=None)
    if cfg.get('visualizer') is not None:
        cfg.visualizer.vis_backends = [dict(type='LocalVisBackend')]
    return cfg


def run(spec: dict, folder: Path, launcher: str = 'none') -> dict:
    """Train and test; return the result."""
    start = time.time()
    runner = build_runner(trial_config(spec, folder / 'run', launcher))
    trainable, frozen = count_parameters(runner.model)
    runner.train()
    steps = runner.message_hub.get_scalar('train/time').data[0]
    metrics = runner.test()
    return dict(
        id=spec['id'],
        metrics={k: float(v) for k, v in metrics.items() if _is_number(v)},
        trainable=trainable,
        frozen=frozen,
        step_seconds=median(map(float, steps)),
        wall_seconds=time.time() - start,
        world_size=get_world_size(),
        threads=torch.get_num_threads(),
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU',
    )


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) or (
        hasattr(value, 'item') and getattr(value, 'size', None) in (1, ())
    )


def follow_parent() -> None:
    """End when the tool ends, even by a signal that it cannot pass on."""
    # Under torchrun the parent is another than the tool.
    parent = os.getppid()
    tool = int(os.environ.get(OWNER, parent))

    def watch() -> None:
        while os.getppid() == parent:
            try:
                os.kill(tool, 0)
            except ProcessLookupError:
                break
            time.sleep(0.25)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_forked(spec: str, env: dict, threads: int) -> None:
    """Be a trial in a process that the fork server made.

    Args:
        spec (str): Path of the specification; the log goes beside it.
        env (dict): Environment variables.
        threads (int): CPU threads.
    """
    # A group of its own: the tool passes Ctrl-C on; a terminal must not do it too.
    os.setsid()
    with open(Path(spec).with_name('log.txt'), 'wb') as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.environ.update(env)
    torch.set_num_threads(threads)
    sys.argv = ['trial', spec]
    run_tool(main)


def run_job(spec: Path, threads: int, launcher: str) -> None:
    """Be a trial in a job of a cluster, or one of its processes.

    Args:
        spec (Path): The specification; the log of the first process goes beside it.
        threads (int): CPU threads.
        launcher (str): 'pytorch' with torch's variables set, or 'none'.
    """
    if os.environ.get('RANK', '0') == '0' or launcher == 'none':
        with open(spec.with_name('log.txt'), 'wb') as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
    torch.set_num_threads(threads)
    sys.argv = ['trial', str(spec)]
    run_tool(lambda: train_and_write(spec, launcher))


def train_and_write(spec: Path, launcher: str) -> None:
    """Run a trial and write its result beside its specification."""
    folder = spec.parent
    with hold(folder):
        result = run(json.loads(spec.read_text()), folder, launcher)
        if is_main_process():
            write_json(result, folder / 'result.json', WRITE_FIX)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('spec', type=Path)
    parser.add_argument('--launcher', default='none', choices=['none', 'pytorch'])
    args = parser.parse_args()
    follow_parent()
    train_and_write(args.spec, args.launcher)


if __name__ == '__main__':
    run_tool(main)
    sys.exit(0)
