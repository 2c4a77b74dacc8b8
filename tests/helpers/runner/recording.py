"""Runs in other processes that record their losses and weights as JSON."""

import json
import os
import signal
import time
from pathlib import Path

import joblib
from mmengine.dist import all_reduce, get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from tests.helpers.tasks import ROOT


@HOOKS.register_module()
class RecordHook(Hook):
    """Write each step's loss (mean over ranks) and the final weights' hash.

    Args:
        out (str): Folder; each rank writes ``rank<r>.json`` at the end, and the first
            one a line of ``steps.txt`` at each step: its number and its loss.
    """

    priority = 'LOWEST'

    def __init__(self, out: str) -> None:
        self.out = Path(out)
        self.losses: list = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        loss = outputs['loss'].detach().clone()
        all_reduce(loss, 'mean')
        self.losses.append(loss.item())
        self.out.mkdir(parents=True, exist_ok=True)
        if get_rank() == 0:
            with open(self.out / 'steps.txt', 'a') as file:
                file.write(f'{runner.iter + 1} {loss.item()}\n')

    def after_train(self, runner) -> None:
        from lm4ve.blocks import frozen_tensors

        model = getattr(runner.model, 'module', runner.model)  # which DDP wraps
        record = dict(
            losses=self.losses,
            trained=hash_of(dict(model.named_parameters())),
            frozen=hash_of(frozen_tensors(model)),
        )
        (self.out / f'rank{get_rank()}.json').write_text(json.dumps(record))


def hash_of(tensors: dict) -> str:
    """Return a hash of tensors by name."""
    arrays = {name: tensor.detach().numpy() for name, tensor in tensors.items()}
    return joblib.hash(arrays)


@HOOKS.register_module()
class KillOnceHook(Hook):
    """Send one rank a signal after a step, as a failing machine would, but only once.

    Args:
        mark (str): The file that says it was done, with the time; '' for never.
        rank (int): Which process.
        after (int): The number of the step.
        number (int): The signal.
    """

    priority = 'LOWEST'

    def __init__(
        self, mark: str, rank: int, after: int, number: int = signal.SIGKILL
    ) -> None:
        self.mark = mark
        self.rank = rank
        self.after = after
        self.number = number
        self.is_sent = False

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if self.is_sent:
            time.sleep(0.2)  # so that the training has not ended before it is heard
        if not self.mark or Path(self.mark).exists():
            return
        if get_rank() == self.rank and runner.iter + 1 == self.after:
            Path(self.mark).write_text(str(time.time()))
            self.is_sent = True
            os.kill(os.getpid(), self.number)


CONFIG = """
_base_ = '{root}/configs/lm4ve/vit-demo_minilm_digits.py'
custom_imports = dict(imports=['lm4ve.openmmlab', 'tests.helpers.runner.recording'])
custom_hooks = [
    dict(type='RecordHook', out='{out}'),
    dict(type='KillOnceHook', mark='{mark}', rank=1, after=5, number={number}),
]
# No augmentation: its random numbers differ by process.
train_dataloader = dict(
    batch_size={batch}, dataset=dict(indices=128, pipeline=[dict(type='PackInputs')]))
train_cfg = dict(max_epochs={epochs}, val_interval=2)
param_scheduler = dict(_delete_=True, type='ConstantLR', factor=1., end=1)
optim_wrapper = dict(accumulative_counts={accumulate!r})
auto_scale_lr = dict(base_batch_size=32)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=3, max_keep_ckpts=-1))
work_dir = '{out}/work'
"""


def config(
    out: Path,
    batch: int,
    mark: str = '',
    number: int = signal.SIGKILL,
    epochs: int = 2,
    accumulate: int | str = 1,
) -> Path:
    """Write a config of epochs with 128 samples each.

    Args:
        out (Path): The run's folder, which is made.
        batch (int): Samples of a batch, on each process.
        mark (str): See :class:`KillOnceHook`.
        number (int): Its signal.
        epochs (int): How many.
        accumulate (int | str): How many batches the optimizer steps on; 'auto': as many
            as have 32 samples.
    """
    out.mkdir()
    path = out / 'config.py'
    text = CONFIG.format(
        root=ROOT,
        out=out,
        batch=batch,
        mark=mark,
        number=int(number),
        epochs=epochs,
        accumulate=accumulate,
    )
    path.write_text(text)
    return path


def recorded(out: Path, rank: int = 0) -> dict:
    return json.loads((out / f'rank{rank}.json').read_text())
