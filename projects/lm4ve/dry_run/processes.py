"""Checks that all processes of the training meet, and run the same software."""

import socket
from collections import Counter

import mmengine
import torch
from mmengine.dist import all_gather_object, get_world_size, init_dist, is_distributed
from mmengine.utils.dl_utils import set_multi_processing

from lm4ve.dry_run.finding import Finding
from lm4ve.dry_run.plan import Plan
from lm4ve.files import machine
from lm4ve.version import __version__


def check_processes(plan: Plan) -> Finding:
    """Meet the other processes, as MMEngine's runner does, and count the machines."""
    cfg = plan.cfg
    environment = cfg.get('env_cfg') or {}
    is_launched = cfg.launcher != 'none'
    # Before `init_dist`, which lets workers be spawned where nothing is set.
    set_multi_processing(**environment.get('mp_cfg', {}), distributed=is_launched)
    if is_launched and not is_distributed():
        init_dist(cfg.launcher, **environment.get('dist_cfg', {}))
    # Containers of several machines may share a host name.
    here = (machine(), socket.gethostname())
    machines = Counter(all_gather_object(here))
    plan.local_processes = machines[here]
    counts = [f'{count} on {host}' for (_, host), count in machines.items()]
    versions = {
        'lm4ve': __version__,
        'mmengine': mmengine.__version__,
        'torch': torch.__version__,
    }
    device = 'CPU'
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    text = f'{get_world_size()}: {", ".join(counts)}; {device}'
    return Finding(text, facts={**versions, 'device': device})
