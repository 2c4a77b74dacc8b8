"""Two CPU processes train as one does: gloo, DDP, the shell scripts."""

import json
import os
import socket
import subprocess
import sys
import weakref
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from lm4ve.blocks import LLMBlock, frozen_tensors
from lm4ve.engine.command_line import run_tool
from lm4ve.errors import UserError
from tests.helpers.tasks import ROOT
from tests.helpers.tools import run_tool_here

pytest.importorskip('mmpretrain')

CONFIG = """
_base_ = '{root}/configs/lm4ve/vit-demo_minilm_digits.py'
custom_imports = dict(imports=['lm4ve', 'tests.engine.recording'])
custom_hooks = [dict(type='RecordHook', out='{out}')]
# No augmentation: its random numbers differ by process.
train_dataloader = dict(
    batch_size={batch}, dataset=dict(pipeline=[dict(type='PackInputs')]))
train_cfg = dict(
    _delete_=True, type='IterBasedTrainLoop', max_iters=8, val_interval=8)
param_scheduler = dict(_delete_=True, type='ConstantLR', factor=1., end=1)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=8))
work_dir = '{out}/work'
"""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def environment() -> dict:
    # The scripts call `python`: make it this one.
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    return {
        **os.environ,
        'PATH': path,
        'PYTHONPATH': str(ROOT),
        'OMP_NUM_THREADS': '1',
        'PORT': str(free_port()),
    }


def script(name: str, *args) -> None:
    """Run one of our shell scripts."""
    done = subprocess.run(
        ['bash', ROOT / 'tools' / name, *map(str, args)],
        env=environment(),
        text=True,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def train(tmp_path: Path, processes: int, batch: int) -> list:
    """Train 8 steps; return what each rank recorded."""
    out = tmp_path / f'{processes}'
    out.mkdir()
    config = out / 'config.py'
    config.write_text(CONFIG.format(root=ROOT, out=out, batch=batch))
    if processes == 1:
        run_tool_here('train.py', config)
    else:
        script('dist_train.sh', config, processes)
    return [json.loads((out / f'rank{r}.json').read_text()) for r in range(processes)]


@pytest.mark.slow
def test_two_processes_train_as_one_and_can_be_tested(tmp_path):
    (single,) = train(tmp_path, processes=1, batch=32)
    first, second = train(tmp_path, processes=2, batch=16)
    assert first['trained'] == second['trained']
    assert first['frozen'] == second['frozen'] == single['frozen']
    assert len(single['losses']) == len(first['losses']) == 8
    assert first['losses'] == pytest.approx(single['losses'], abs=1e-4)
    assert len(set(single['losses'])) == 8  # it did train

    out = tmp_path / '2'
    metrics = out / 'metrics.json'
    checkpoint = out / 'work/iter_8.pth'
    flags = '--out', metrics, '--out-item', 'metrics'
    script('dist_test.sh', out / 'config.py', checkpoint, 2, *flags)
    scalars = [
        json.loads(line)
        for path in (out / 'work').glob('*/vis_data/scalars.json')
        for line in path.read_text().splitlines()
    ]
    logged = [s['accuracy/top1'] for s in scalars if 'accuracy/top1' in s]
    tested = json.loads(metrics.read_text())['accuracy/top1']
    assert tested == pytest.approx(logged[0])


def test_random_frozen_weights_do_not_depend_on_the_process():
    """They come from their own seed: MMEngine broadcasts parameters only."""
    arch = dict(model_type='gpt2', n_embd=16, n_head=2, n_layer=1, vocab_size=8)
    fingerprints = set()
    for rank in range(2):
        torch.manual_seed(rank)
        block = LLMBlock(arch=arch, seed=3)
        fingerprints.add(block.source['fingerprint'])
    assert len(fingerprints) == 1 and frozen_tensors(block)
    assert LLMBlock(arch=arch, seed=4).source['fingerprint'] not in fingerprints


@pytest.mark.parametrize('error', [None, UserError, RuntimeError, KeyboardInterrupt])
def test_what_a_command_has_built_is_gone_before_its_group(monkeypatch, error):
    """Else threads of gloo run on while the interpreter ends, which may abort it."""
    built, alive = [], []
    monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: True)
    monkeypatch.setattr(
        torch.distributed, 'destroy_process_group', lambda: alive.append(built[0]() is not None)
    )

    def main() -> None:
        model = torch.nn.Linear(1, 1)
        model.itself = [model]  # a cycle, as runners and hooks are
        built.append(weakref.ref(model))
        if error is not None:
            raise error('x')

    with pytest.raises((SystemExit, RuntimeError)) if error else nullcontext():
        run_tool(main)
    assert alive == [False]
