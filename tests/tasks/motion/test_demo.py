"""The embedded default learns: a small part of it beats constant velocity."""

import numpy as np
import pytest
from mmengine.config import Config

from lm4ve.runner.command_line import build_runner
from lm4ve.tasks.motion import forecast_metrics
from lm4ve.tasks.motion.baselines import constant_velocity
from tests.helpers.tasks import FOLDERS


@pytest.mark.slow
def test_a_short_training_beats_constant_velocity_by_far(tmp_path):
    cfg = Config.fromfile(FOLDERS['motion'] / 'vectornet-demo_none_sim.py')
    cfg.work_dir, cfg.launcher, cfg.log_level = str(tmp_path), 'none', 'WARNING'
    cfg.visualizer.vis_backends = []
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.update(
            root=str(tmp_path / 'data'), counts=dict(train=320, val=40)
        )
        cfg[f'{split}_dataloader'].dataset.pipeline[0].update(agent_range=20.0, lane_range=25.0)
    cfg.randomness = dict(seed=0)
    cfg.train_dataloader.batch_size = 8
    cfg.train_cfg.update(max_epochs=6, val_interval=6)
    cfg.param_scheduler.total_steps = 6
    runner = build_runner(cfg)
    runner.train()
    learnt = runner.message_hub.get_scalar('val/motion/minFDE@6').current()
    dataset = runner.val_dataloader.dataset
    scenes = map(dataset.scene, range(len(dataset)))
    straight = np.mean(
        [forecast_metrics(*constant_velocity(s), *s.future)['minFDE'] for s in scenes]
    )
    assert learnt <= 0.6 * straight
