"""Shorten the console: how a run starts, one line an epoch, warnings and errors.

MMEngine writes its environment, the whole config, every hook and every parameter's
options to the console before the first epoch. All of this stays in the log file.
"""

import functools
import logging
import re
import sys
import textwrap
import time
from datetime import timedelta
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner
from tqdm import tqdm

from lm4ve.blocks import count_parameters
from lm4ve.compat.mmengine_lost_gradients import reaches
from lm4ve.runner.accumulation import SAVES_AT_END, describe_update
from lm4ve.runner.scored_data import (
    SCORED_KEY,
    TOTAL_KEY,
    SampleCounts,
    count_samples,
)
from lm4ve.version import __version__

#: Seconds after which a long epoch shows where it is, in a file.
HEARTBEAT = 60.0
#: Seconds after which a long epoch shows a bar, on a terminal.
BAR_DELAY = 5.0
#: Columns of a line.
WIDTH = 120
#: Warnings of MMEngine about itself.
FOREIGN = (
    '"FileClient" will be deprecated|"HardDiskBackend" is|Failed to search registry'
    '|is skipped since its requires_grad=False'
)
#: The module of MMEngine that says why a training ends early.
SAYS_WHY = 'early_stopping_hook'
#: Marks a record of a logger for :func:`is_shown`.
SHOWN = dict(for_console=True)
#: How many of the last steps a loss within an epoch is averaged over.
_WINDOW = 20


def is_shown(record: logging.LogRecord) -> bool:
    """Filter the messages of the console: warnings, errors, and lines that are meant for it.

    Also sets the attribute ``prefix`` of the record for the console's format: 'warning: '
    or another level, '' for our lines.
    """
    record.prefix = ''
    if record.levelno < logging.WARNING:
        return getattr(record, 'for_console', False) or record.module == SAYS_WHY
    record.prefix = f'{record.levelname.lower()}: '
    return not re.search(FOREIGN, record.getMessage())


def shorten(logger: logging.Logger) -> None:
    """Reduce a logger's console to warnings, errors and the lines of :class:`ConsoleHook`.

    Times and names are in the log file only.
    """
    for handler in logger.handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.addFilter(is_shown)
            handler.setFormatter(logging.Formatter('%(prefix)s%(message)s'))


def raise_when_closed(logger: logging.Logger) -> None:
    """Let a logger raise an error when the reader of its console is gone, as ``head`` is.

    By default ``logging`` prints a traceback for each line that it cannot write, and
    goes on.
    """
    for handler in logger.handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.handleError = functools.partial(_raise_broken_pipe, handler)  # type: ignore[method-assign]


def _raise_broken_pipe(handler: logging.Handler, record: logging.LogRecord) -> None:
    """Raise the present error if it is a broken pipe; else handle it as ``logging`` does."""
    if isinstance(sys.exception(), BrokenPipeError):
        raise
    logging.Handler.handleError(handler, record)


class ConsoleHook(Hook):  # type: ignore[misc]
    """Print how a run starts, its progress after each epoch, and where the results are.

    On a terminal, a long epoch shows a bar with the time left. Elsewhere a line appears
    in the middle of an epoch when the last one is a minute old.
    """

    # After the hooks that measure times, log scalars and save checkpoints ('VERY_LOW', 90),
    # and before the one that says why a training ends early ('LOWEST', 100).
    priority = 95

    def __init__(self) -> None:
        self._trains = False
        self._epoch_began = 0.0
        self._printed_at = 0.0
        #: The line of an epoch that waits for the scores of its validation.
        self._waiting_line = ''
        self._bar: Any = None

    def before_train(self, runner: Runner) -> None:
        """Print what will be trained, on which data and how long."""
        self._trains = True
        self._epoch_began = time.monotonic()
        self._printed_at = self._epoch_began
        loop = runner.train_loop
        by_epoch = isinstance(loop, EpochBasedTrainLoop)
        if by_epoch:
            what = f'training for {loop.max_epochs} epochs'
        else:
            what = f'training for {loop.max_iters} iterations'
        data = [_training_data(loop)]
        if runner.val_loop is not None:
            data.append(f'{_size_of(runner.val_loop)} to validate')
        trained, frozen = count_parameters(runner.model)
        rows = {'parameters': f'{trained:,} trained, {frozen:,} frozen'}
        update = describe_update(runner.cfg, runner.world_size)
        if update:
            rows['update'] = update.removeprefix('an update ')
            rows[''] = SAVES_AT_END
        if runner.iter:
            done = f'epoch {runner.epoch}' if by_epoch else f'iteration {runner.iter}'
            rows['resumed'] = f'after {done}'
        self._print_start(runner, what, data, rows)

    def before_test(self, runner: Runner) -> None:
        """Print what will be tested; a test after a training needs no second start."""
        if not self._trains:
            data = [f'{_size_of(runner.test_loop)} to test']
            self._print_start(runner, 'testing', data, {})

    def _print_start(
        self, runner: Runner, what: str, data: list[str], more: dict[str, str]
    ) -> None:
        """Print the rows at the start of a run: what it does, its model, data and log file.

        Args:
            runner (Runner): The runner.
            what (str): What the run does, such as 'testing'.
            data (list[str]): Descriptions of its data.
            more (dict[str, str]): Further rows by title.
        """
        name = runner.experiment_name.removesuffix(f'_{runner.timestamp}')
        rows = {
            f'lm4ve {__version__}': f'{what}: {name}',
            'model': _describe_model(runner),
            'data': ', '.join(data),
            **more,
            'log': runner.logger.log_file or 'none',
        }
        text = '\n'.join(f'{title:12} {value}' for title, value in rows.items())
        runner.logger.info(text, extra=SHOWN)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any
    ) -> None:
        """Move the progress bar on by a step; without a bar, print a line once a minute.

        There is no bar where the output is no terminal. The last step has a line in any
        case, but none has two.
        """
        loop = runner.train_loop
        if isinstance(loop, EpochBasedTrainLoop):
            self._advance(batch_idx, len(loop.dataloader))
        else:
            self._advance(runner.iter, loop.max_iters)
        if self._line_follows(runner, batch_idx):
            return
        is_due = time.monotonic() - self._printed_at > HEARTBEAT
        if self.is_last_train_iter(runner) or (self._bar.disable and is_due):
            line = _progress(runner, window=_WINDOW, done=runner.iter + 1)
            self._print(runner, line)

    def _line_follows(self, runner: Runner, batch_idx: int) -> bool:
        """Return whether the line of an epoch or of a validation follows this step at once."""
        loop = runner.train_loop
        if isinstance(loop, EpochBasedTrainLoop):
            return bool(self.end_of_epoch(loop.dataloader, batch_idx))
        return self._validates_now(runner)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any
    ) -> None:
        """Move the progress bar of the validation on by a step."""
        self._advance(batch_idx, len(runner.val_loop.dataloader))

    def after_test_iter(
        self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any
    ) -> None:
        """Move the progress bar of the test on by a step."""
        self._advance(batch_idx, len(runner.test_loop.dataloader))

    def _advance(self, done: int, total: int) -> None:
        """Move the progress bar on by a step, and create it before its first one.

        Args:
            done (int): The number of steps before this one.
            total (int): The number of steps at the end of the bar.
        """
        if self._bar is None:
            self._bar = tqdm(
                initial=done,
                total=total,
                delay=BAR_DELAY,
                disable=None,
                leave=False,
                dynamic_ncols=True,
            )
        self._bar.update()

    def _close_bar(self) -> None:
        """Remove the progress bar; the next step creates another one."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None

    def after_train_epoch(self, runner: Runner) -> None:
        """Print the line of an epoch, or keep it for :meth:`after_val_epoch` to add the scores."""
        self._close_bar()
        loop = runner.train_loop
        if not isinstance(loop, EpochBasedTrainLoop):
            return
        seconds = time.monotonic() - self._epoch_began
        progress = _progress(runner, window=len(loop.dataloader), done=runner.iter)
        line = f'{progress}  {seconds:.1f} s'
        if self._validates_now(runner):
            self._waiting_line = line
        else:
            self._print(runner, line)
        self._epoch_began = time.monotonic()

    def _validates_now(self, runner: Runner) -> bool:
        """Return whether a validation follows the epoch, or the step, that has just ended."""
        loop = runner.train_loop
        # Runner and loop count after their hooks.
        if isinstance(loop, EpochBasedTrainLoop):
            done = runner.epoch + 1
            is_last = self.is_last_train_epoch(runner)
            is_due = done % loop.val_interval == 0
        else:
            done = runner.iter + 1
            is_last = self.is_last_train_iter(runner)
            is_due = reaches(runner, done, loop.val_interval)
        if runner.val_loop is None or done < loop.val_begin:
            return False
        return bool(is_last or is_due)

    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, Any] | None = None
    ) -> None:
        """Print the scores of a validation, in one line with the epoch before it."""
        if self._waiting_line:
            line = self._waiting_line
        elif self._trains:
            line = _progress(runner, window=_WINDOW, done=runner.iter)
        else:
            line = 'validation'
        counts = count_samples(runner.val_dataloader.dataset)
        self._print(runner, _with_numbers(line, metrics, counts))
        self._waiting_line = ''
        self._epoch_began = time.monotonic()

    def after_test_epoch(
        self, runner: Runner, metrics: dict[str, Any] | None = None
    ) -> None:
        """Print the scores of a test."""
        counts = count_samples(runner.test_dataloader.dataset)
        self._print(runner, _with_numbers('test', metrics, counts))

    def after_train(self, runner: Runner) -> None:
        """Print where the last and the best checkpoint are."""
        for title, key in (('saved', 'last_ckpt'), ('best', 'best_ckpt')):
            path = runner.message_hub.runtime_info.get(key)
            if path is not None:
                self._print(runner, f'{title:12} {path}')

    def _print(self, runner: Runner, text: str) -> None:
        """Print a line by the runner's logger, and note when, for the next heartbeat."""
        self._close_bar()
        self._printed_at = time.monotonic()
        runner.logger.info(text, extra=SHOWN)


def _describe_model(runner: Runner) -> str:
    """Describe a model by its class, its parts' classes and its device, for the start."""
    model = getattr(runner.model, 'module', runner.model)
    parts = []
    for name, part in model.named_children():
        if name != 'data_preprocessor':
            parts.append(type(part).__name__)
    first = next(model.parameters(), None)
    device = 'cpu' if first is None else first.device.type
    text = f'{type(model).__name__}({", ".join(parts)}) on {device}'
    if runner.world_size > 1:
        text += f', {runner.world_size} processes'
    return text


def _training_data(loop: BaseLoop) -> str:
    """Describe the number of training samples, of samples a step and of steps an epoch."""
    batch = getattr(loop.dataloader, 'batch_size', None) or 'batches'
    text = f'{_size_of(loop)} to train ({batch} a step'
    if isinstance(loop, EpochBasedTrainLoop):
        text += f', {len(loop.dataloader)} steps an epoch'
    return f'{text})'


def _size_of(loop: BaseLoop) -> str:
    """Return the number of samples of a loop's data, or 'a stream' for data without length."""
    dataset = loop.dataloader.dataset
    if not hasattr(dataset, '__len__'):
        return 'a stream'
    return f'{len(dataset):,}'


def _progress(runner: Runner, window: int, done: int) -> str:
    """Return a line about a training: its epoch or step, loss, learning rate and time left.

    For example 'epoch  3/10  loss 0.6931  lr 1.00e-03  0:12:30 left'. The learning rate is
    that of the config and its schedules, without the factors of ``paramwise_cfg``.

    Args:
        runner (Runner): The runner that trains.
        window (int): The number of last steps over which the loss is averaged.
        done (int): The number of finished steps, shown where there are no epochs.
    """
    loop = runner.train_loop
    if isinstance(loop, EpochBasedTrainLoop):
        # Hooks after an epoch see its number from 0, as those within it do.
        number = min(runner.epoch + 1, loop.max_epochs)
        end = loop.max_epochs
        unit = 'epoch'
    else:
        number = done
        end = runner.max_iters
        unit = 'iter'
    text = f'{unit} {number:{len(str(end))}}/{end}'
    scalars = runner.message_hub.log_scalars
    if 'train/loss' in scalars:
        text += f'  loss {scalars["train/loss"].mean(window):.4f}'
    # Where groups have rates of their own, the first one's is not the config's.
    for rate in ('train/base_lr', 'train/lr'):
        if rate in scalars:
            text += f'  lr {scalars[rate].current():.2e}'
            break
    eta = runner.message_hub.runtime_info.get('eta')
    if eta is not None:
        text += f'  {timedelta(seconds=max(round(float(eta)), 0))} left'
    return text


def _with_numbers(
    line: str, metrics: dict[str, Any] | None, counts: SampleCounts | None
) -> str:
    """Append the scalar metrics to a line, and wrap it at :data:`WIDTH` columns.

    Args:
        line (str): The beginning of the line.
        metrics (dict, optional): Values by name; those that are no scalars are left out.
        counts (SampleCounts, optional): Of the samples that the metrics are over, which
            follow at the end.
    """
    words = [line]
    for name, value in (metrics or {}).items():
        if name in (SCORED_KEY, TOTAL_KEY):
            continue
        is_scalar = isinstance(value, (int, float)) or getattr(value, 'ndim', None) == 0
        if is_scalar:
            # No line ends between a name and its number.
            words.append(f'{name}\xa0{float(value):.4f}')
    if counts is not None:
        words.append(str(counts).replace(' ', '\xa0'))
    text = textwrap.fill(
        '  '.join(words),
        WIDTH,
        break_on_hyphens=False,
        break_long_words=False,
        subsequent_indent=' ' * 4,
    )
    return text.replace('\xa0', ' ')
