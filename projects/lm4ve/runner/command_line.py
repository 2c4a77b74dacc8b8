"""Shared by the commands: flags, processes without CUDA, and the boundary of errors.

The flags are mmpretrain's; one set of commands serves every task. :func:`run_tool` is
the only place where an exception becomes one line.
"""

import argparse
import functools
import gc
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import MessageHub, MMLogger, print_log

from lm4ve.errors import UserError
from lm4ve.runner.building import find_built_field
from lm4ve.runner.config import check_config, merge_options
from lm4ve.runner.config import read_config as read_config
from lm4ve.runner.flags import CONFIG as CONFIG
from lm4ve.runner.flags import RUN as RUN
from lm4ve.runner.flags import build_parser as build_parser
from lm4ve.runner.hooks import StopHook
from lm4ve.runner.pipes import exit_when_output_is_closed
from lm4ve.runner.runner import build_runner as build_runner
from lm4ve.runner.runner import load_strictly_by_default
from lm4ve.zoo import find_checkpoint

#: Environment variable with the folder where the processes of a launcher leave errors.
ERRORS = 'LM4VE_ERRORS'
#: Begins the part of an error's line that differs by process.
TRACEBACK = ' (traceback: '
DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def load_config(args: argparse.Namespace) -> Config:
    """Read the config and merge the shared flags into it.

    Raises:
        UserError: See :func:`lm4ve.runner.config.read_config`.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = read_config(args.config, set_scope=False)
    cfg.launcher = args.launcher
    cfg.work_dir = (
        args.work_dir or cfg.get('work_dir') or f'./work_dirs/{Path(args.config).stem}'
    )
    return cfg


def finish_config(cfg: Config, args: argparse.Namespace) -> Config:
    """Apply ``--cfg-options``, check the config, set defaults of dataloaders and machine.

    Raises:
        UserError: See :func:`lm4ve.runner.config.check_config`.
    """
    if args.cfg_options is not None:
        merge_options(cfg, args.cfg_options)
    check_config(cfg)
    for loader in filter(None, map(cfg.get, DATALOADERS)):
        if args.no_pin_memory:
            loader.pin_memory = False
        loader.setdefault('pin_memory', torch.cuda.is_available())
        if cfg.get('default_scope') == 'mmpretrain':
            loader.setdefault('collate_fn', ConfigDict(type='default_collate'))
        if loader.get('num_workers', 0) > 0:
            loader.setdefault('persistent_workers', True)
        else:
            loader.persistent_workers = False
    wrapper: Any = cfg.get('optim_wrapper') or {}
    if not torch.cuda.is_available() and wrapper.get('type') == 'AmpOptimWrapper':
        print_log(
            'No GPU: training in fp32, without AmpOptimWrapper.', 'current', level=30
        )
        wrapper.type = 'OptimWrapper'
        for key in ('loss_scale', 'dtype', 'use_fsdp'):
            wrapper.pop(key, None)
    if not torch.cuda.is_available() and cfg.launcher != 'none':
        _use_gloo(cfg)
    return cfg


def evaluate_checkpoint(cfg: Config, checkpoint: str, allow_partial: bool) -> None:
    """Make a config's runner evaluate a checkpoint, all of it unless ``allow_partial``.

    ``'pretrained'`` stands for the weights that come with the config.
    """
    cfg.load_from, cfg.resume = str(find_checkpoint(checkpoint, cfg.filename)), False
    load_strictly_by_default(cfg, allow_partial=allow_partial)


def _use_gloo(cfg: Config) -> None:
    """Let the processes of a launcher communicate without GPUs."""
    # MMEngine's own initialisation selects a CUDA device; it leaves an existing group
    # alone.
    if not torch.distributed.is_initialized():
        env = os.environ
        if cfg.launcher == 'slurm':  # torch's rendezvous, from Slurm's variables
            if 'MASTER_ADDR' not in env:
                nodes = env.get('SLURM_JOB_NODELIST', env.get('SLURM_NODELIST', ''))
                command = ['scontrol', 'show', 'hostnames', nodes]
                env['MASTER_ADDR'] = subprocess.check_output(
                    command, text=True
                ).split()[0]
            port = cfg.get('env_cfg', {}).get('dist_cfg', {}).get('port', 29500)
            env.setdefault('MASTER_PORT', str(port))
            env.update(RANK=env['SLURM_PROCID'], WORLD_SIZE=env['SLURM_NTASKS'])
            env['LOCAL_RANK'] = env.get('SLURM_LOCALID', '0')
        torch.distributed.init_process_group('gloo')
    cfg.setdefault('model_wrapper_cfg', ConfigDict())
    cfg.model_wrapper_cfg.setdefault('type', 'MMDistributedDataParallel')
    cfg.model_wrapper_cfg.setdefault('broadcast_buffers', False)
    cfg.model_wrapper_cfg.device_ids = None


def run_tool(main: Callable[[], None]) -> None:
    """Run a command; any exception becomes one line on stderr and an exit code.

    The code is 2; 130 after Ctrl-C, 143 after SIGTERM; 141 where nobody reads the
    output any more; and 1 after an error of one of several processes that the user need
    not mend, which a launcher may start again. Tracebacks go to the log file.
    """
    StopHook.is_running = False
    StopHook.asked = None
    before = _handle_signals()
    try:
        with exit_when_output_is_closed():
            main()
    except (Exception, KeyboardInterrupt) as e:
        number = _signal_behind(e)
        if number is not None:
            _report_stop(number)
            sys.exit(128 + number)
        if isinstance(e, UserError):
            # Without the traceback of a dataloader's worker.
            report(
                str(e)
                .rpartition(f'{type(e).__module__}.{type(e).__name__}: ')[2]
                .strip()
            )
            sys.exit(2)
        report(_one_line(e))
        sys.exit(1 if torch.distributed.is_initialized() else 2)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if torch.distributed.is_initialized():
            _leave_group()


def _handle_signals() -> dict[signal.Signals, Any]:
    """Let SIGTERM, and Ctrl-C where it is not ignored, end the command; return the old handlers."""
    handler = functools.partial(_on_signal, os.getpid())
    before: dict[signal.Signals, Any] = {}
    before[signal.SIGTERM] = signal.signal(signal.SIGTERM, handler)
    # A shell lets its background jobs ignore Ctrl-C.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        before[signal.SIGINT] = signal.signal(signal.SIGINT, handler)
    return before


def _on_signal(owner: int, number: int, _: object) -> None:
    """Stop at once, or at SIGTERM in a training after its iteration.

    What runs now may catch the exception and go on (MMEngine copies its message hub
    so); the number is kept for :class:`StopHook`.
    """
    if os.getpid() != owner and number == signal.SIGTERM:  # a worker that was forked
        os._exit(128 + number)
    StopHook.asked = number
    if number == signal.SIGINT or not StopHook.is_running:
        raise KeyboardInterrupt(number)


def _signal_behind(error: BaseException) -> signal.Signals | None:
    """Return the signal that began an error, or None.

    A library may catch a signal's exception and raise another one, as MMEngine does
    while it formats a config ("Failed to format the config file").
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, KeyboardInterrupt):
            return signal.SIGTERM if signal.SIGTERM in cause.args else signal.SIGINT
        cause = cause.__cause__ or cause.__context__
    return None


def _report_stop(number: signal.Signals) -> None:
    if os.environ.get('RANK', '0') == '0':
        saved = MessageHub.get_current_instance().runtime_info.get(
            'last_ckpt', 'nothing'
        )
        print(
            f'\nStopped by {number.name}. Saved: {saved} (--resume).', file=sys.stderr
        )


def _one_line(error: BaseException) -> str:
    """Describe an exception in one line, and write its traceback to the log file."""
    doing = ' '.join([Path(sys.argv[0]).name, *sys.argv[1:2]])
    path = MMLogger.get_current_instance().log_file if MMLogger._instance_dict else None
    if path is None or not Path(path).parent.is_dir():
        number, path = tempfile.mkstemp('.log', 'lm4ve-error-')
        os.close(number)
    with open(path, 'a', encoding='utf-8') as log:
        log.write(''.join(traceback.format_exception(error)))
    words = ' '.join(str(error).split())[:1000]
    field = find_built_field(error)
    place = '' if field is None else f'{field}: '
    return f'{doing}: {place}{type(error).__name__}: {words}{TRACEBACK}{path})'


def _leave_group() -> None:
    """Free what a command has built, then the processes' group.

    A model in DDP holds the group. If it lives until the interpreter ends, the threads
    of gloo are still running then, and now and then the process is aborted: "terminate
    called without an active exception" (PyTorch issue 190489).
    """
    error: BaseException | None = sys.exception()
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        for frame, _ in traceback.walk_tb(error.__traceback__):
            # Who has read a frame's variables left a copy there; reading them again
            # empties it.
            _ = frame.f_locals
        error = error.__cause__ or error.__context__
    gc.collect()
    torch.distributed.destroy_process_group()


def report(message: str) -> None:
    """Print an error, or leave it to the launcher, which prints it once for all processes."""
    if (path := os.environ.get(ERRORS)) is None:
        print(f'\nerror: {message}', file=sys.stderr)
        return
    rank = os.environ.get('RANK', '0')
    Path(path, f'{rank}.txt').write_text(message, encoding='utf-8')
