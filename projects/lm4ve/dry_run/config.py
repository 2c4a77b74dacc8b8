"""Checks the config: every field, as at the start of the training."""

import hashlib
from pathlib import Path

from lm4ve.dry_run.finding import Finding
from lm4ve.dry_run.plan import Plan
from lm4ve.runner.without_gpu import join_group


def check_config(plan: Plan) -> Finding:
    """Read the config with all flags, check its fields, and join the other processes.

    Raises:
        UserError: See :func:`lm4ve.runner.config.check_config`.
    """
    cfg = plan.configure()
    join_group(cfg)
    plan.cfg = cfg
    training = cfg.get('train_cfg') or {}
    length = 'nothing to train'
    for name in ('max_epochs', 'max_iters'):
        if name in training:
            unit = name.removeprefix('max_')
            length = f'{training[name]} {unit}'
    batch = (cfg.get('train_dataloader') or {}).get('batch_size')
    digest = hashlib.sha256(cfg.pretty_text.encode()).hexdigest()
    return Finding(
        f'{Path(cfg.filename).name}: {length}, batch {batch} in each process',
        facts={'config': digest[:12]},
    )
