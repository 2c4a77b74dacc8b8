"""Lets the process of rank 1 sleep while its config is read: the others never meet it."""

import os
import time
from pathlib import Path

RANK = os.environ.get('RANK', os.environ.get('SLURM_PROCID'))
if 'LM4VE_TEST_ABSENT' in os.environ:
    # A file for each start of a job.
    start = os.environ.get('SLURM_RESTART_COUNT', '0')
    Path(f'{os.environ["LM4VE_TEST_ABSENT"]}{start}').touch()
    if RANK == '1':
        time.sleep(600)
