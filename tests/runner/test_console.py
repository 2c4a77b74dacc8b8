"""The console shows each step of a training at most once, and its last one always."""

import logging

import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.model import BaseModel

from lm4ve.runner import console
from tests.helpers.runner.toy import Score, make_runner

STEPS = 6
EPOCHS = dict(by_epoch=True, max_epochs=2)
ITERATIONS = dict(by_epoch=False, max_iters=STEPS)
LENGTHS = [
    (EPOCHS, False),
    (EPOCHS, True),
    (dict(EPOCHS, val_interval=2), True),
    (ITERATIONS, False),
    (dict(ITERATIONS, val_interval=4), True),
    (dict(ITERATIONS, val_interval=3, val_begin=4), True),
]


class Model(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(4, 1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        out = self.fc(torch.stack(list(inputs))).mean()
        if mode == 'loss':
            return dict(loss=out)
        return [dict()]


def progress_lines(folder, length: dict, validates: bool, **changes) -> list[str]:
    """Train three steps an epoch; return the console's lines of epochs or iterations."""
    lines = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            if console.is_shown(record) and text.startswith(('epoch', 'iter')):
                lines.append(text)

    data = [dict(inputs=torch.ones(4)) for _ in range(3)]
    validation = {}
    if validates:
        in_order = dict(type='DefaultSampler', shuffle=False)
        validation = dict(
            val_cfg=dict(),
            val_evaluator=Evaluator(Score(range(9))),
            val_dataloader=dict(dataset=data, batch_size=1, sampler=in_order),
        )
    runner = make_runner(
        folder,
        Model(),
        data,
        1,
        train_cfg=length,
        log_level='INFO',
        custom_hooks=[console.ConsoleHook()],
        **validation,
        **changes,
    )
    runner.logger.addHandler(Lines())
    runner.train()
    return lines


@pytest.mark.parametrize('length, validates', LENGTHS, ids=range(len(LENGTHS)))
def test_no_step_has_two_lines(tmp_path, monkeypatch, length, validates):
    monkeypatch.setattr(console, 'HEARTBEAT', -1.0)  # a line is due at every step
    lines = progress_lines(tmp_path, length, validates)
    assert len(lines) == STEPS


@pytest.mark.parametrize('length, validates', LENGTHS, ids=range(len(LENGTHS)))
def test_last_step_has_a_line(tmp_path, length, validates):
    last = progress_lines(tmp_path, length, validates)[-1]
    assert last.startswith(('epoch 2/2  loss', 'iter 6/6  loss'))
    assert ('score' in last) == validates


@pytest.mark.parametrize('scales', [False, True])
def test_rate_of_the_console_is_that_of_the_config(tmp_path, scales):
    """Not that of the first group of parameters, which ``lr_mult`` makes smaller."""
    lines = progress_lines(
        tmp_path,
        EPOCHS,
        validates=False,
        optim_wrapper=dict(
            optimizer=dict(type='SGD', lr=1e-3),
            paramwise_cfg=dict(custom_keys={'fc.weight': dict(lr_mult=0.1)}),
        ),
        # The batch has one sample.
        auto_scale_lr=dict(enable=scales, base_batch_size=2),
    )
    expected = '5.00e-04' if scales else '1.00e-03'
    assert [line.partition('lr ')[2].split()[0] for line in lines] == [expected] * 2
