"""Make the config that a command trains or tests: the one place, in this order.

1. The file is read, with all that it inherits (:mod:`.reading`).
2. The run gets its folder and its launcher.
3. The command's own flags change fields: ``--epochs`` (``set_flags`` of the command).
4. ``--cfg-options`` override fields, and others follow them (:mod:`.overrides`).
5. The fields are checked (:mod:`.checking`).
6. The dataloaders get what the config leaves open.
7. Without a GPU, what needs one is replaced (:mod:`lm4ve.runner.without_gpu`).

What a runner makes of any config, also of one that no command has read, follows when it
is built (:func:`lm4ve.runner.runner.build_runner`): where it starts, and
:mod:`.completing`.
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict

from lm4ve.runner.config.checking import check_config
from lm4ve.runner.config.overrides import merge_options
from lm4ve.runner.config.reading import read_config
from lm4ve.runner.without_gpu import adapt_to_cpu

DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
#: Changes a config as the flags of one command say.
SetFlags = Callable[[Config, argparse.Namespace], None]


def final_config(
    args: argparse.Namespace,
    set_flags: SetFlags | None = None,
    for_this_machine: bool = True,
    trains: bool = True,
) -> Config:
    """Return the config that a command line names, ready for a runner.

    Args:
        args (argparse.Namespace): Of the flags :data:`lm4ve.runner.flags.RUN`, and of the
            command's own.
        set_flags (Callable, optional): Applies the command's own flags.
        for_this_machine (bool): Change what needs a GPU if this machine has none.
        trains (bool): Whether the run trains; else it tests.

    Raises:
        UserError: The file cannot be read, an override has no effect, or a field is
            wrong.
    """
    cfg = read_config(args.config, set_scope=False)
    _set_run(cfg, args)
    if set_flags is not None:
        set_flags(cfg, args)
    return finish_config(cfg, args, for_this_machine, trains)


def finish_config(
    cfg: Config,
    args: argparse.Namespace,
    for_this_machine: bool = True,
    trains: bool = True,
) -> Config:
    """Take the steps from ``--cfg-options`` on, for a config that is read already.

    Args:
        cfg (Config): Changed in place.
        args (argparse.Namespace): Has ``cfg_options`` and ``no_pin_memory``.
        for_this_machine (bool): See :func:`final_config`.
        trains (bool): See :func:`final_config`.

    Returns:
        Config: The same config.

    Raises:
        UserError: See :func:`final_config`.
    """
    if args.cfg_options is not None:
        merge_options(cfg, args.cfg_options)
    check_config(cfg)
    for name in DATALOADERS:
        if cfg.get(name):
            _complete_loader(cfg, cfg[name], args)
    if for_this_machine:
        adapt_to_cpu(cfg, trains)
    return cfg


def _set_run(cfg: Config, args: argparse.Namespace) -> None:
    """Give a config its work directory and its launcher."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg.launcher = args.launcher
    default = f'./work_dirs/{Path(args.config).stem}'
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or default


def _complete_loader(cfg: Config, loader: ConfigDict, args: argparse.Namespace) -> None:
    """Set the fields of a dataloader that a config leaves open, for flags and machine.

    Args:
        cfg (Config): The whole config.
        loader (ConfigDict): The dataloader's config, changed in place.
        args (argparse.Namespace): Has ``no_pin_memory``.
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
