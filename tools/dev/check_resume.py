"""Prove that a run which is killed and resumed ends as one that is left alone.

    python tools/dev/check_resume.py                          # 20 kills for each task
    python tools/dev/check_resume.py --kills 3 --tasks image

The demo of each task is trained once without a disturbance, on few samples. Then, for every
kill, it is trained anew, killed by SIGKILL at a random moment after its first
checkpoint, and started again with ``--resume``. Weights, optimizer and schedule have
to be equal, bit by bit. Exits with 1 if any run differs.
"""

import argparse
import importlib
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

import torch

from lm4ve.commands.train import main as train
from lm4ve.files import write_json
from lm4ve.runner.command_line import run_tool
from lm4ve.tasks import get_task

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
_EPOCHS = 3
_FLAGS = (
    f'train_cfg.max_epochs={_EPOCHS}',
    f'train_cfg.val_interval={_EPOCHS}',
    'default_hooks.checkpoint.by_epoch=False',
    'default_hooks.checkpoint.interval=2',
    'train_dataloader.batch_size=4',
)
_CLIPS, _SCENES = (dict(clips=dict(train=28, val=8, test=8)), dict(counts=dict(train=28, val=4)))
#: Task -> its demo, and how few samples each of its data sets has.
DEMOS = {
    'image': ('lm4ve/vit-demo_minilm_digits.py', dict(indices=28)),
    'video': ('video/videomae-demo_minilm_moving-digits.py', _CLIPS),
    'pointcloud': (
        'pointcloud/pointbert-demo_minilm_primitives.py',
        dict(per_class=3, cache_dir='cache'),
    ),
    'motion': ('motion/vectornet-demo_minilm_sim.py', _SCENES),
    'vision_language': ('vision_language/meter-demo_minilm_easy-vqa.py', dict(indices=28)),
}

#: Where the schedule is not one cycle: the overrides that let it end with the training. One
#: epoch for each scheduler, and what is asked changes after the first.
SCHEDULES = {
    'vision_language': [
        'custom_hooks.0.epochs=1',
        'param_scheduler.0.end=1',
        *(f'param_scheduler.1.{k}' for k in ('T_max=1', 'begin=1', 'end=2')),
        *(f'param_scheduler.2.{k}' for k in ('T_max=1', 'begin=2', 'end=3')),
    ]
}


def flags_of(few: dict, prefix: str) -> list[str]:
    """Return the overrides that make a data set small."""
    words = []
    for key, value in few.items():
        if isinstance(value, dict):
            words += flags_of(value, f'{prefix}.{key}')
        else:
            words.append(f'{prefix}.{key}={value}')
    return words


def _run(arguments: list[str], log: Path) -> None:
    with open(log, 'a', encoding='utf-8') as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.argv = ['train', *arguments]
        run_tool(lambda: train(arguments))


class Demo:
    """Trains the demo of a task in processes of their own.

    Args:
        task (str): Key of :data:`DEMOS`.
        folder (Path): Where runs are written.
    """

    def __init__(self, task: str, folder: Path) -> None:
        name, few = DEMOS[task]
        loaders = [f'{split}_dataloader.dataset' for split in ('train', 'val')]
        small = [flag for loader in loaders for flag in flags_of(few, loader)]
        small += SCHEDULES.get(task, [f'param_scheduler.total_steps={_EPOCHS}'])
        self.arguments = [str(CONFIGS / name), '--cfg-options', *_FLAGS, *small]
        self.folder = folder

    def start(self, run: str, *flags: str) -> multiprocessing.Process:
        """Start training; its output goes to ``<run>.log``."""
        # The modules are imported already in a fork.
        arguments = [*self.arguments, '--work-dir', str(self.folder / run), *flags]
        process = multiprocessing.get_context('fork').Process(
            target=_run, args=(arguments, self.folder / f'{run}.log')
        )
        process.start()
        return process

    def finish(self, process: multiprocessing.Process, run: str) -> None:
        """Wait for the end.

        Raises:
            SystemExit: Training failed.
        """
        process.join()
        if process.exitcode:
            log = (self.folder / f'{run}.log').read_text(encoding='utf-8')
            sys.exit(f'{run} ended with {process.exitcode}:\n{log[-2000:]}')

    def wait_for_checkpoint(self, process: multiprocessing.Process, run: str) -> None:
        """Wait until a run has written its first checkpoint."""
        while process.is_alive() and not (self.folder / run / 'last_checkpoint').exists():
            time.sleep(0.01)
        if process.exitcode:
            self.finish(process, run)  # says why

    def last(self, run: str) -> Path:
        """Return the checkpoint that a run's pointer names."""
        return Path((self.folder / run / 'last_checkpoint').read_text(encoding='utf-8'))


def result(path: Path) -> dict:
    """Return what training has made of a checkpoint's tensors and numbers."""
    saved = torch.load(path, weights_only=True)
    keys = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers')
    return {k: saved[k] for k in keys if k in saved} | {'iter': saved['meta']['iter']}


def is_same(a: object, b: object) -> bool:
    """Say whether two nests of containers are equal, bit by bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(is_same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(is_same, a, b))
    return a == b


def check(task: str, kills: int, seed: int, folder: Path) -> dict:
    """Kill and resume a task's demo.

    Args:
        task (str): Key of :data:`DEMOS`.
        kills (int): How many runs are killed, each at a moment of its own.
        seed (int): It decides at which moments the run is killed.
        folder (Path): Where runs are written.

    Returns:
        dict: ``kills``, ``equal``, and ``resumed_at``: the iterations that the runs
        went on from.
    """
    demo, rng = Demo(task, folder), random.Random(seed)
    process = demo.start('whole')
    demo.wait_for_checkpoint(process, 'whole')
    begin = time.perf_counter()
    demo.finish(process, 'whole')
    length = time.perf_counter() - begin
    whole = result(demo.last('whole'))
    equal, resumed_at = 0, []
    while len(resumed_at) < kills:
        run = f'run{len(resumed_at)}'
        process = demo.start(run)
        demo.wait_for_checkpoint(process, run)
        process.join(rng.uniform(0, length))
        process.kill()
        process.join()
        at = result(demo.last(run))['iter']
        if at == whole['iter']:  # it was done already
            length *= 0.9
        else:
            demo.finish(demo.start(run, '--resume'), run)
            same = is_same(result(demo.last(run)), whole)
            equal += same
            resumed_at.append(at)
            print(
                f'{task}: killed after iteration {at}, {"equal" if same else "DIFFERS"}', flush=True
            )
        shutil.rmtree(demo.folder / run)
    return dict(kills=kills, equal=equal, resumed_at=resumed_at)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--tasks', nargs='+', choices=list(DEMOS), default=list(DEMOS))
    parser.add_argument('--kills', type=int, default=20, help='for each task')
    parser.add_argument('--seed', type=int, default=0, help='of the moments')
    parser.add_argument('--out', help='JSON file for the results')
    args = parser.parse_args()
    out = args.out and Path(args.out).resolve()
    results = {}
    for task in args.tasks:
        declared = get_task(task)
        for module in declared.registers:  # once, and not in every process
            own = module if module.startswith('lm4ve') else f'{declared.package}.{module}'
            importlib.import_module(own)
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)  # generated data go below it
            results[task] = check(task, args.kills, args.seed, Path(folder))
            os.chdir('/')
        print(f'{task}: {results[task]["equal"]} of {args.kills} equal', flush=True)
    if out:
        write_json(results, out)
    if any(r['equal'] < r['kills'] for r in results.values()):
        sys.exit(1)


if __name__ == '__main__':
    main()
