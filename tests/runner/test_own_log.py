"""Runs that begin within one second of each other, in one process."""

import json
import time

import mmengine.runner.runner
import pytest

from lm4ve.commands.train import main as train
from tests.helpers.tasks import ROOT

pytest.importorskip('mmpretrain')


def test_runs_of_one_second_have_own_logs(tmp_path, monkeypatch):
    second = time.localtime(1.7e9)
    monkeypatch.setattr(mmengine.runner.runner.time, 'localtime', lambda *_: second)
    config = str(ROOT / 'configs/lm4ve/vit-demo_none_digits.py')
    short = 'train_cfg.max_epochs=1', 'train_dataloader.dataset.indices=64'
    folders = tmp_path / 'one', tmp_path / 'two'
    for folder in folders:
        train([config, '--work-dir', str(folder), '--cfg-options', *short])
    for folder in folders:
        (log,) = folder.glob('*/*.log')
        assert 'Epoch(train) [1]' in log.read_text()
        (scalars,) = folder.glob('*/vis_data/scalars.json')
        rows = map(json.loads, scalars.read_text().splitlines())
        assert sum('lr' in row for row in rows) == 1
