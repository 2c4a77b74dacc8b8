"""``make demo``: the main job on the embedded default, with and without the block.

Trains a small ViT on real handwritten digits, once with a frozen block of
all-MiniLM-L6-v2 and once without, tests both on the held-out 30 %, and prints
what was measured, whichever is ahead.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from mmengine.registry import MODELS
from rich.console import Console
from rich.table import Table

from lm4ve.blocks import count_parameters
from lm4ve.engine.command_line import run_tool
from lm4ve.engine.config import read_config
from lm4ve.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
VARIANTS = {'ViT + frozen MiniLM block': 'vit-demo_minilm_digits', 'ViT': 'vit-demo_none_digits'}


def run(*command) -> None:
    """Run one of our tools; its log goes to the screen and its work dir."""
    done = subprocess.run([sys.executable, *map(str, command)], check=False)
    if done.returncode:
        raise UserError(
            f'{Path(command[0]).name} failed (exit code {done.returncode}); its output is above.'
        )


def train_and_test(name: str, work_dir: Path, options: list) -> dict:
    """Train and test one config; return what the table shows of it."""
    config = ROOT / f'configs/lm4ve/{name}.py'
    overrides = ['--cfg-options', *options] if options else []
    start = time.time()
    run(ROOT / 'tools/train.py', config, '--work-dir', work_dir, *overrides)
    checkpoint = Path((work_dir / 'last_checkpoint').read_text())
    metrics = work_dir / 'test_metrics.json'
    run(
        ROOT / 'tools/test.py',
        config,
        checkpoint,
        '--work-dir',
        work_dir,
        '--out',
        metrics,
        '--out-item',
        'metrics',
    )
    cfg = read_config(config)
    trainable, frozen = count_parameters(MODELS.build(cfg.model))
    return dict(
        top1=json.loads(metrics.read_text())['accuracy/top1'],
        trainable=trainable,
        frozen=frozen,
        step=step_time(work_dir, start),
        checkpoint=checkpoint,
        wall=time.time() - start,
    )


def step_time(work_dir: Path, since: float) -> float:
    """Median seconds of a training step, of the logs written since then."""
    times = []
    for path in work_dir.glob('*/vis_data/scalars.json'):
        if path.stat().st_mtime >= since:
            rows = map(json.loads, path.read_text().splitlines())
            times += [r['time'] for r in rows if 'lr' in r and 'time' in r]
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo'))
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        help='overrides for both trainings, for example train_cfg.max_epochs=5',
    )
    args = parser.parse_args()
    table = Table(title='Handwritten digits, 540 held-out images')
    for column in (
        '',
        'top-1 %',
        'trainable',
        'frozen',
        's / step',
        'checkpoint',
        'training + test',
    ):
        table.add_column(column, justify='left' if not column else 'right')
    places = []
    for label, name in VARIANTS.items():
        work_dir = args.work_dir / name
        r = train_and_test(name, work_dir, args.cfg_options)
        size = r['checkpoint'].stat().st_size / 1e6
        table.add_row(
            label,
            f'{r["top1"]:.2f}',
            f'{r["trainable"]:,}',
            f'{r["frozen"]:,}',
            f'{r["step"]:.4f}',
            f'{size:.2f} MB',
            f'{r["wall"]:.0f} s',
        )
        places += [
            f'{label}',
            f'  checkpoint   {r["checkpoint"]}',
            f'  logs         {work_dir}/*/*.log',
            f'  TensorBoard  {work_dir}/*/vis_data',
        ]
    # A fixed width, so that nothing is cut where there is no terminal.
    console = Console(width=110)
    console.print(table)
    console.print('\n'.join(places), highlight=False)
    console.print(f'\ntensorboard --logdir {args.work_dir}', highlight=False)


if __name__ == '__main__':
    run_tool(main)
