"""Let a config that was written for GPUs run without one."""

import os
import subprocess
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log


def adapt_to_cpu(cfg: Config) -> None:
    """Change what needs a GPU in a config, unless there is one.

    Args:
        cfg (Config): Changed in place; its ``launcher`` must be set.
    """
    if torch.cuda.is_available():
        return
    wrapper: Any = cfg.get('optim_wrapper') or {}
    if wrapper.get('type') == 'AmpOptimWrapper':
        print_log(
            'No GPU: training in fp32, without AmpOptimWrapper.', 'current', level=30
        )
        wrapper.type = 'OptimWrapper'
        for key in ('loss_scale', 'dtype', 'use_fsdp'):
            wrapper.pop(key, None)
    if cfg.launcher != 'none':
        _join_group(cfg)
        _wrap_without_device(cfg)


def _join_group(cfg: Config) -> None:
    """Let the processes of a launcher communicate by gloo.

    MMEngine's own initialisation selects a CUDA device; it leaves an existing group
    alone.
    """
    if torch.distributed.is_initialized():
        return
    if cfg.launcher == 'slurm':
        _set_rendezvous_from_slurm(cfg)
    torch.distributed.init_process_group('gloo')


def _set_rendezvous_from_slurm(cfg: Config) -> None:
    """Set the variables by which torch's processes find each other from Slurm's."""
    env = os.environ
    if 'MASTER_ADDR' not in env:
        nodes = env.get('SLURM_JOB_NODELIST', env.get('SLURM_NODELIST', ''))
        hosts = subprocess.check_output(
            ['scontrol', 'show', 'hostnames', nodes], text=True
        )
        env['MASTER_ADDR'] = hosts.split()[0]
    port = cfg.get('env_cfg', {}).get('dist_cfg', {}).get('port', 29500)
    env.setdefault('MASTER_PORT', str(port))
    env['RANK'] = env['SLURM_PROCID']
    env['WORLD_SIZE'] = env['SLURM_NTASKS']
    env['LOCAL_RANK'] = env.get('SLURM_LOCALID', '0')


def _wrap_without_device(cfg: Config) -> None:
    """Set MMEngine's defaults for DDP, but for the device."""
    cfg.setdefault('model_wrapper_cfg', ConfigDict())
    cfg.model_wrapper_cfg.setdefault('type', 'MMDistributedDataParallel')
    cfg.model_wrapper_cfg.setdefault('broadcast_buffers', False)
    cfg.model_wrapper_cfg.device_ids = None
