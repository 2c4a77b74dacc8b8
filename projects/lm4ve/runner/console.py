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
from mmengine.runner import EpochBasedTrainLoop, Runner
from tqdm import tqdm

from lm4ve.blocks import count_parameters
from lm4ve.version import __version__

#: Seconds after which a long epoch shows where it is: in a file, and on a terminal.
HEARTBEAT, BAR_DELAY = 60.0, 5.0
#: Columns of a line.
WIDTH = 120
#: Warnings of MMEngine about itself.
FOREIGN = (
    '"FileClient" will be deprecated|"HardDiskBackend" is|Failed to search registry'
)
_SHOWN = dict(for_console=True)


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
    _printed_at = _begun = 0.0
    _line = ''
    _trains = False
    _bar: Any = None

    def before_train(self, runner: Runner) -> None:
        self._trains = True
        self._printed_at = self._begun = time.monotonic()
        loop = runner.train_loop
        by_epoch = isinstance(loop, EpochBasedTrainLoop)
        length = (
            f'{loop.max_epochs} epochs' if by_epoch else f'{loop.max_iters} iterations'
        )
        size = getattr(loop.dataloader, 'batch_size', None) or 'batches'
        steps = f', {len(loop.dataloader)} steps an epoch' if by_epoch else ''
        data = f' to train ({size} a step{steps})'
        trained, frozen = count_parameters(runner.model)
        rows = {'parameters': f'{trained:,} trained, {frozen:,} frozen'}
        if runner.iter:
            done = f'epoch {runner.epoch}' if by_epoch else f'iteration {runner.iter}'
            rows['resumed'] = f'after {done}'
        loaders = {data: loop.dataloader}
        if runner.val_loop is not None:
            loaders[' to validate'] = runner.val_loop.dataloader
        self._start(runner, f'training for {length}', loaders, rows)

    def before_test(self, runner: Runner) -> None:
        if not self._trains:  # a test after a training needs no second start
            self._start(
                runner, 'testing', {' to test': runner.test_loop.dataloader}, {}
            )

    def _start(
        self, runner: Runner, what: str, loaders: dict[str, Any], rows: dict[str, str]
    ) -> None:
        model = getattr(runner.model, 'module', runner.model)
        parts = (
            type(m).__name__
            for n, m in model.named_children()
            if n != 'data_preprocessor'
        )
        name = runner.experiment_name.removesuffix(f'_{runner.timestamp}')
        device = next((p.device.type for p in model.parameters()), 'cpu')
        processes = f', {runner.world_size} processes' if runner.world_size > 1 else ''
        data = [
            (f'{len(v.dataset):,}' if hasattr(v.dataset, '__len__') else 'a stream')
            + use
            for use, v in loaders.items()
        ]
        rows = {
            f'lm4ve {__version__}': f'{what}: {name}',
            'model': f'{type(model).__name__}({", ".join(parts)}) on {device}{processes}',
            'data': ', '.join(data),
            **rows,
            'log': runner.logger.log_file or 'none',
        }
        runner.logger.info(
            '\n'.join(f'{k:12} {v}' for k, v in rows.items()), extra=_SHOWN
        )

    def after_train_iter(
        self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any
    ) -> None:
        loop = runner.train_loop
        if isinstance(loop, EpochBasedTrainLoop):
            self._advance(batch_idx, len(loop.dataloader))
        else:
            self._advance(runner.iter, loop.max_iters)
        if self._bar.disable and time.monotonic() - self._printed_at > HEARTBEAT:
            self._print(runner, _progress(runner, 20, runner.iter + 1))

    def after_val_iter(
        self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any
    ) -> None:
        self._advance(batch_idx, len(runner.val_loop.dataloader))

    def after_test_iter(
        self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any
    ) -> None:
        self._advance(batch_idx, len(runner.test_loop.dataloader))

    def _advance(self, done: int, total: int) -> None:
        """Move the bar on by a step; there is none unless a terminal shows it."""
        if self._bar is None:
            shown = dict(disable=None, leave=False, dynamic_ncols=True)
            self._bar = tqdm(initial=done, total=total, delay=BAR_DELAY, **shown)
        self._bar.update()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None

    def after_train_epoch(self, runner: Runner) -> None:
        self._close_bar()
        loop = runner.train_loop
        if not isinstance(loop, EpochBasedTrainLoop):
            return
        seconds = time.monotonic() - self._begun
        line = (
            f'{_progress(runner, len(loop.dataloader), runner.iter)}  {seconds:.1f} s'
        )
        is_due = (
            runner.epoch + 1
        ) % loop.val_interval == 0 or self.is_last_train_epoch(runner)
        if (
            runner.val_loop is not None
            and runner.epoch + 1 >= loop.val_begin
            and is_due
        ):
            self._line = line  # to be printed with the scores
        else:
            self._print(runner, line)
        self._begun = time.monotonic()

    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, Any] | None = None
    ) -> None:
        line = _progress(runner, 20, runner.iter) if self._trains else 'validation'
        self._print(runner, _with_numbers(self._line or line, metrics))
        self._line, self._begun = '', time.monotonic()

    def after_test_epoch(
        self, runner: Runner, metrics: dict[str, Any] | None = None
    ) -> None:
        self._print(runner, _with_numbers('test', metrics))

    def after_train(self, runner: Runner) -> None:
        if (saved := runner.message_hub.runtime_info.get('last_ckpt')) is not None:
            self._print(runner, f'saved        {saved}')

    def _print(self, runner: Runner, text: str) -> None:
        self._close_bar()
        self._printed_at = time.monotonic()
        runner.logger.info(text, extra=_SHOWN)


def _progress(runner: Runner, window: int, done: int) -> str:
    """Return where training is, its loss over some steps, rate and remaining time."""
    loop, scalars = runner.train_loop, runner.message_hub.log_scalars
    at, end, word = done, runner.max_iters, 'iter'
    if isinstance(loop, EpochBasedTrainLoop):
        # Hooks after an epoch see its number from 0, as those within it do.
        at, end, word = min(runner.epoch + 1, loop.max_epochs), loop.max_epochs, 'epoch'
    text = f'{word} {at:{len(str(end))}}/{end}'
    if 'train/loss' in scalars:
        text += f'  loss {scalars["train/loss"].mean(window):.4f}'
    if 'train/lr' in scalars:
        text += f'  lr {scalars["train/lr"].current():.2e}'
    if (eta := runner.message_hub.runtime_info.get('eta')) is not None:
        text += f'  {timedelta(seconds=max(round(float(eta)), 0))} left'
    return text


def _with_numbers(line: str, metrics: dict[str, Any] | None) -> str:
    """Return a line and the scalar metrics, four digits each, in lines of :data:`WIDTH`."""
    numbers = [
        f'{name}\xa0{float(value):.4f}'  # no line ends between a name and its number
        for name, value in (metrics or {}).items()
        if isinstance(value, (int, float)) or getattr(value, 'ndim', None) == 0
    ]
    settings: Any = dict(
        break_on_hyphens=False, break_long_words=False, subsequent_indent=' ' * 4
    )
    return textwrap.fill('  '.join([line, *numbers]), WIDTH, **settings).replace(
        '\xa0', ' '
    )
