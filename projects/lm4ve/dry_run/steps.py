"""Trains and validates real samples with everything that the config names, and times a step.

The config's runner trains as it will: it loads weights or resumes, wraps the model for
several processes, and calls all hooks. The batches are the config's, but for a GPU that
is not here, where each keeps its first samples. Validation has one small batch. After
two iterations (the first one warms up; distributed training complains of parameters
without gradients in the second one) it validates, saves a checkpoint to nowhere, takes
some steps at the highest learning rate, and stops.
"""

import contextlib
import copy
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import mmengine.runner
import torch
import wrapt
from mmengine.config import Config
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

from lm4ve.compat.mmengine_runner_state import give_loader
from lm4ve.dry_run.finding import Finding, warning_if
from lm4ve.dry_run.memory import naming_the_batch
from lm4ve.dry_run.peak import find_explosion, groups_of, train_at
from lm4ve.dry_run.plan import Plan
from lm4ve.errors import UserError, check, listing
from lm4ve.runner.console import ConsoleHook
from lm4ve.runner.ending.losses import losses_of
from lm4ve.runner.ending.signals import current_signals
from lm4ve.runner.runner import build_runner

#: Iterations of training, of which the last one is timed.
_STEPS = 2
#: Samples of a batch of validation, and of training for a GPU that is not here.
_SAMPLES = 2
_BACKEND = 'lm4ve_nowhere'
#: The file of the checkpoint that is measured.
_CHECKPOINT = 'dry_run.pth'


@register_backend(_BACKEND)
class NowhereBackend(LocalBackend):
    """MMEngine's local backend, but what is written goes nowhere.

    ``written`` has the sizes in bytes, by the last path of each name.
    """

    written: dict[str, int] = {}

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Note the size of a file instead of writing it."""
        self.written[Path(filepath).name] = len(obj)


class FirstOfBatches(wrapt.ObjectProxy):
    """A batch sampler whose batches are cut to their first samples.

    There are as many batches as before, so that schedules and resuming count as in the
    training.
    """

    # wrapt keeps attributes in this proxy only if their names begin with `_self_`.
    _self_samples = 1

    def cut_to(self, samples: int) -> None:
        """Set how many samples of each batch are kept."""
        self._self_samples = samples

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the first samples of each batch."""
        for batch in self.__wrapped__:
            yield list(batch)[: self._self_samples]


class StepsDone(Exception):
    """Ends a training after the steps of a dry run."""


class StepsHook(Hook):
    """Validate and save after the first steps of a training, and end it.

    Attributes:
        num_steps (int): How many steps are done.
        losses (dict[str, list[float]]): By name, of each step.
        seconds (float): The time of the last step.
        metrics (list[str]): The names of what the validation measures.
        losses_at_peak (list[float]): See :func:`lm4ve.dry_run.peak.train_at`.

    Args:
        count (int): How many steps to do.
        peak (float): How many times the learning rate of the first step the highest one
            is; 0: no steps are taken at it.
    """

    priority = 'LOWEST'

    def __init__(self, count: int = _STEPS, peak: float = 0.0) -> None:
        self._count = count
        self.num_steps = 0
        self.losses: dict[str, list[float]] = {}
        self.seconds = 0.0
        self.metrics: list[str] = []
        self.losses_at_peak: list[float] = []
        self._peak = peak
        self._peak_rates: list[float] = []
        self._began = 0.0

    def before_train(self, runner: Runner) -> None:
        """Note the highest learning rates."""
        if self._peak > 0:
            for group in groups_of(runner):
                self._peak_rates.append(group['lr'] * self._peak)

    def before_train_iter(self, *args: Any, **kwargs: Any) -> None:
        """Note when a step begins."""
        self._began = _now()

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Note the loss of a step; validate, save and stop after the last one.

        Raises:
            StepsDone: All steps are done.
            UserError: The loss is not finite, or a hook goes by a score that the
                validation does not have.
        """
        self.seconds = _now() - self._began
        self.num_steps += 1
        for name, tensor in losses_of(outputs).items():
            loss = float(tensor.detach().mean())
            if not math.isfinite(loss):
                raise UserError(f'The {name} of step {self.num_steps} is {loss}.')
            self.losses.setdefault(name, []).append(loss)
        if self.num_steps < self._count and runner.iter + 1 < runner.max_iters:
            return
        if runner.val_loop is not None:
            self.metrics = list(runner.val_loop.run() or {})
            _check_monitors(runner.hooks, self.metrics)
        _save_to_nowhere(runner)
        if self._peak_rates:
            # Last of all, since it may spoil the model.
            self.losses_at_peak = train_at(self._peak_rates, runner, data_batch)
        raise StepsDone


def _check_monitors(hooks: Sequence[Hook], metrics: Sequence[str]) -> None:
    """Check that the validation has the scores that hooks go by.

    MMEngine's ``EarlyStoppingHook`` only warns otherwise, and never stops a training.

    Args:
        hooks (Sequence[Hook]): Those that act on a validation and have a ``monitor``
            are checked.
        metrics (Sequence[str]): The names of the scores.

    Raises:
        UserError: A monitor is none of them.
    """
    for hook in hooks:
        monitor = getattr(hook, 'monitor', None)
        reads_scores = 'after_val_epoch' in hook.get_triggered_stages()
        if isinstance(monitor, str) and reads_scores:
            check(f'{type(hook).__name__}.monitor', monitor, choices=metrics)


def check_steps(plan: Plan) -> Finding:
    """Train two steps, validate a few samples, measure a checkpoint, and try the highest rate.

    Raises:
        UserError: A step does not fit into the memory.
        Exception: What the training would raise.
    """
    batch = plan.cfg.train_dataloader.get('batch_size', 1)
    with naming_the_batch(batch):
        return _try_steps(plan)


def _try_steps(plan: Plan) -> Finding:
    """Do what :func:`check_steps` says.

    Raises:
        Exception: What the training would raise.
    """
    cfg = copy.deepcopy(plan.cfg)
    cfg.work_dir = str(plan.folder)
    _write_nowhere(cfg)
    _update_in_each_step(cfg)
    runner = build_runner(cfg, short_console=True)
    runner.hooks[:] = [h for h in runner.hooks if not isinstance(h, ConsoleHook)]
    _cut_data(runner, plan)
    count = _STEPS
    if cfg.get('compile'):
        count += 1  # the second one compiles
    # A training that is continued has had this rate, and would refuse another one.
    tries_peak = plan.done == 0 and isinstance(runner, mmengine.runner.Runner)
    steps = StepsHook(count, plan.peak if tries_peak else 0.0)
    runner.register_hook(steps)
    NowhereBackend.written.clear()
    _train(runner)
    if steps.num_steps == 0:
        return Finding('nothing is left to train')
    plan.checkpoint_bytes = max(NowhereBackend.written.values(), default=0)
    if plan.checkpoint_bytes == 0:
        # A FlexibleRunner writes past the backend.
        plan.checkpoint_bytes = _bytes_under(plan.folder / _CHECKPOINT)
    if plan.device is None:
        plan.step_seconds = steps.seconds
    text = _describe(steps, plan)
    return warning_if(find_explosion(steps.losses, steps.losses_at_peak), text)


def _train(runner: Any) -> None:
    """Let a runner train until its :class:`StepsHook` ends it."""
    try:
        with contextlib.suppress(StepsDone):
            runner.train()
    finally:
        # The training has begun, and let them wait; see EndingHook.
        signals = current_signals()
        if signals is not None:
            signals.waits = False


def _describe(steps: StepsHook, plan: Plan) -> str:
    """Return what the steps were and took, for the table."""
    batch = _SAMPLES
    if plan.device is None:
        batch = plan.cfg.train_dataloader.batch_size
    text = (
        f'{steps.num_steps} of {batch} samples: {describe_losses(steps.losses)}, the last in '
        f'{steps.seconds:.3g} s'
    )
    if 'val' in plan.loaders:
        text += f'; 1 of validation: {listing(steps.metrics) or "no metrics"}'
    return text


def describe_losses(losses: Mapping[str, Sequence[float]]) -> str:
    """Return the losses of each step as text; the sum, which is 'loss', alone if there is one."""
    if 'loss' in losses:
        losses = {'loss': losses['loss']}
    parts = []
    for name, values in losses.items():
        parts.append(f'{name} {", ".join(f"{value:.3g}" for value in values)}')
    return '; '.join(parts) or 'no losses'


def _now() -> float:
    """Return a clock's seconds, once a GPU has done all that it was told to."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _bytes_under(path: Path) -> int:
    """Return the size of a file, or of all files of a folder; 0 if there is none."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob('*') if file.is_file())


def _write_nowhere(cfg: Config) -> None:
    """Let no hook and no visualizer of a config write outside of the work directory.

    Args:
        cfg (Config): Changed in place.
    """
    writers = [
        *(cfg.get('default_hooks') or {}).values(),
        *(cfg.get('custom_hooks') or ()),
    ]
    for hook in writers:
        if isinstance(hook, dict) and 'CheckpointHook' in str(hook.get('type')):
            if 'interval' in hook or 'max_keep_ckpts' in hook:
                hook['out_dir'] = None
                hook['backend_args'] = dict(backend=_BACKEND)
    if cfg.get('visualizer'):
        cfg.visualizer.vis_backends = None


def _update_in_each_step(cfg: Config) -> None:
    """Let each step be an update of one optimizer, also where gradients would be added up.

    In two steps the optimizer might not act at all: the checkpoint would lack its state,
    and processes would not exchange gradients.

    Args:
        cfg (Config): Changed in place.
    """
    wrapper = cfg.get('optim_wrapper')
    if isinstance(wrapper, Mapping) and 'accumulative_counts' in wrapper:
        cfg.optim_wrapper.accumulative_counts = 1


def _cut_data(runner: Any, plan: Plan) -> None:
    """Give a runner the dataloaders that are built already, with one small batch of validation.

    Batches of training are cut to a few samples if the training is for another GPU.

    Args:
        runner (Runner): Before it trains.
        plan (Plan): With the loaders.
    """
    give_loader(runner, 'train', plan.loaders['train'])
    if plan.device is not None:
        _cut_batches(plan.loaders['train'], _SAMPLES)
    if 'val' not in plan.loaders:
        return
    loader = plan.loaders['val']
    # From all over the data, as samples are often sorted by class.
    count = min(_SAMPLES, len(loader.dataset))
    apart = max(1, (len(loader.dataset) - 1) // max(1, count - 1))
    one_batch = [[index * apart for index in range(count)]]
    object.__setattr__(loader, 'batch_sampler', one_batch)
    give_loader(runner, 'val', loader)


def _cut_batches(loader: Any, samples: int) -> None:
    """Cut the batches of a dataloader to their first samples, in place."""
    first = FirstOfBatches(loader.batch_sampler)
    first.cut_to(samples)
    # A dataloader forbids the plain assignment; here only the batches get smaller.
    object.__setattr__(loader, 'batch_sampler', first)


def _save_to_nowhere(runner: Runner) -> None:
    """Save a checkpoint as the config's hook does, to a backend that only counts bytes."""
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook):
            runner.save_checkpoint(
                runner.work_dir,
                _CHECKPOINT,
                save_optimizer=hook.save_optimizer,
                save_param_scheduler=hook.save_param_scheduler,
                by_epoch=hook.by_epoch,
                backend_args=dict(backend=_BACKEND),
            )
            return
