"""What the command line tools share: flags, processes without CUDA, error messages.

The flags are mmpretrain's; one set of tools serves every task of the suite.
"""

import argparse
import gc
import os
import os.path as osp
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.device import get_device
from mmengine.logging import MessageHub, print_log
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from lm4ve.errors import UserError, did_you_mean
from lm4ve.runner.block_in_use import BlockInUseHook
from lm4ve.runner.config import check_fields, merge_options, read_config
from lm4ve.runner.console import ConsoleHook, with_short_console
from lm4ve.runner.freed_memory import keep_freed_memory
from lm4ve.runner.loops import use_repeatable_loop
from lm4ve.runner.messages import explain
from lm4ve.runner.neck_progress import follow_progress
from lm4ve.runner.own_log import with_own_log
from lm4ve.runner.quiet import hush
from lm4ve.runner.resumable import with_checked_resume
from lm4ve.runner.resuming import resume_newest
from lm4ve.runner.whole_checkpoint import WholeCheckpointHook, warn_of_two_norms

#: Environment variable with the folder where the processes of a launcher leave errors.
ERRORS = 'LM4VE_ERRORS'
_DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def config_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with what every tool that reads a config takes.

    Args:
        description (str, optional): The tool's docstring; its lines are kept.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file path')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override config fields, for example model.neck.block.layers='
        '"(15,)" train_cfg.max_epochs=100',
    )
    return parser


def common_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the flags that training and testing share."""
    parser = config_parser(description)
    parser.add_argument(
        '--work-dir',
        help='where logs, checkpoints and metrics go; default: ./work_dirs/<config name>',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='job launcher',
    )
    parser.add_argument(
        '--amp', action='store_true', help='use automatic mixed precision (needs a GPU)'
    )
    parser.add_argument(
        '--no-pin-memory', action='store_true', help='set pin_memory=False in the dataloaders'
    )
    parser.add_argument(
        '--verbose',
        action='store_true',
        help='show on the console everything that goes into the log file',
    )
    # torch.distributed.launch passes this; torchrun sets LOCAL_RANK.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    return parser


def add_allow_partial(parser: argparse.ArgumentParser) -> None:
    """Add the flag of tools that evaluate a checkpoint."""
    parser.add_argument(
        '--allow-partial',
        action='store_true',
        help="load what fits where the checkpoint is not of the config's model; the rest is "
        'untrained, and the result says little',
    )


def load_config(args: argparse.Namespace) -> Config:
    """Read the config and merge the shared flags into it.

    Raises:
        UserError: See :func:`lm4ve.runner.config.read_config`.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = read_config(args.config, set_scope=False)
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        name = osp.splitext(osp.basename(args.config))[0]
        cfg.work_dir = osp.join('./work_dirs', name)
    return cfg


def finish_config(cfg: Config, args: argparse.Namespace) -> Config:
    """Apply --cfg-options, set dataloader defaults, adapt to the machine."""
    if args.cfg_options is not None:
        merge_options(cfg, args.cfg_options)
    check_fields(cfg)
    for field in _DATALOADERS:
        if (loader := cfg.get(field)) is None:
            continue
        if args.no_pin_memory:
            loader.pin_memory = False
        loader.setdefault('pin_memory', torch.cuda.is_available())
        if cfg.get('default_scope') == 'mmpretrain':
            loader.setdefault('collate_fn', ConfigDict(type='default_collate'))
        if loader.get('num_workers', 0) > 0:
            loader.setdefault('persistent_workers', True)
        else:
            loader.persistent_workers = False
    _adapt_to_cpu(cfg)
    return cfg


def evaluate_checkpoint(cfg: Config, checkpoint: str, allow_partial: bool) -> None:
    """Make a config's runner evaluate a checkpoint: all of it, unless somebody insists."""
    cfg.load_from, cfg.resume = checkpoint, False
    cfg.setdefault('default_hooks', ConfigDict())
    cfg.default_hooks.whole_checkpoint = ConfigDict(
        type='lm4ve.WholeCheckpointHook', allow_partial=allow_partial
    )


def _refuse_other_models(cfg: Config) -> None:
    """Add the hook that refuses a checkpoint of another model, if a config lacks it."""
    hooks = [*(cfg.get('default_hooks') or {}).values(), *(cfg.get('custom_hooks') or ())]
    kinds = {str(h.get('type')).rpartition('.')[2] for h in hooks if isinstance(h, dict)}
    if WholeCheckpointHook.__name__ not in kinds:
        cfg.setdefault('default_hooks', ConfigDict())
        cfg.default_hooks.whole_checkpoint = ConfigDict(type='lm4ve.WholeCheckpointHook')


def _adapt_to_cpu(cfg: Config) -> None:
    """Without an accelerator: no mixed precision, and processes over gloo."""
    if torch.cuda.is_available():
        return
    wrapper = cfg.get('optim_wrapper')
    if wrapper is not None and wrapper.get('type') == 'AmpOptimWrapper':
        print_log(
            'optim_wrapper.type=AmpOptimWrapper (mixed precision) needs a '
            'GPU, and there is none: training in fp32.',
            logger='current',
            level=30,
        )
        wrapper.type = 'OptimWrapper'
        for key in ('loss_scale', 'dtype', 'use_fsdp'):
            wrapper.pop(key, None)
    if cfg.launcher == 'none':
        return
    # MMEngine's own initialisation selects a CUDA device; a group that is
    # there already is left alone.
    if not torch.distributed.is_initialized():
        if cfg.launcher == 'slurm':
            _slurm_environment(cfg)
        torch.distributed.init_process_group('gloo')
    cfg.setdefault('model_wrapper_cfg', ConfigDict())
    cfg.model_wrapper_cfg.setdefault('type', 'MMDistributedDataParallel')
    cfg.model_wrapper_cfg.update(device_ids=None)
    cfg.model_wrapper_cfg.setdefault('broadcast_buffers', False)


def _slurm_environment(cfg: Config) -> None:
    """Set torch's rendezvous variables from Slurm's."""
    env = os.environ
    nodes = env.get('SLURM_JOB_NODELIST', env.get('SLURM_NODELIST', ''))
    if 'MASTER_ADDR' not in env:
        first = subprocess.run(
            ['scontrol', 'show', 'hostnames', nodes], capture_output=True, text=True, check=True
        ).stdout.split()[0]
        env['MASTER_ADDR'] = first
    port = cfg.get('env_cfg', {}).get('dist_cfg', {}).get('port', 29500)
    env.setdefault('MASTER_PORT', str(port))
    env['RANK'] = env['SLURM_PROCID']
    env['WORLD_SIZE'] = env['SLURM_NTASKS']
    env['LOCAL_RANK'] = env.get('SLURM_LOCALID', '0')


def build_runner(cfg: Config, short_console: bool = False) -> Runner:
    """Build the config's runner (``runner_type``, or MMEngine's default).

    Args:
        cfg (Config): See :func:`finish_config`.
        short_console (bool): Show on the console what
            :class:`lm4ve.runner.console.ConsoleHook` says, and warnings; the log file
            holds everything.

    Raises:
        UserError: ``load_from`` names a file that is not there, or nothing can be
            written in ``work_dir``.
    """
    start = cfg.get('load_from')
    if start and '://' not in start and not osp.exists(start):
        raise UserError(
            f"load_from='{start}' does not exist. Fix: train that model first (a "
            "folder below work_dirs has its config's name), correct the path, or "
            'set load_from=None to begin anew.'
        )
    if start and osp.isdir(start) and cfg.get('runner_type', 'Runner') == 'Runner':
        raise UserError(
            f"The checkpoint '{start}' is a folder. Fix: name a file in it, such as epoch_10.pth; "
            f'to go on with the training in that folder: --work-dir {start} --resume.'
        )
    check_writable(cfg.work_dir)
    if cfg.get('resume') and not start:
        resume_newest(cfg)
    if cfg.get('resume'):
        _refuse_other_models(cfg)
    use_repeatable_loop(cfg)
    if get_device() == 'cpu':
        keep_freed_memory(everything=True)
    name = cfg.get('runner_type', 'Runner')
    if (runner_class := RUNNERS.get(name)) is None:
        raise UserError(
            f"runner_type='{name}' is not registered.{did_you_mean(name, RUNNERS.module_dict)} "
            'Fix: correct it, or add the module that registers it to custom_imports.'
        )
    runner_class = with_own_log(with_checked_resume(runner_class))
    if short_console:
        runner_class = with_short_console(runner_class)
    runner = runner_class.from_cfg(cfg)
    if short_console:
        runner.register_hook(ConsoleHook())
    if not any(isinstance(h, BlockInUseHook) for h in runner.hooks):
        runner.register_hook(BlockInUseHook())
    follow_progress(runner)
    warn_of_two_norms(runner.model)
    return runner


def check_writable(folder: str) -> None:
    """Make a folder and write a megabyte into it, to fail before hours of training.

    Raises:
        UserError: The folder cannot be made, is read-only, or its disk is full.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 20))
    except OSError as e:
        raise UserError(
            f"work_dir='{folder}' cannot be written: {e.strerror}. Fix: free space there, or "
            'name another folder with --work-dir.'
        ) from e


def stop_on_sigterm() -> None:
    """Make SIGTERM end this process as Ctrl-C does, cleanly, with exit code 143."""
    owner = os.getpid()

    def stop(*_: object) -> None:
        if os.getpid() != owner:  # a worker that inherited this handler by a fork
            os._exit(128 + signal.SIGTERM)
        raise Terminated

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)


class Terminated(KeyboardInterrupt):
    """SIGTERM, as a scheduler sends it."""


def run_tool(main: Callable[[], None]) -> None:
    """Run a tool; what the user can mend ends in one message and exit code 2.

    Ctrl-C ends in one line and exit code 130, SIGTERM in one and 143. The old path of a
    moved tool is a link to the new one, which is printed.
    """
    called = Path(sys.argv[0])
    if called.is_symlink():
        new = osp.relpath(called.resolve())
        print(f'{called} is now {new}. A later release drops the old path.', file=sys.stderr)
    hush()
    before = signal.getsignal(signal.SIGTERM)
    stop_on_sigterm()
    try:
        main()
    except KeyboardInterrupt as e:
        terminated = isinstance(e, Terminated)
        if os.environ.get('RANK', '0') == '0':
            by = ' by SIGTERM' if terminated else ''
            print(f'\nStopped{by}. {what_to_do_next()}', file=sys.stderr)
        sys.exit(128 + (signal.SIGTERM if terminated else signal.SIGINT))
    except Exception as e:
        message = explain(e)
        if message is None:
            raise
        report(message)
        sys.exit(2)
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
        if torch.distributed.is_initialized():
            _leave_group()


def _leave_group() -> None:
    """Free what a tool has built, then the processes' group.

    A model in DDP holds the group. If it lives until the interpreter ends, the threads of
    gloo are still running then, and now and then the process is aborted: "terminate called
    without an active exception" (PyTorch issue 190489).
    """
    error: BaseException | None = sys.exception()
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
    gc.collect()
    torch.distributed.destroy_process_group()


def what_to_do_next() -> str:
    """Return what a stopped training has saved, and how it goes on."""
    if not MessageHub._instance_dict:
        return 'The same command starts it again.'
    saved = MessageHub.get_current_instance().runtime_info.get('last_ckpt')
    if saved is None:
        return 'Nothing was saved; the same command starts it again.'
    return f'Saved: {saved}. The same command with --resume goes on from there.'


def report(message: str) -> None:
    """Print an error, or hand it to the launcher, which prints it once for all processes."""
    if (path := os.environ.get(ERRORS)) is None:
        print(f'\nerror: {message}', file=sys.stderr)
        return
    rank = os.environ.get('RANK', '0')
    Path(path, f'{rank}.txt').write_text(message, encoding='utf-8')
