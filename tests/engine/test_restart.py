"""A job whose process is killed ends soon, starts again, and ends with the same weights."""

import subprocess
import time
from pathlib import Path

import pytest
import torch

from tests.engine.test_distributed import environment
from tests.helpers.tasks import ROOT

pytest.importorskip('mmpretrain')

CONFIG = """
_base_ = '{root}/configs/lm4ve/vit-demo_minilm_digits.py'
custom_imports = dict(imports=['lm4ve', 'tests.engine.recording'])
custom_hooks = [dict(type='KillOnceHook', mark='{mark}', rank=1, after=5)]
train_dataloader = dict(batch_size=8, dataset=dict(indices=64))
val_dataloader = val_cfg = val_evaluator = None
train_cfg = dict(max_epochs=2, val_interval=1)
param_scheduler = dict(total_steps=2)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=3, max_keep_ckpts=-1))
"""


def train(folder: Path, script: str, mark: str) -> tuple[dict, float | None]:
    """Train on two processes; return the last weights, and when it was started again."""
    folder.mkdir()
    config = folder / 'config.py'
    config.write_text(CONFIG.format(root=ROOT, mark=mark))
    job = subprocess.Popen(
        ['bash', ROOT / 'tools' / script, config, '2', '--work-dir', folder / 'work'],
        env={**environment(), 'PAUSE': '0', 'RESTARTS': '1'},
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    said, again = [], None
    for line in job.stderr:
        said.append(line)
        if 'is started again; 0 more restart(s) left' in line:
            again = time.time()
    assert job.wait(300) == 0, ''.join(said)[-3000:]
    saved = torch.load(folder / 'work' / 'iter_8.pth', weights_only=True)
    return saved['state_dict'], again


@pytest.mark.slow
def test_a_killed_rank_costs_a_restart_and_changes_no_weight(tmp_path):
    mark = tmp_path / 'killed'
    whole, _ = train(tmp_path / 'whole', 'dist_train.sh', '')
    cut, again = train(tmp_path / 'cut', 'dist_train_restarting.sh', str(mark))
    # The other process did not wait for the dead one.
    assert again - float(mark.read_text()) < 25
    assert whole.keys() == cut.keys()
    for name, value in whole.items():
        assert torch.equal(value, cut[name]), name


@pytest.mark.slow
def test_a_mistake_of_the_user_is_not_started_again(tmp_path):
    done = subprocess.run(
        ['bash', ROOT / 'tools/dist_train_restarting.sh', tmp_path / 'none.py', '2'],
        env={**environment(), 'PAUSE': '0'},
        text=True,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 2
    assert 'started again' not in done.stderr
