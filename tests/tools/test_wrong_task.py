"""A tool of one task refuses a config of another."""

import pytest

from tests.helpers.tasks import ROOT

IMAGE = ROOT / 'configs/lm4ve/vit-demo_none_digits.py'
CLOUDS = ROOT / 'configs/pointcloud/pointbert-demo_none_primitives.py'
TRAFFIC = ROOT / 'configs/motion/vectornet-demo_none_sim.py'


@pytest.mark.parametrize(
    'tool, config',
    [
        ('pointcloud/draw.py', IMAGE),
        ('motion/draw.py', IMAGE),
        ('motion/draw.py', CLOUDS),
        ('motion/submit.py', IMAGE),
        ('motion/baselines.py', CLOUDS),
    ],
)
def test_config_of_another_task_is_refused(tool, config, fails, tmp_path):
    pytest.importorskip('mmpretrain')
    files = [] if 'baselines' in tool else [tmp_path / 'out.png']
    checkpoint = [tmp_path / 'model.pth'] if 'submit' in tool else []
    assert 'this tool takes configs of' in fails(tool, config, *checkpoint, *files)


def test_simulated_traffic_cannot_be_submitted(fails, tmp_path):
    said = fails('motion/submit.py', TRAFFIC, tmp_path / 'model.pth', tmp_path / 'out.h5')
    assert 'simulated' in said and 'Argoverse 1 or 2' in said


def test_wrong_submission_format_is_refused_early(fails, tmp_path):
    options = '--cfg-options', 'test_dataloader.dataset.type=lm4ve.MotionDataset'
    config = ROOT / 'configs/motion/vectornet_argoverse2.py'
    said = fails('motion/submit.py', config, tmp_path / 'm.pth', tmp_path / 'o.h5', *options)
    assert 'must be one of .parquet' in said
