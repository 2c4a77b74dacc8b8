"""Train the demos anew and write the weights that come with lm4ve, with their test scores.

    python tools/make_zoo.py                              # all of them: an hour of one core
    python tools/make_zoo.py vit-demo_minilm_digits --work-dir work_dirs/zoo

A demo whose work directory holds its last checkpoint is not trained again. The files hold the
trained tensors in fp32; the frozen ones come from the package of the language model.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from lm4ve.runner.command_line import run_tool
from lm4ve.zoo import WEIGHTS

DEMOS = [
    *(f'vit-demo_{block}_digits' for block in ('minilm', 'none')),
    *(f'pointbert-demo_{block}_primitives' for block in ('minilm', 'none')),
    *(f'videomae-demo_{block}_moving-digits' for block in ('minilm', 'none')),
    *(f'vectornet-demo_{block}_sim' for block in ('minilm', 'none')),
    'meter-demo_minilm_easy-vqa',
]
SCORES = WEIGHTS / 'scores.json'


def run(*words: object) -> None:
    subprocess.run([sys.executable, '-m', 'lm4ve.commands', *map(str, words)], check=True)


def make(name: str, work_dir: Path) -> dict[str, float]:
    """Train a demo, write its weights, and return the scores of a test of that file."""
    pointer = work_dir / 'last_checkpoint'
    run('train', name, '--work-dir', work_dir, '--resume', 'auto')
    weights = WEIGHTS / f'{name}.safetensors'
    checkpoint = pointer.read_text().strip()
    export = ('export', name, checkpoint, '--format', 'safetensors', '--overwrite')
    run(*export, '--out', weights)
    with TemporaryDirectory() as folder:
        out = Path(folder) / 'scores.json'
        flags = ('--out', out, '--out-item', 'metrics', '--work-dir', folder)
        run('test', name, 'pretrained', *flags)
        return json.loads(out.read_text())


def main(argv: Sequence[str] | None = None) -> None:
    lines = __doc__.splitlines()
    parser = argparse.ArgumentParser(description=lines[0])
    parser.add_argument('names', nargs='*', default=DEMOS, help='default: all')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/zoo'), help='of trainings')
    args = parser.parse_args(argv)
    WEIGHTS.mkdir(exist_ok=True)
    for name in args.names:
        scores = json.loads(SCORES.read_text()) if SCORES.exists() else {}
        scores[name] = make(name, args.work_dir / name)
        SCORES.write_text(json.dumps(scores, indent=1, sort_keys=True) + '\n')


if __name__ == '__main__':
    run_tool(main)
