"""Let a config that was written for GPUs run without one."""

import datetime
import logging
import os
import subprocess
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from lm4ve.errors import check
from lm4ve.runner.process_rank import is_first_process


def adapt_to_cpu(cfg: Config, trains: bool = True) -> None:
    """Change fields of a config that need a GPU, if there is none.

    Mixed precision becomes fp32, and a model of several processes is wrapped for the CPU.

    Args:
        cfg (Config): Changed in place; its ``launcher`` must be set.
        trains (bool): Whether the run trains; else it tests. For the message.
    """
    if torch.cuda.is_available():
        return
    left_out = [*_leave_out_wrapper(cfg), *_leave_out_fp16(cfg)]
    if left_out and is_first_process():
        doing = 'training' if trains else 'testing'
        text = f'No GPU: {doing} in fp32, without {" and ".join(left_out)}.'
        print_log(text, logger='current', level=logging.WARNING)
    if cfg.launcher != 'none':
        _wrap_without_device(cfg)


def _leave_out_wrapper(cfg: Config) -> list[str]:
    """Replace MMEngine's wrapper for mixed precision; return its name if it was there."""
    wrapper: Any = cfg.get('optim_wrapper') or {}
    if wrapper.get('type') != 'AmpOptimWrapper':
        return []
    wrapper.type = 'OptimWrapper'
    for key in ('loss_scale', 'dtype', 'use_fsdp'):
        wrapper.pop(key, None)
    return ['AmpOptimWrapper']


def _leave_out_fp16(cfg: Config) -> list[str]:
    """Switch off fp16 in validation and test; return the fields that had switched it on.

    MMEngine would compute in bfloat16 on a CPU, and give other scores without a word.
    """
    fields = []
    for name in ('val_cfg', 'test_cfg'):
        loop: Any = cfg.get(name) or {}
        if loop.get('fp16'):
            loop.fp16 = False
            fields.append(f'{name}.fp16')
    return fields


def join_group(cfg: Config) -> None:
    """Let the processes of a launcher meet on gloo, unless there is a GPU or a group.

    MMEngine's own initialization would select a CUDA device. It is skipped where a group
    exists.

    Raises:
        UserError: ``dist_cfg.timeout`` is no number of seconds.
        DistStoreError: Another process did not come within that time.
    """
    if cfg.get('launcher', 'none') == 'none' or torch.cuda.is_available():
        return
    if torch.distributed.is_initialized():
        return
    settings = (cfg.get('env_cfg') or {}).get('dist_cfg') or {}
    if cfg.launcher == 'slurm':
        _set_rendezvous_from_slurm(settings)
    timeout = None
    seconds = settings.get('timeout')
    if seconds is not None:
        check('env_cfg.dist_cfg.timeout', seconds, kind=(int, float), above=0)
        timeout = datetime.timedelta(seconds=seconds)
    torch.distributed.init_process_group('gloo', timeout=timeout)


def _set_rendezvous_from_slurm(settings: Mapping[str, Any]) -> None:
    """Set torch's environment variables for the processes' rendezvous from Slurm's variables.

    Args:
        settings (Mapping): The config's ``dist_cfg``.
    """
    env = os.environ
    if 'MASTER_ADDR' not in env:
        nodes = env.get('SLURM_JOB_NODELIST', env.get('SLURM_NODELIST', ''))
        hosts = subprocess.check_output(
            ['scontrol', 'show', 'hostnames', nodes], text=True
        )
        env['MASTER_ADDR'] = hosts.split()[0]
    env.setdefault('MASTER_PORT', str(settings.get('port', 29500)))
    env['RANK'] = env['SLURM_PROCID']
    env['WORLD_SIZE'] = env['SLURM_NTASKS']
    env['LOCAL_RANK'] = env.get('SLURM_LOCALID', '0')


def _wrap_without_device(cfg: Config) -> None:
    """Set MMEngine's defaults of DDP in a config, but without a device, for models on the CPU."""
    cfg.setdefault('model_wrapper_cfg', ConfigDict())
    cfg.model_wrapper_cfg.setdefault('type', 'MMDistributedDataParallel')
    cfg.model_wrapper_cfg.setdefault('broadcast_buffers', False)
    cfg.model_wrapper_cfg.device_ids = None
