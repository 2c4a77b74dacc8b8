"""Prove that a run which is killed and resumed ends as one that is left alone.

    python tools/dev/check_resume.py                          # 20 kills for each task
    python tools/dev/check_resume.py --kills 3 --tasks image

The demo of each task is trained once without a disturbance, on few samples. Then, for
every kill, it is trained anew, killed by SIGKILL at a random moment after its first
checkpoint, and started again with ``--resume``. Weights, optimizer and schedule have to
be equal, bit by bit. Exits with 1 if any run differs.
"""

import contextlib
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
_SHORT = (
    'train_cfg.max_epochs=3 train_cfg.val_interval=3 train_dataloader.batch_size=4 '
    'default_hooks.checkpoint.by_epoch=False default_hooks.checkpoint.interval=2'
)
_CYCLE = 'param_scheduler.total_steps=3'
#: METER has one epoch for each scheduler, and its questions change after the first.
_METER = (
    'custom_hooks.0.epochs=1 param_scheduler.0.end=1 param_scheduler.1.T_max=1 '
    'param_scheduler.1.begin=1 param_scheduler.1.end=2 param_scheduler.2.T_max=1 '
    'param_scheduler.2.begin=2 param_scheduler.2.end=3'
)
_CLIPS = 'clips.train=28 clips.val=8 clips.test=8'
_CLOUDS = 'per_class=3 cache_dir=cache'
#: Task -> its demo, how few samples each of its data sets has, and its schedule.
DEMOS = {
    'image': ('lm4ve/vit-demo_minilm_digits', 'indices=28', _CYCLE),
    'video': ('video/videomae-demo_minilm_moving-digits', _CLIPS, _CYCLE),
    'pointcloud': ('pointcloud/pointbert-demo_minilm_primitives', _CLOUDS, _CYCLE),
    'motion': (
        'motion/vectornet-demo_minilm_sim',
        'counts.train=28 counts.val=4',
        _CYCLE,
    ),
    'vqa': ('vqa/meter-demo_minilm_easy-vqa', 'indices=28', _METER),
}


def start(task: str, name: str, *flags: str) -> subprocess.Popen:
    """Start a short training of a demo in a process, and wait for its first checkpoint.

    Args:
        task (str): Key of :data:`DEMOS`.
        name (str): Its folder and its log have this name, below the current folder.
        *flags (str): For the tool.
    """
    config, fields, schedule = DEMOS[task]
    options = _SHORT.split() + schedule.split()
    for field in fields.split():
        options.append(f'train_dataloader.dataset.{field}')
        options.append(f'val_dataloader.dataset.{field}')
    command = [sys.executable, ROOT / 'tools/train.py', ROOT / f'configs/{config}.py']
    command += ['--work-dir', name, *flags, '--cfg-options', *options]
    with open(f'{name}.log', 'a', encoding='utf-8') as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    while process.poll() is None and not Path(name, 'last_checkpoint').exists():
        time.sleep(0.01)
    return process


def finish(process: subprocess.Popen, name: str) -> dict:
    """Wait for the end and return the last state; a failed training ends this process."""
    code = process.wait()
    if code != 0:
        log = Path(f'{name}.log').read_text(encoding='utf-8')
        sys.exit(f'{name} ended with {code}:\n{log[-2000:]}')
    return last_state(name)


def last_state(name: str) -> dict:
    """Return what the last checkpoint of a run holds."""
    return state_of(Path(name, 'last_checkpoint').read_text(encoding='utf-8'))


def state_of(path: str | Path) -> dict:
    """Return weights, average, optimizer, schedule and iteration of a checkpoint."""
    saved = torch.load(path, weights_only=True)
    state = dict(iter=saved['meta']['iter'])
    for key in ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers'):
        if key in saved:
            state[key] = saved[key]
    return state


def is_same(a: object, b: object) -> bool:
    """Return whether two nests of containers are equal, bit by bit."""
    leaves, structure = tree_flatten(a)
    other_leaves, other_structure = tree_flatten(b)
    if structure != other_structure:
        return False
    for leaf, other in zip(leaves, other_leaves, strict=True):
        if isinstance(leaf, torch.Tensor):
            equal = leaf.equal(other)
        else:
            equal = leaf == other
        if not equal:
            return False
    return True


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
    rng = random.Random(seed)
    whole = start(task, 'whole')
    begin = time.perf_counter()
    expected = finish(whole, 'whole')
    seconds = time.perf_counter() - begin
    equal = 0
    resumed_at = []
    while len(resumed_at) < kills:
        name = f'run{len(resumed_at)}'
        process = start(task, name)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0, seconds))
        process.kill()
        process.wait()
        at = last_state(name)['iter']
        if at == expected['iter']:  # it was done already
            seconds *= 0.9
        else:
            resumed_at.append(at)
            state = finish(start(task, name, '--resume'), name)
            verdict = 'DIFFERS'
            if is_same(state, expected):
                equal += 1
                verdict = 'equal'
            print(f'{task}: killed after iteration {at}, {verdict}', flush=True)
        shutil.rmtree(name)
    return dict(kills=kills, equal=equal, resumed_at=resumed_at)


def main() -> None:
    parser = build_parser(__doc__, {})
    add = parser.add_argument
    add('--tasks', nargs='+', choices=DEMOS, default=list(DEMOS))
    add('--kills', type=int, default=20, help='for each task')
    add('--seed', type=int, default=0, help='of the moments')
    add('--out', help='JSON file for the results')
    args = parser.parse_args()
    results = {}
    for task in args.tasks:
        # Generated data go below the current folder.
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            results[task] = check(task, args.kills, args.seed)
        print(f'{task}: {results[task]["equal"]} of {args.kills} equal', flush=True)
    if args.out:
        write_json(results, args.out)
    if any(result['equal'] < result['kills'] for result in results.values()):
        sys.exit(1)


if __name__ == '__main__':
    main()
