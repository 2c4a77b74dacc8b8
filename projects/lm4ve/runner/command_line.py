"""What the commands share: from flags to a config that a runner can be built from.

The flags are mmpretrain's; one set of commands serves every task. The names that a
command needs are all here, :func:`run_tool` among them.
"""

import argparse
import os
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict

from lm4ve.runner.config import check_config, merge_options
from lm4ve.runner.config import read_config as read_config
from lm4ve.runner.error_boundary import AFTER_STOP as AFTER_STOP
from lm4ve.runner.error_boundary import ERRORS as ERRORS
from lm4ve.runner.error_boundary import STOP_FILE as STOP_FILE
from lm4ve.runner.error_boundary import TRACEBACK as TRACEBACK
from lm4ve.runner.error_boundary import report as report
from lm4ve.runner.error_boundary import run_tool as run_tool
from lm4ve.runner.flags import CONFIG as CONFIG
from lm4ve.runner.flags import RUN as RUN
from lm4ve.runner.flags import build_parser as build_parser
from lm4ve.runner.runner import build_runner as build_runner
from lm4ve.runner.runner import set_strict_loading
from lm4ve.runner.without_gpu import adapt_to_cpu
from lm4ve.zoo import find_checkpoint

DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def load_config(args: argparse.Namespace) -> Config:
    """Read the config and merge the shared flags into it.

    Args:
        args (argparse.Namespace): Of the flags :data:`RUN`.

    Returns:
        Config: Not yet checked; see :func:`finish_config`.

    Raises:
        UserError: See :func:`lm4ve.runner.config.read_config`.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = read_config(args.config, set_scope=False)
    cfg.launcher = args.launcher
    default = f'./work_dirs/{Path(args.config).stem}'
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or default
    return cfg


def finish_config(
    cfg: Config,
    args: argparse.Namespace,
    for_this_machine: bool = True,
    trains: bool = True,
) -> Config:
    """Apply ``--cfg-options``, check the config, set defaults of dataloaders and machine.

    Args:
        cfg (Config): Changed in place.
        args (argparse.Namespace): Of the flags :data:`RUN`.
        for_this_machine (bool): Change what needs a GPU if this machine has none.
        trains (bool): Whether the run trains; else it tests.

    Returns:
        Config: The same config.

    Raises:
        UserError: See :func:`lm4ve.runner.config.check_config`.
    """
    if args.cfg_options is not None:
        merge_options(cfg, args.cfg_options)
    check_config(cfg)
    for name in DATALOADERS:
        if cfg.get(name):
            _set_defaults_of_loader(cfg, cfg[name], args)
    if for_this_machine:
        adapt_to_cpu(cfg, trains)
    return cfg


def _set_defaults_of_loader(
    cfg: Config, loader: ConfigDict, args: argparse.Namespace
) -> None:
    """Set the fields of a dataloader that a config leaves open, for flags and machine.

    Args:
        cfg (Config): The whole config.
        loader (ConfigDict): The dataloader's config, changed in place.
        args (argparse.Namespace): Of the flags :data:`RUN`.
    """
    if args.no_pin_memory:
        loader.pin_memory = False
    loader.setdefault('pin_memory', torch.cuda.is_available())
    if cfg.get('default_scope') == 'mmpretrain':
        loader.setdefault('collate_fn', ConfigDict(type='default_collate'))
    if loader.get('num_workers', 0) > 0:
        loader.setdefault('persistent_workers', True)
    else:
        loader.persistent_workers = False


def evaluate_checkpoint(
    cfg: Config, checkpoint: str, allow_partial: bool, strict_config: bool = False
) -> None:
    """Make a config's runner evaluate a checkpoint, all of it unless ``allow_partial``.

    Args:
        cfg (Config): Changed in place.
        checkpoint (str): A file, or ``'pretrained'`` for the weights that come with the
            config.
        allow_partial (bool): Load what fits and log the rest.
        strict_config (bool): Refuse a checkpoint that was trained otherwise.
    """
    cfg.load_from = str(find_checkpoint(checkpoint, cfg.filename))
    cfg.resume = False
    set_strict_loading(cfg, allow_partial=allow_partial, strict_config=strict_config)
