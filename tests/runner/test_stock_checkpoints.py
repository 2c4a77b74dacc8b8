"""Files of stock MMEngine load with all they hold, and none leads to code."""

import argparse
import pickle
import sys
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim import OneCycleParamScheduler
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader

from lm4ve.errors import CheckpointError
from lm4ve.runner.checkpoint_files import read_checkpoint
from lm4ve.runner.command_line import build_runner
from tests.helpers.hostile import Call, attribute
from tests.helpers.runner import stock_training
from tests.helpers.tools import run_command

READERS = {
    'tools': read_checkpoint,
    'MMEngine': lambda path: CheckpointLoader.load_checkpoint(str(path)),
}
readers = pytest.mark.parametrize('read', READERS.values(), ids=READERS)


@pytest.fixture(scope='module')
def stock(tmp_path_factory):
    """A folder with trainings of MMEngine alone, in a process of their own."""
    folder = tmp_path_factory.mktemp('stock')
    run_command(sys.executable, stock_training.__file__, folder, check=True)
    return folder


def assert_same(read, written) -> None:
    """Compare containers, tensors, arrays, histories and numbers by value."""
    if isinstance(written, HistoryBuffer):
        assert type(read) is HistoryBuffer and read.max_length == written.max_length
        assert_same(list(read.data), list(written.data))
        assert read.statistics('mean') == written.statistics('mean')
    elif isinstance(written, dict):
        assert list(read) == list(written)
        for key, value in written.items():
            assert_same(read[key], value)
    elif isinstance(written, (list, tuple)):
        assert type(read) is type(written) and len(read) == len(written)
        for ours, theirs in zip(read, written, strict=True):
            assert_same(ours, theirs)
    elif isinstance(written, (torch.Tensor, np.ndarray)):
        assert read.dtype == written.dtype and read.shape == written.shape
        assert (read == written).all()
    else:
        assert read == written


@readers
@pytest.mark.parametrize('schedule', stock_training.SCHEDULES)
def test_files_of_stock_mmengine_load_with_all_they_hold(stock, read, schedule):
    for path in (stock / schedule).glob('*.pth'):
        assert_same(read(path), torch.load(path, weights_only=False))


@pytest.mark.parametrize('schedule', stock_training.SCHEDULES)
@pytest.mark.parametrize(
    'build', [Runner.from_cfg, build_runner], ids=['stock', 'ours']
)
def test_a_training_of_stock_mmengine_goes_on(stock, tmp_path, build, schedule):
    cfg = stock_training.config_of(tmp_path, schedule)
    cfg.resume, cfg.load_from = True, str(stock / schedule / 'epoch_2.pth')
    cfg.train_cfg.max_epochs = 3
    if schedule.startswith('OneCycle'):  # its end is fixed
        cfg.train_cfg.max_epochs = 2
    runner = build(cfg)
    runner.train()
    assert runner.epoch == cfg.train_cfg.max_epochs
    losses = runner.message_hub.log_scalars['train/loss'].data[0]
    assert len(losses) == 4 * runner.epoch
    for path in tmp_path.rglob('*.pth'):
        read_checkpoint(path)


def buffer(**state) -> HistoryBuffer:
    """Make one whose file has a state of somebody's choice."""
    made = HistoryBuffer()
    made.__dict__.update(state)
    return made


STATISTICS = dict(buffer()._statistics_methods)


NAMESPACE = argparse.Namespace()
HOSTILE = {
    'the globals of a method': lambda: attribute(HistoryBuffer.update, '__globals__'),
    'the globals of a statistic': lambda: attribute(HistoryBuffer.mean, '__globals__'),
    'the globals of the constructor': lambda: attribute(
        HistoryBuffer, '__init__', '__globals__'
    ),
    'the globals of a schedule': lambda: attribute(
        OneCycleParamScheduler, '_annealing_cos', '__globals__'
    ),
    'a method': lambda: attribute(HistoryBuffer, 'update'),
    'the registration of statistics': lambda: attribute(
        HistoryBuffer, 'register_statistics'
    ),
    'the table of statistics': lambda: attribute(HistoryBuffer, '_statistics_methods'),
    'a path of names': lambda: attribute(HistoryBuffer, 'mean.__globals__'),
    'a default': lambda: Call(getattr, HistoryBuffer, 'none', len),
    'a statistic of another class': lambda: attribute(np.ndarray, 'mean'),
    'a statistic of an object': lambda: attribute(NAMESPACE, 'mean'),
    'a class': lambda: attribute(OrderedDict(), '__class__'),
    'a class of a class': lambda: attribute(HistoryBuffer, '__class__'),
    'subclasses': lambda: attribute(HistoryBuffer, '__base__', '__subclasses__'),
    'getattr itself': lambda: Call(getattr, getattr, '__self__'),
    'a tensor': lambda: attribute(torch.Tensor, '__init__', '__globals__'),
    'names that are no text': lambda: Call(getattr, HistoryBuffer, ('mean',)),
    'a scheduler': lambda: Call(OneCycleParamScheduler, 1),
    'a buffer that is called': lambda: Call(HistoryBuffer, [len], [1]),
    'a buffer of objects': lambda: buffer(_log_history=NAMESPACE),
    'a buffer of text': lambda: buffer(_log_history='ab', _count_history='ab'),
    'a buffer with a limit of its own': lambda: buffer(max_length=NAMESPACE),
    'a buffer with more values than counts': lambda: buffer(_log_history=np.ones(2)),
    'a buffer of a number': lambda: buffer(
        _log_history=np.ones(()), _count_history=np.ones(())
    ),
    'an array of objects': lambda: np.array([len]),
    'an array of a class of its own': lambda: np.ma.ones(2),
}


@readers
@pytest.mark.parametrize('hostile', HOSTILE.values(), ids=HOSTILE)
def test_getattr_leads_nowhere(tmp_path, read, hostile):
    torch.save(dict(a=hostile()), tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=r"a\.pth' "):
        read(tmp_path / 'a.pth')
    assert HistoryBuffer._statistics_methods == STATISTICS


@readers
def test_statistics_of_a_file_are_not_taken(tmp_path, monkeypatch, read):
    with monkeypatch.context() as patch:
        patch.setattr(
            HistoryBuffer, '_statistics_methods', dict(mean=HistoryBuffer.max)
        )
        torch.save(dict(a=HistoryBuffer([1.0, 3.0], [1, 1])), tmp_path / 'a.pth')
    assert read(tmp_path / 'a.pth')['a'].statistics('mean') == 2.0
    assert HistoryBuffer._statistics_methods['mean'] is HistoryBuffer.mean


#: Pickles that Python's own pickle module would not write.
BY_HAND = {
    'a call of text': b'X\x04\x00\x00\x00eval(X\x01\x00\x00\x001tR',
    'a call of a statistic': b'cbuiltins\ngetattr\n(cmmengine.logging.history_buffer\n'
    b'HistoryBuffer\nX\x04\x00\x00\x00meantR(tR',
    'a state of a function': b'cbuiltins\ngetattr\n}X\x01\x00\x00\x00aX\x01\x00\x00\x00bsb',
    'a class below a function': b'cbuiltins\ngetattr.__self__\n',
    'text for a class': b'X\x0d\x00\x00\x00HistoryBuffer)\x81',
}


@readers
@pytest.mark.parametrize('opcodes', BY_HAND.values(), ids=BY_HAND)
def test_pickles_made_by_hand_are_refused(tmp_path, read, opcodes):
    path = tmp_path / 'a.pth'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('a/data.pkl', b'\x80\x02' + opcodes + b'.')
        archive.writestr('a/version', '3\n')
    with pytest.raises(
        (CheckpointError, pickle.UnpicklingError), match=r'not loaded: it holds'
    ):
        read(path)
