"""A training that runs for minutes at its first start in a Slurm job, and else for a moment.

So a test can disturb the first start, whenever Slurm gets to it.
"""

import os
import time
from pathlib import Path

from mmengine.hooks import Hook

from lm4ve.registry import HOOKS
from tests.helpers.grids.toy import CONFIG


@HOOKS.register_module(force=True)
class SlowFirstStartHook(Hook):
    """Waits after each step of a job's first start, and touches a file at the third.

    Args:
        mark (str): The file; '' for no waiting.
    """

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        is_first_start = 'SLURM_RESTART_COUNT' not in os.environ
        if not self.mark or 'SLURM_JOB_ID' not in os.environ or not is_first_start:
            return
        if runner.iter == 2:
            Path(self.mark).touch()
        time.sleep(1)


EPOCHS = 60
CHANGES = """
custom_imports['imports'].append('tests.helpers.slurm_training')
custom_hooks = [dict(type='SlowFirstStartHook', mark='{mark}')]
train_dataloader.update(num_workers=1)
train_cfg.update(max_epochs={epochs}, val_interval={epochs})
default_hooks = dict(
    checkpoint=dict(
        type='lm4ve.AtomicCheckpointHook', interval=20, max_keep_ckpts=1))
"""


def write_config(folder: Path, mark: str = '') -> Path:
    """Write a config of 4 steps an epoch; with a mark it waits a second at each."""
    folder.mkdir()
    path = folder / 'config.py'
    path.write_text(CONFIG + CHANGES.format(mark=mark, epochs=EPOCHS))
    return path
