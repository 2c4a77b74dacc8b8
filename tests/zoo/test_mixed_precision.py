"""The demo of every task learns in mixed precision on the CPU: ``--amp bf16`` and ``fp16``."""

import pytest
import torch

from lm4ve.runner.autocast import use_autocast
from lm4ve.runner.command_line import build_runner
from tests.helpers.shrink import shrinker_of
from tests.helpers.tasks import FOLDERS

DEMOS = {
    'image': 'vit-demo_minilm_digits.py',
    'video': 'videomae-demo_minilm_moving-digits.py',
    'pointcloud': 'pointbert-demo_minilm_primitives.py',
    'motion': 'vectornet-demo_minilm_sim.py',
    'vqa': 'meter-demo_minilm_easy-vqa.py',
    'rooms': 'sqa3d-demo_minilm_rooms.py',
    'medical': 'cmunext-demo_minilm_ultrasound.py',
}
#: Steps with one batch.
STEPS = 10


def rows() -> list:
    """Return (task, amp); all but one walk."""
    found = []
    for task in DEMOS:
        for amp in ('bf16', 'fp16'):
            is_quick = (task, amp) == ('image', 'bf16')
            marks = () if is_quick else pytest.mark.walk
            found.append(pytest.param(task, amp, marks=marks))
    return found


def test_every_task_has_a_demo_here():
    assert DEMOS.keys() == set(FOLDERS)


@pytest.mark.parametrize(('task', 'amp'), rows())
def test_demo_learns_a_batch(task, amp, tmp_path, monkeypatch):
    """Without dropout and augmentation the loss of one batch has to fall."""
    shrinker = shrinker_of(task, tmp_path / 'files')
    shrinker.enter(monkeypatch)
    cfg = shrinker.load(DEMOS[task], tmp_path / 'run')
    use_autocast(cfg, amp)
    runner = build_runner(cfg)
    model = runner.model
    model.init_weights()
    loader = runner.build_dataloader(cfg.train_dataloader, seed=0)
    batch = next(iter(loader))
    wrapper = runner.build_optim_wrapper(cfg.optim_wrapper)
    wrapper.initialize_count_status(model, 0, STEPS)
    losses = []
    for _ in range(STEPS):
        torch.manual_seed(0)
        losses.append(model.train_step(batch, wrapper)['loss'].item())
    assert min(losses[-3:]) < losses[0]
    assert all(torch.isfinite(p).all() for p in model.parameters())
