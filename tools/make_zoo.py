"""Train the demos anew and write the weights that come with lm4ve, with their test scores.

    python tools/make_zoo.py                              # all of them: half an hour of
    one core python tools/make_zoo.py vit-demo_minilm_digits

A demo that ``work_dirs/zoo`` holds is not trained again. The files hold the
trained tensors in fp32; the frozen ones come from the package of the language model.
"""

import json
import subprocess
import sys
from pathlib import Path

from lm4ve.zoo import WEIGHTS

MODELS = (
    'vit-demo_{}_digits',
    'pointbert-demo_{}_primitives',
    'videomae-demo_{}_moving-digits',
)
DEMOS = [model.format(block) for model in MODELS for block in ('minilm', 'none')]
SCORES = WEIGHTS / 'scores.json'


def run(*words: object) -> None:
    subprocess.run(
        [sys.executable, '-m', 'lm4ve.commands', *map(str, words)], check=True
    )


def make(name: str, folder: Path) -> dict[str, float]:
    """Train a demo, write its weights, and return the scores of a test of that file."""
    run('train', name, '--work-dir', folder, '--resume', 'auto')
    last, out = (
        (folder / 'last_checkpoint').read_text().strip(),
        WEIGHTS / f'{name}.safetensors',
    )
    run('export', name, last, '--format', 'safetensors', '--overwrite', '--out', out)
    words = (
        '--out',
        folder / 'scores.json',
        '--out-item',
        'metrics',
        '--work-dir',
        folder,
    )
    run('test', name, 'pretrained', *words)
    return json.loads((folder / 'scores.json').read_text())


if __name__ == '__main__':
    for name in sys.argv[1:] or DEMOS:
        scores = json.loads(SCORES.read_text())
        scores[name] = make(name, Path('work_dirs/zoo') / name)
        SCORES.write_text(json.dumps(scores, indent=1, sort_keys=True) + '\n')
