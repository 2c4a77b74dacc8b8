"""Pictures of forecasts show the checkpoint's model or nothing."""

import pytest
import torch
from mmengine.registry import MODELS

from lm4ve.errors import CheckpointError
from lm4ve.runner.config import read_config
from tests.helpers.tasks import CONFIGS
from tests.helpers.tools import run_tool_here

pytest.importorskip('pandas')
CONFIG = CONFIGS / 'motion/vectornet-demo_none_sim.py'


def test_a_checkpoint_that_lacks_weights_is_refused_and_they_are_named(tmp_path):
    data = f'test_dataloader.dataset.root={tmp_path / "sim"}'
    counts = 'test_dataloader.dataset.counts.train=2', 'test_dataloader.dataset.counts.val=2'
    state = MODELS.build(read_config(CONFIG).model).state_dict()
    torch.save(dict(state_dict=state), tmp_path / 'whole.pth')
    missing = [state.popitem()[0] for _ in range(2)]
    torch.save(dict(state_dict=state), tmp_path / 'partial.pth')

    def draw(checkpoint: str) -> None:
        files = CONFIG, tmp_path / 'grid.png', '--checkpoint', tmp_path / checkpoint
        run_tool_here('motion/draw.py', *files, '--scenes', 2, '--cfg-options', data, *counts)

    with pytest.raises(CheckpointError, match=r'lacks 2 tensor\(s\)') as error:
        draw('partial.pth')
    assert all(name in str(error.value) for name in missing)
    assert not (tmp_path / 'grid.png').exists()
    draw('whole.pth')
    assert (tmp_path / 'grid.png').stat().st_size > 5000
