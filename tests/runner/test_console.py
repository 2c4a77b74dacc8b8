"""The console shows a short start, a line an epoch, and warnings."""

import pytest
from mmengine.logging import MMLogger

from tests.helpers.tasks import ROOT
from tests.helpers.tools import run_tool_here

DEMO = ROOT / 'configs/lm4ve/vit-demo_minilm_digits.py'
SHORT = 'train_cfg.max_epochs=2 train_cfg.val_interval=2 param_scheduler.total_steps=2'
SHORT = *SHORT.split(), 'train_dataloader.batch_size=256'

pytest.importorskip('mmpretrain')


def test_training_prints_short_start_and_epoch_lines(tmp_path, capsys):
    run_tool_here('train.py', DEMO, '--work-dir', tmp_path, '--cfg-options', *SHORT)
    shown = capsys.readouterr().out.strip().splitlines()
    start = [i for i, line in enumerate(shown) if line.startswith('epoch ')][0]
    assert start <= 6
    said = '\n'.join(shown[:start])
    for words in ('vit-demo_minilm_digits', '1,257 to train', '540 to validate', 'trained', 'log '):
        assert words in said
    first, second, saved = shown[start:]
    assert first.startswith('epoch 1/2  loss ') and 'accuracy' not in first
    assert second.startswith('epoch 2/2  loss ') and 'accuracy/top1 ' in second
    assert saved.split() == ['saved', str(tmp_path / 'epoch_2.pth')]

    (log,) = tmp_path.glob('*/*.log')
    text = log.read_text()
    for words in ('System environment', 'Config:', 'after_train_iter', 'Epoch(train) [2]'):
        assert words in text
    assert str(log) in said

    run_tool_here('test.py', DEMO, tmp_path / 'epoch_2.pth', '--work-dir', tmp_path)
    *start, last = capsys.readouterr().out.strip().splitlines()
    assert last.startswith('test  accuracy/top1 ') and len(start) <= 5


def test_console_shows_warnings_without_framework_noise(capsys):
    from lm4ve.runner.console import shorten

    logger = MMLogger('test_console')
    shorten(logger)
    logger.warning('the loss is large')
    logger.warning('"HardDiskBackend" is the alias of "LocalBackend" and so on.')
    logger.info('paramwise_options -- a.bias:weight_decay=0.0')
    assert capsys.readouterr().out.splitlines() == ['warning: the loss is large']
