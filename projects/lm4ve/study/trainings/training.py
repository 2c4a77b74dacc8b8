"""A training of a config with its test: one of the two kinds of jobs.

A training that was stopped or killed continues from its last checkpoint. The config is
built and adapted as ``lm4ve train`` does it.
"""

import argparse
import ast
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

import lm4ve.openmmlab  # noqa: F401  (before the config is read)
from lm4ve.blocks import count_parameters
from lm4ve.compat.mmengine_runner_state import starts_training
from lm4ve.errors import UserError
from lm4ve.runner.config.final import final_config
from lm4ve.runner.runner import build_runner
from lm4ve.runner.same_data import VERSIONS, pixel_versions
from lm4ve.runner.scored_data import SCORED_KEY, TOTAL_KEY, count_samples
from lm4ve.study.job import Job
from lm4ve.study.store import Result
from lm4ve.study.trainings.identity import identity
from lm4ve.study.trainings.samples import keep_labels, kept_labels, require_equal
from lm4ve.study.trainings.scores import is_of_labels, score_of

#: Below a job's folder, that of its training.
RUN = 'run'
#: The entry of a checkpoint with the seconds that a training has taken so far.
_SECONDS = 'lm4ve_trial_seconds'


def training_job(
    variant: str,
    stage: str,
    seed: int,
    value: Any,
    config: Path,
    options: Mapping[str, Any],
    metric: str,
    processes: int = 1,
    keep_checkpoints: bool = False,
) -> Job:
    """Return the job of a training.

    Args:
        variant, stage, seed, value: See :class:`lm4ve.study.job.Job`.
        config (Path): The config.
        options (Mapping[str, Any]): Every override, the seed included.
        metric (str): Which metric will be compared.
        processes (int): How many processes train; their number changes the batch.
        keep_checkpoints (bool): Keep the last checkpoint.
    """
    key = identity(config, dict(options))
    if processes > 1:
        key = f'{key}x{processes}'
    spec = {
        'config': str(config),
        # As Python, since JSON would make lists of tuples.
        'options': repr(dict(options)),
        'metric': metric,
        'keep_checkpoints': keep_checkpoints,
        VERSIONS: pixel_versions(),
    }
    return Job('training', variant, stage, value, seed, key, spec)


def training_config(
    spec: Mapping[str, Any], key: str, work_dir: Path, launcher: str = 'none'
) -> Config:
    """Build the config that is trained, from a job's specification.

    It is the config of ``lm4ve train`` with the overrides, but without validation. Its
    test keeps the samples' labels where the metric is of these. It saves as often as the
    config says, keeps one checkpoint, and continues from it.

    Args:
        spec (Mapping): The specification, of :func:`training_job`.
        key (str): The job's key.
        work_dir (Path): The folder of the run.
        launcher (str): See :func:`lm4ve.study.run_job.run_job`.

    Raises:
        UserError: The config is not what it was when the job was made.
    """
    options = ast.literal_eval(spec['options'])
    path = Path(spec['config'])
    own, _, _ = key.partition('x')
    if identity(path, options) != own:
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
    cfg = final_config(flags)
    # Only the last epoch is tested, and nothing is selected by scores before it.
    cfg.val_cfg = None
    cfg.val_dataloader = None
    cfg.val_evaluator = None
    if is_of_labels(spec['metric']):
        keep_labels(cfg)
    hooks = cfg.setdefault('default_hooks', {})
    hooks['checkpoint'] = _checkpoint_hook(hooks.get('checkpoint', {}))
    if cfg.get('visualizer') is not None:
        cfg.visualizer.vis_backends = [dict(type='LocalVisBackend')]
    cfg.resume = 'auto'
    return cfg


def _checkpoint_hook(own: dict | None) -> dict:
    """Return the config of the hook that saves a training as often as a config's hook does.

    Args:
        own (dict, optional): The config's hook. None: it is saved at signals only.
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
    """Count the seconds of a training over all of its starts, as far as they were saved."""

    def __init__(self) -> None:
        self._before = 0.0
        self._start = time.time()

    @property
    def seconds(self) -> float:
        """How many seconds the training has taken."""
        return self._before + time.time() - self._start

    def before_save_checkpoint(
        self, runner: Runner, checkpoint: dict[str, Any]
    ) -> None:
        """Store the seconds so far."""
        checkpoint[_SECONDS] = self.seconds

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Go on counting from those of the earlier starts.

        Another training's checkpoint, from which this one begins, has seconds of its own.
        """
        if not starts_training(runner):
            self._before = checkpoint.get(_SECONDS, 0.0)


def run(spec: Mapping[str, Any], key: str, folder: Path, launcher: str) -> Result:
    """Train and test in this process.

    Args:
        spec (Mapping): The specification, of :func:`training_job`.
        key (str): The job's key.
        folder (Path): The job's folder; the run's own files go below it.
        launcher (str): See :func:`lm4ve.study.run_job.run_job`.

    Returns:
        Result: The metrics, the number of samples that they are over, and the samples'
        labels where the metric is of these. Its facts are
        the numbers of trainable and frozen parameters, the median seconds of a training
        step, and the circumstances.
    """
    timing = TimingHook()
    runner = build_runner(training_config(spec, key, folder / RUN, launcher))
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
    for name in (SCORED_KEY, TOTAL_KEY):
        metrics.pop(name, None)
    of_samples = {}
    labels = kept_labels(runner.test_loop.evaluator)
    if labels is not None:
        metric = spec['metric']
        require_equal(labels, metric, score_of(metric, metrics))
        of_samples = dict(zip(('predicted', 'labels'), labels.T.numpy(), strict=True))
    facts = {
        'trainable': trainable,
        'frozen': frozen,
        'step_seconds': median(float(seconds) for seconds in step_seconds),
        'threads': torch.get_num_threads(),
        'device': device,
        VERSIONS: pixel_versions(),
    }
    return Result(
        metrics=metrics,
        scored=counts.scored,
        total=counts.total,
        seconds=timing.seconds,
        facts=facts,
        **of_samples,
    )


def _numbers_of(metrics: dict) -> dict[str, float]:
    """Return the metrics that are numbers, as Python floats."""
    numbers = {}
    for name, value in metrics.items():
        if isinstance(value, (int, float, np.number, torch.Tensor)):
            numbers[name] = float(value)
    return numbers


def tidy(spec: Mapping[str, Any], folder: Path) -> None:
    """Delete the checkpoints of a training that has a result, unless they are to stay.

    Args:
        spec (Mapping): The specification, of :func:`training_job`.
        folder (Path): The job's folder.
    """
    if spec['keep_checkpoints']:
        return
    run_folder = folder / RUN
    for path in (*run_folder.glob('*.pth'), run_folder / 'last_checkpoint'):
        path.unlink(missing_ok=True)
