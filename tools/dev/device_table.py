"""Count what a training step waits for and starts on a device, for a demo of each task.

    python tools/dev/device_table.py
    python tools/dev/device_table.py --tasks image rooms --lines

The rows are those of docs/results/gpu.md. The device is one of Python
(``tests/helpers/second_device.py``), for which torch >= 2.12 is needed. A demo is
trained as in the tests: in full, but small. The step that is counted is neither the
first nor the last one of its epoch, and logs nothing. To measure another checkout of
lm4ve, put its folder ``projects`` first on PYTHONPATH.
"""

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm4ve.zoo import PACKAGES

ROOT = Path(__file__).resolve().parents[2]
#: (task, config) of each row.
ROWS = (
    ('image', 'vit-demo_minilm_digits.py'),
    ('video', 'videomae-demo_minilm_moving-digits.py'),
    ('pointcloud', 'pointbert-demo_minilm_primitives.py'),
    ('motion', 'vectornet-demo_minilm_sim.py'),
    ('vqa', 'meter-demo_minilm_digit-scenes.py'),
    ('vqa', 'meter-demo_minilm_easy-vqa.py'),
    ('rooms', 'sqa3d-demo_minilm_rooms.py'),
    ('rooms', 'sqa3d-demo_minilm_rooms-objects.py'),
    ('medical', 'cmunext-demo_minilm_ultrasound.py'),
)


def measure(task: str, config: str) -> dict[str, Any]:
    """Train a demo on the device in a process of its own; return its counts."""
    command = [
        sys.executable,
        '-m',
        'tests.helpers.device_runs',
        '--only-count',
        task,
        config,
    ]
    done = subprocess.run(
        command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True
    )
    if done.returncode != 0:
        sys.exit(done.stderr)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def split_waits(
    waits: Sequence[tuple[str, str, int]],
) -> tuple[Counter[str], Counter[str]]:
    """Return the waits of our lines and those of other packages, with their kind."""
    ours: Counter[str] = Counter()
    theirs: Counter[str] = Counter()
    for kind, line, count in waits:
        counter = ours if line.partition('/')[0] in PACKAGES else theirs
        counter[f'{line} ({kind})'] += count
    return ours, theirs


def main(argv: Sequence[str] | None = None) -> None:
    """Print a row for each demo, and with ``--lines`` where it waits."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--tasks', nargs='+', help='default: all')
    parser.add_argument('--lines', action='store_true', help='name where it waits')
    args = parser.parse_args(argv)
    print('| task | demo | waits of lm4ve | waits of hosts | launches |')
    print('|---|---|---:|---:|---:|')
    for task, config in ROWS:
        if args.tasks and task not in args.tasks:
            continue
        counts = measure(task, config)
        ours, theirs = split_waits(counts['waits'])
        name = config.removesuffix('.py')
        cells = [task, name, ours.total(), theirs.total(), counts['launches']]
        print(f'| {" | ".join(map(str, cells))} |', flush=True)
        if args.lines:
            for line, count in sorted((ours + theirs).items()):
                print(f'    {count:5} {line}', flush=True)


if __name__ == '__main__':
    main()
