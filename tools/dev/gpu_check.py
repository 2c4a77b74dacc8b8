"""Check everything that needs a GPU, in under nine minutes; ``make gpu-check`` runs it.

    python tools/dev/gpu_check.py --out gpu_check.json

It runs the tests marked `cuda` (paths of the block, a step of every task, mixed
precision, DDP on nccl and FSDP, with two ranks where there are two GPUs, `lm4ve try`
with encoders of a config and of timm) and the benchmarks of the block, of training
steps with a block in 16 bits and in every precision that a config can have, and of the
input pipelines, which say how many cores the GPU needs. What has no time left
is not begun, and the JSON says so. The table that it prints belongs into
docs/results/gpu.md.
"""

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from lm4ve.errors import UserError
from lm4ve.files import write_json
from lm4ve.runner.command_line import build_parser, run_tool

ROOT = Path(__file__).resolve().parents[2]
#: Seconds of everything.
BUDGET = 520.0
#: Name -> a benchmark with its flags.
_BENCHMARKS = {
    'block': 'block.py --device cuda --dtypes float32 bfloat16',
    'train_step': 'steps.py --device cuda --tasks image --batch 256',
    'precision': 'precision.py --device cuda --repeats 3',
    'loader': 'loader.py --device cpu --tasks image video',
    'steps': 'steps.py --device cuda --repeats 3',
}


def commands(folder: Path) -> dict[str, list[str]]:
    """Return what is run, by name; benchmarks write ``<name>.json`` into the folder."""
    lines = {'tests': '-m pytest -q -m cuda --durations=0'}
    for name, benchmark in _BENCHMARKS.items():
        lines[name] = f'tools/benchmarks/{benchmark} --out {folder / name}.json'
    return {name: [sys.executable, *line.split()] for name, line in lines.items()}


def run_all(
    named: Mapping[str, Sequence[str]], budget: float, folder: Path
) -> list[dict]:
    """Run commands one after the other while there is time.

    Args:
        named (Mapping[str, Sequence[str]]): Command lines, run in the repository's
            root.
        budget (float): Seconds for all of them; the last one is stopped then.
        folder (Path): Where a command may have left ``<name>.json``.

    Returns:
        list[dict]: For each ``name``, ``state`` ('passed', 'failed', 'stopped' or 'not
        begun'), ``seconds``, the end of what it ``said`` and, if it left one, its
        ``result``.
    """
    results = []
    end = time.monotonic() + budget
    for name, command in named.items():
        start = time.monotonic()
        state, output = run(command, end - start)
        row = dict(
            name=name,
            state=state,
            seconds=round(time.monotonic() - start, 1),
            said=output.decode(errors='replace')[-4000:],
        )
        left = folder / f'{name}.json'
        if left.is_file():
            row['result'] = json.loads(left.read_text())
        results.append(row)
    return results


def run(command: Sequence[str], seconds: float) -> tuple[str, bytes]:
    """Run a command for so long at most; return its state and what it printed."""
    if seconds <= 0:
        return 'not begun', b''
    try:
        done = subprocess.run(
            command,
            timeout=seconds,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except subprocess.TimeoutExpired as e:
        return 'stopped', e.stdout or b''
    if done.returncode:
        return 'failed', done.stdout
    return 'passed', done.stdout


def main(argv: Sequence[str] | None = None) -> None:
    flags = {'--out': dict(type=Path, default=Path('work_dirs/gpu_check.json'))}
    args = build_parser(__doc__, flags).parse_args(argv)
    if not torch.cuda.is_available():
        raise UserError(
            'There is no GPU that torch can use. `make test` is what runs without one.'
        )
    folder = args.out.with_suffix('')
    folder.mkdir(parents=True, exist_ok=True)
    results = run_all(commands(folder), BUDGET, folder)
    found = dict(
        device=torch.cuda.get_device_name(), torch=torch.__version__, results=results
    )
    write_json(found, args.out)
    print(f'{found["device"]}, torch {found["torch"]}\n')
    print('| check | state | seconds |\n|---|---|---:|')
    for row in results:
        print(f'| {row["name"]} | {row["state"]} | {row["seconds"]:.1f} |')
    print(args.out)
    if any(row['state'] == 'failed' for row in results):
        sys.exit(1)


if __name__ == '__main__':
    run_tool(main)
