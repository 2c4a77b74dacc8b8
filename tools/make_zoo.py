"""Train the demos anew and write the weights that come with lm4ve, with their test scores.

    python tools/make_zoo.py                              # all of them: half an hour of one core
    python tools/make_zoo.py vit-demo_minilm_digits

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
#: Each with the frozen block, and without one.
DEMOS = []
for _model in MODELS:
    DEMOS += [_model.format('minilm'), _model.format('none')]
SCORES = WEIGHTS / 'scores.json'


def run(*words: object) -> None:
    """Run a command of lm4ve.

    Raises:
        subprocess.CalledProcessError: It fails.
    """
    command = [sys.executable, '-m', 'lm4ve.commands']
    command += [str(word) for word in words]
    subprocess.run(command, check=True)


def make(name: str, folder: Path) -> dict[str, float]:
    """Train a demo, write its weights, and return the scores of a test of that file."""
    run('train', name, '--work-dir', folder, '--resume', 'auto')
    last = (folder / 'last_checkpoint').read_text().strip()
    weights = WEIGHTS / f'{name}.safetensors'
    run(
        'export', name, last, '--format', 'safetensors', '--overwrite', '--out', weights
    )
    scores = folder / 'scores.json'
    run(
        'test',
        name,
        'pretrained',
        '--out',
        scores,
        '--out-item',
        'metrics',
        '--work-dir',
        folder,
    )
    return json.loads(scores.read_text())


def main() -> None:
    names = sys.argv[1:]
    if not names:
        names = DEMOS
    for name in names:
        scores = json.loads(SCORES.read_text())
        scores[name] = make(name, Path('work_dirs/zoo') / name)
        SCORES.write_text(json.dumps(scores, indent=1, sort_keys=True) + '\n')


if __name__ == '__main__':
    main()
