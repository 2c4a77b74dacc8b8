"""The batch script of Slurm, without a Slurm."""

import os
import subprocess

from tests.helpers.tasks import ROOT

#: Sends the script its signal right before it notes the id of the training.
EARLY = """\
trap 'case $BASH_COMMAND in training=*!) trap - DEBUG; kill -USR1 $$;; esac' DEBUG
"""
SRUN = '#!/bin/sh\nsleep 1\n'


def test_a_signal_before_the_training_is_noted_brings_the_job_back(tmp_path):
    early = tmp_path / 'early.sh'
    early.write_text(EARLY)
    (tmp_path / 'srun').write_text(SRUN)
    (tmp_path / 'scontrol').write_text('#!/bin/sh\necho "$@"\n')
    for name in ('srun', 'scontrol'):
        (tmp_path / name).chmod(0o755)
    env = os.environ | dict(
        PATH=f'{tmp_path}:{os.environ["PATH"]}',
        BASH_ENV=str(early),
        SLURM_JOB_ID='7',
        SAVE_SECONDS='0',
    )
    done = subprocess.run(
        ['bash', ROOT / 'tools/slurm_batch.sh', 'config.py', tmp_path],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert 'requeue 7' in done.stdout
    assert done.returncode == 0
