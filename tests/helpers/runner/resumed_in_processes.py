"""What ``test_resume_in_processes.py`` runs in each of two processes.

``resumed_in_processes.py RANK FOLDER NAME`` trains the config ``NAME<rank>.json`` of the
folder, or ``NAME.json`` on both, and prints as JSON what came of it.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.hooks import Hook

from lm4ve.errors import UserError
from lm4ve.runner.command_line import build_runner
from tests.helpers.runner import accumulating
from tests.helpers.runner.random_run import READ, Killed


class DrawHook(Hook):
    """Draw a number in each step, as dropout does."""

    def __init__(self) -> None:
        self.drawn: list[float] = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.drawn.append(torch.rand(()).item())


def main() -> None:
    rank = int(sys.argv[1])
    folder = Path(sys.argv[2])
    name = sys.argv[3]
    dist.init_process_group(
        'gloo', f'file://{folder}/store-{name}', rank=rank, world_size=2
    )
    path = folder / f'{name}{rank}.json'
    if not path.exists():
        path = folder / f'{name}.json'
    cfg = Config.fromfile(path)
    hook = DrawHook()
    found = dict(drawn=hook.drawn, read=READ)
    try:
        runner = build_runner(cfg)
        runner.register_hook(hook)
        runner.train()
    except UserError as e:
        found.update(error=str(e))
    except Killed:
        pass
    else:
        found.update(iter=runner.iter, epoch=runner.epoch, max_iters=runner.max_iters)
        found.update(weights=accumulating.weights_of(runner.model).tolist())
    print('found:', json.dumps(found))
    dist.destroy_process_group()


if __name__ == '__main__':
    main()
