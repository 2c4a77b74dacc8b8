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
)
#: Marks a record of a logger for :func:`is_shown`.
_SHOWN = dict(for_console=True)
#: How many of the last steps a loss within an epoch is averaged over.
_WINDOW = 20


def is_shown(record: logging.LogRecord) -> bool:
    """Return whether a message belongs on the console, and prepare its prefix."""
    record.prefix = ''
    if record.levelno < logging.WARNING:
        return getattr(record, 'for_console', False)
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
    """Let a command end when nobody reads its console any more.

    By default ``logging`` prints a traceback for each line that it cannot write, and
    goes on.
    """
    for handler in logger.handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.handleError = functools.partial(_raise_broken_pipe, handler)  # type: ignore[method-assign]


def _raise_broken_pipe(handler: logging.Handler, record: logging.LogRecord) -> None:
    if isinstance(sys.exception(), BrokenPipeError):
        raise
    logging.Handler.handleError(handler, record)


class ConsoleHook(Hook):  # type: ignore[misc]
    """Print how a run starts, its progress after each epoch, and where the results are.

    On a terminal, a long epoch shows a bar with the time left. Elsewhere a line appears
    in the middle of an epoch when the last one is a minute old.
    """

    # After the hooks that measure times, log scalars and save checkpoints.
    priority = 'LOWEST'

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
        name = runner.experiment_name.removesuffix(f'_{runner.timestamp}')
        rows = {
            f'lm4ve {__version__}': f'{what}: {name}',
            'model': _describe_model(runner),
            'data': ', '.join(data),
            **more,
            'log': runner.logger.log_file or 'none',
        }
        text = '\n'.join(f'{title:12} {value}' for title, value in rows.items())
        runner.logger.info(text, extra=_SHOWN)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any
    ) -> None:
        """Move the bar on, or print a line in a long epoch."""
        loop = runner.train_loop
        if isinstance(loop, EpochBasedTrainLoop):
            self._advance(batch_idx, len(loop.dataloader))
        else:
            self._advance(runner.iter, loop.max_iters)
        is_due = time.monotonic() - self._printed_at > HEARTBEAT
        if self._bar.disable and is_due:
            self._print(runner, _progress(runner, _WINDOW, runner.iter + 1))

    def after_val_iter(
        self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any
    ) -> None:
        """Move the bar on."""
        self._advance(batch_idx, len(runner.val_loop.dataloader))

    def after_test_iter(
        self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any
    ) -> None:
        """Move the bar on."""
        self._advance(batch_idx, len(runner.test_loop.dataloader))

    def _advance(self, done: int, total: int) -> None:
        """Move the bar on by a step; it is shown on a terminal only."""
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
        if self._bar is not None:
            self._bar.close()
        self._bar = None

    def after_train_epoch(self, runner: Runner) -> None:
        """Print the epoch's line, or keep it until the scores of its validation are there."""
        self._close_bar()
        loop = runner.train_loop
        if not isinstance(loop, EpochBasedTrainLoop):
            return
        seconds = time.monotonic() - self._epoch_began
        progress = _progress(runner, len(loop.dataloader), runner.iter)
        line = f'{progress}  {seconds:.1f} s'
        if self._validates_now(runner):
            self._waiting_line = line
        else:
            self._print(runner, line)
        self._epoch_began = time.monotonic()

    def _validates_now(self, runner: Runner) -> bool:
        """Return whether a validation follows the epoch that has just ended."""
        loop = runner.train_loop
        epoch = runner.epoch + 1
        if runner.val_loop is None or epoch < loop.val_begin:
            return False
        if epoch % loop.val_interval == 0:
            return True
        return bool(self.is_last_train_epoch(runner))

    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, Any] | None = None
    ) -> None:
        """Print the scores, after the line of the epoch."""
        if self._waiting_line:
            line = self._waiting_line
        elif self._trains:
            line = _progress(runner, _WINDOW, runner.iter)
        else:
            line = 'validation'
        self._print(runner, _with_numbers(line, metrics))
        self._waiting_line = ''
        self._epoch_began = time.monotonic()

    def after_test_epoch(
        self, runner: Runner, metrics: dict[str, Any] | None = None
    ) -> None:
        """Print the scores."""
        self._print(runner, _with_numbers('test', metrics))

    def after_train(self, runner: Runner) -> None:
        """Print where the last checkpoint is."""
        saved = runner.message_hub.runtime_info.get('last_ckpt')
        if saved is not None:
            self._print(runner, f'saved        {saved}')

    def _print(self, runner: Runner, text: str) -> None:
        self._close_bar()
        self._printed_at = time.monotonic()
        runner.logger.info(text, extra=_SHOWN)


def _describe_model(runner: Runner) -> str:
    """Return the class of a model, of its parts, and where it runs."""
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
    """Return the size of a training's data and of its batches."""
    batch = getattr(loop.dataloader, 'batch_size', None) or 'batches'
    text = f'{_size_of(loop)} to train ({batch} a step'
    if isinstance(loop, EpochBasedTrainLoop):
        text += f', {len(loop.dataloader)} steps an epoch'
    return f'{text})'


def _size_of(loop: BaseLoop) -> str:
    """Return the number of samples of a loop's data."""
    dataset = loop.dataloader.dataset
    if not hasattr(dataset, '__len__'):
        return 'a stream'
    return f'{len(dataset):,}'


def _progress(runner: Runner, window: int, done: int) -> str:
    """Return where training is, its loss over some steps, rate and remaining time.

    Args:
        runner (Runner): It trains.
        window (int): Over how many of the last steps the loss is averaged.
        done (int): The number of steps, which is shown where there are no epochs.
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
    if 'train/lr' in scalars:
        text += f'  lr {scalars["train/lr"].current():.2e}'
    eta = runner.message_hub.runtime_info.get('eta')
    if eta is not None:
        text += f'  {timedelta(seconds=max(round(float(eta)), 0))} left'
    return text


def _with_numbers(line: str, metrics: dict[str, Any] | None) -> str:
    """Return a line and the scalar metrics, four digits each, in lines of :data:`WIDTH`."""
    words = [line]
    for name, value in (metrics or {}).items():
        is_scalar = isinstance(value, (int, float)) or getattr(value, 'ndim', None) == 0
        if is_scalar:
            # No line ends between a name and its number.
            words.append(f'{name}\xa0{float(value):.4f}')
    text = textwrap.fill(
        '  '.join(words),
        WIDTH,
        break_on_hyphens=False,
        break_long_words=False,
        subsequent_indent=' ' * 4,
    )
    return text.replace('\xa0', ' ')
