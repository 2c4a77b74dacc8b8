"""Test a tiny demo on a number of samples that no two processes can share evenly.

    python -m tests.helpers.metrics_in_processes TASK FOLDER

In one process it writes the model's weights and its metrics to FOLDER; each process of
torchrun tests these weights, and the first one writes what all of them have measured.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.dist import get_rank

from lm4ve.runner.command_line import build_runner
from tests.helpers.shrink import shrinker_of

#: Task -> a demo, and fields of its test data that make their number odd.
DEMOS: dict[str, tuple[str, dict[str, Any]]] = {
    'image': ('vit-demo_none_digits.py', dict(indices=15)),
    'video': ('videomae-demo_none_moving-digits.py', dict(indices=7)),
    'pointcloud': ('pointbert-demo_none_primitives.py', dict(indices=7)),
    'motion': ('vectornet-demo_none_sim.py', dict(counts=dict(train=6, val=5))),
    'vqa': ('meter-demo_none_easy-vqa.py', dict(indices=7)),
    'rooms': ('sqa3d-demo_none_rooms.py', dict(indices=7)),
    'medical': ('cmunext-demo_none_ultrasound.py', dict(count=5)),
}


def measure(task: str, folder: Path) -> None:
    """Test a task's demo in this process, alone or as one of several."""
    is_alone = 'RANK' not in os.environ
    launcher = 'none' if is_alone else 'pytorch'
    name, odd = DEMOS[task]
    own_folder = folder / os.environ.get('RANK', 'alone')
    weights = folder / 'weights.pth'
    shared = folder / 'shared'
    shared.mkdir(exist_ok=True)
    shrinker = shrinker_of(task, own_folder)
    with pytest.MonkeyPatch.context() as patch:
        shrinker.enter(patch)
        # Demos write their data once, for all processes.
        patch.chdir(shared)
        cfg = shrinker.load(name, own_folder / 'work', launcher=launcher)
        cfg.randomness = dict(seed=7)
        cfg.test_dataloader.batch_size = 2
        cfg.test_dataloader.dataset.update(odd)
        if not is_alone:
            cfg.load_from = str(weights)
        runner = build_runner(cfg)
        if is_alone:
            runner.model.init_weights()
            torch.save(dict(state_dict=runner.model.state_dict()), weights)
        metrics = runner.test()
    size = len(runner.test_dataloader.dataset)
    if get_rank() == 0:
        numbers = {key: float(value) for key, value in metrics.items()}
        result = dict(size=size, metrics=numbers)
        (folder / f'{launcher}.json').write_text(json.dumps(result))


if __name__ == '__main__':
    measure(sys.argv[1], Path(sys.argv[2]))
