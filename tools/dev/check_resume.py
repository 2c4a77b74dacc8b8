"""Prove that a run which is killed and resumed ends as one that is left alone.

    python tools/dev/check_resume.py                          # 20 kills for each task
    python tools/dev/check_resume.py --kills 3 --tasks image

The demo of each task is trained once without a disturbance, on few samples. Then, for every
kill, it is trained anew, killed by SIGKILL at a random moment after its first
checkpoint, and started again with ``--resume``. Weights, optimizer and schedule have
to be equal, bit by bit. Exits with 1 if any run differs.
"""

import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch.utils._pytree import tree_flatten

from lm4ve.files import write_json
from lm4ve.runner.flags import build_parser

ROOT = Path(__file__).resolve().parents[2]
_EPOCHS = 3
_FLAGS = f'train_cfg.max_epochs={_EPOCHS} train_cfg.val_interval={_EPOCHS}'
_FLAGS += ' default_hooks.checkpoint.by_epoch=False default_hooks.checkpoint.interval=2'
#: Task -> its demo, and how few samples each of its data sets has.
DEMOS = {
    'image': ('lm4ve/vit-demo_minilm_digits.py', 'indices=28'),
    'video': (
        'video/videomae-demo_minilm_moving-digits.py',
        'clips.train=28 clips.val=8 clips.test=8',
    ),
    'pointcloud': ('pointcloud/pointbert-demo_minilm_primitives.py', 'per_class=3 cache_dir=cache'),
    'motion': ('motion/vectornet-demo_minilm_sim.py', 'counts.train=28 counts.val=4'),
    'vqa': ('vision_language/meter-demo_minilm_easy-vqa.py', 'indices=28'),
}
#: One total by default. METER has one epoch for each scheduler, and its questions change after the
#: first.
_SCHEDULE = f'param_scheduler.total_steps={_EPOCHS}'
_SCHEDULES = {
    'vqa': 'custom_hooks.0.epochs=1 param_scheduler.0.end=1 param_scheduler.1.T_max=1 '
    'param_scheduler.1.begin=1 param_scheduler.1.end=2 param_scheduler.2.T_max=1 '
    'param_scheduler.2.begin=2 param_scheduler.2.end=3'
}


def overrides(task: str) -> list[str]:
    """Return the overrides that make a demo's training short and its data sets small."""
    loaders = [f'{split}_dataloader.dataset' for split in ('train', 'val')]
    small = [f'{loader}.{field}' for loader in loaders for field in DEMOS[task][1].split()]
    flags = [*_FLAGS.split(), 'train_dataloader.batch_size=4']
    return [*flags, *small, *_SCHEDULES.get(task, _SCHEDULE).split()]


class Run:
    """A training of a demo, in a process of its own below the current folder.

    Args:
        task (str): Key of :data:`DEMOS`.
        name (str): Of its folder and of its log.
    """

    def __init__(self, task: str, name: str) -> None:
        self.folder, self.log = Path(name).resolve(), Path(f'{name}.log').resolve()
        config = ROOT / 'configs' / DEMOS[task][0]
        self.command = [sys.executable, ROOT / 'tools/train.py', config, '--work-dir', self.folder]
        self.options = ['--cfg-options', *overrides(task)]
        self.start()
        while self.process.poll() is None and not (self.folder / 'last_checkpoint').exists():
            time.sleep(0.01)

    def start(self, *flags: str) -> None:
        """Start the process."""
        with open(self.log, 'a', encoding='utf-8') as log:
            command = [*self.command, *flags, *self.options]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def finish(self) -> dict:
        """Wait for the end and return the last state; a failed training ends this process."""
        if code := self.process.wait():
            log = self.log.read_text(encoding='utf-8')
            sys.exit(f'{self.folder.name} ended with {code}:\n{log[-2000:]}')
        return self.last()

    def last(self) -> dict:
        """Return what the last checkpoint holds."""
        return state_of((self.folder / 'last_checkpoint').read_text(encoding='utf-8'))


def state_of(path: str | Path) -> dict:
    """Return weights, average, optimizer, schedule and iteration of a checkpoint."""
    saved = torch.load(path, weights_only=True)
    keys = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers')
    return {k: saved[k] for k in keys if k in saved} | {'iter': saved['meta']['iter']}


def is_same(a: object, b: object) -> bool:
    """Return whether two nests of containers are equal, bit by bit."""
    one, other = tree_flatten(a), tree_flatten(b)
    if one[1] != other[1]:
        return False
    pairs = zip(one[0], other[0], strict=True)
    return all(x.equal(y) if isinstance(x, torch.Tensor) else x == y for x, y in pairs)


def check(task: str, kills: int, seed: int) -> dict:
    """Kill and resume a task's demo below the current folder.

    Args:
        task (str): Key of :data:`DEMOS`.
        kills (int): How many runs are killed, each at a moment of its own.
        seed (int): Sets the moments.

    Returns:
        dict: ``kills``, ``equal``, and ``resumed_at``: the iterations that the runs
        went on from.
    """
    rng, whole = random.Random(seed), Run(task, 'whole')
    begin = time.perf_counter()
    expected = whole.finish()
    length = time.perf_counter() - begin
    equal, resumed_at = 0, []
    while len(resumed_at) < kills:
        run = Run(task, f'run{len(resumed_at)}')
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.process.wait(rng.uniform(0, length))
        run.process.kill()
        run.process.wait()
        at = run.last()['iter']
        if at == expected['iter']:  # it was done already
            length *= 0.9
        else:
            run.start('--resume')
            same = is_same(run.finish(), expected)
            equal += same
            resumed_at.append(at)
            word = 'equal' if same else 'DIFFERS'
            print(f'{task}: killed after iteration {at}, {word}', flush=True)
        shutil.rmtree(run.folder)
    return dict(kills=kills, equal=equal, resumed_at=resumed_at)


def main() -> None:
    parser = build_parser(__doc__, {})
    parser.add_argument('--tasks', nargs='+', choices=list(DEMOS), default=list(DEMOS))
    parser.add_argument('--kills', type=int, default=20, help='for each task')
    parser.add_argument('--seed', type=int, default=0, help='of the moments')
    parser.add_argument('--out', help='JSON file for the results')
    args = parser.parse_args()
    out = args.out and Path(args.out).resolve()
    results = {}
    for task in args.tasks:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)  # generated data go below it
            results[task] = check(task, args.kills, args.seed)
            os.chdir('/')
        print(f'{task}: {results[task]["equal"]} of {args.kills} equal', flush=True)
    if out:
        write_json(results, out)
    if any(r['equal'] < r['kills'] for r in results.values()):
        sys.exit(1)


if __name__ == '__main__':
    main()
