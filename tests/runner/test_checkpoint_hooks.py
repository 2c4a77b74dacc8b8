"""Checkpoints: slim, safe, atomic, resumable; frozen weights stay what they are."""

import datetime
import errno
import os
from collections import OrderedDict, defaultdict
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import Runner

from lm4ve.blocks import frozen_tensors
from lm4ve.blocks.record_text import KEY
from lm4ve.errors import CheckpointError, UserError
from lm4ve.runner.checkpoint_hooks import PlainCheckpointHook
from tests.helpers.runner import toy
from tests.helpers.runner.toy_neck import STEPS_PER_EPOCH, Toy, make_runner


def average_of(runner: Runner) -> Toy:
    """Return the averaged model of the runner's only hook that has one."""
    (hook,) = [hook for hook in runner.hooks if hasattr(hook, 'ema_model')]
    return hook.ema_model.module


def load(path: Path) -> dict:
    """Load a checkpoint as PyTorch does by default, which refuses pickled classes."""
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize('update_buffers', [False, True])
def test_checkpoints_and_averages_omit_frozen_weights(tmp_path, update_buffers):
    model = Toy()
    before = {name: tensor.clone() for name, tensor in frozen_tensors(model).items()}
    hook = dict(type='EMAHook', momentum=0.5, update_buffers=update_buffers)
    runner = make_runner(tmp_path, model=model, hooks=[hook])
    runner.train()
    assert before
    averaged = frozen_tensors(average_of(runner))
    for name, tensor in frozen_tensors(model).items():
        assert torch.equal(tensor, before[name])
        assert tensor.data_ptr() == averaged[name].data_ptr()
    checkpoint = load(tmp_path / 'epoch_2.pth')
    assert set(checkpoint['state_dict']) == {
        'stem.weight',
        'stem.bias',
        'neck.mapper_in.weight',
        'neck.mapper_out.weight',
        'neck.norm.weight',
        'neck.norm.bias',
        f'neck.{KEY}',
        f'neck.block.{KEY}',
    }
    assert not any('proj' in name for name in checkpoint['ema_state_dict'])


@pytest.mark.parametrize(
    'has_plain_hook', [True, False], ids=['plain hook', "MMEngine's hooks alone"]
)
def test_plain_checkpoints_resume_with_history(tmp_path, has_plain_hook):
    """Checkpoints without pickled classes resume, with our hook and in a stock runner."""
    make_runner(tmp_path, epochs=1).train()
    runner = make_runner(tmp_path, epochs=2, plain=has_plain_hook, resume=True)
    runner.train()
    assert runner.epoch == 2
    history = runner.message_hub.log_scalars['train/loss']
    assert isinstance(history, HistoryBuffer)
    if has_plain_hook:  # MMEngine alone drops the losses before the resume
        losses, _ = history.data
        assert len(losses) == 2 * STEPS_PER_EPOCH


def test_kept_ema_stores_raw_weights(tmp_path):
    model = Toy()
    kept = dict(type='lm4ve.KeptEMAHook', momentum=0.1)
    make_runner(tmp_path, model=model, hooks=[dict(kept)]).train()
    checkpoint = load(tmp_path / 'epoch_2.pth')
    raw = checkpoint['state_dict']['stem.weight']
    average = checkpoint['ema_state_dict']['module.stem.weight']
    assert torch.equal(raw, model.stem.weight.detach())
    assert not torch.equal(raw, average)
    resumed = make_runner(tmp_path, hooks=[kept], resume=True)
    resumed.train()  # without a step, since all epochs are done
    assert torch.equal(average_of(resumed).stem.weight, average)


def test_full_disk_keeps_last_checkpoint(tmp_path, monkeypatch):
    make_runner(tmp_path, epochs=1).train()
    good = (tmp_path / 'epoch_1.pth').read_bytes()

    def full(fd):
        if os.fstat(fd).st_size > 4096:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(UserError, match=r'epoch_2.pth.*No space left'):
        make_runner(tmp_path, epochs=2, resume=True).train()
    assert (tmp_path / 'epoch_1.pth').read_bytes() == good
    assert Path((tmp_path / 'last_checkpoint').read_text()).name == 'epoch_1.pth'
    assert not list(tmp_path.glob('*.tmp*'))


def test_old_checkpoints_are_deleted_last(tmp_path, monkeypatch):
    before_removals = []
    remove = os.remove

    def names() -> list[str]:
        return sorted(path.name for path in tmp_path.glob('*.pth'))

    def spy(path, *args, **kwargs):
        if str(path).endswith('.pth'):
            before_removals.append(names())
        remove(path, *args, **kwargs)

    monkeypatch.setattr(os, 'remove', spy)
    make_runner(tmp_path, epochs=2).train()
    make_runner(tmp_path, epochs=4, resume=True).train()
    assert before_removals == [
        ['epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth'],
        ['epoch_2.pth', 'epoch_3.pth', 'epoch_4.pth'],
    ]
    assert names() == ['epoch_3.pth', 'epoch_4.pth']


class Pair(NamedTuple):
    """A container that ``weights_only=True`` refuses."""

    a: object
    b: object


#: Ways to start from a checkpoint -> options of the runner and of its hook.
WAYS = {
    'evaluation': {},
    'partial evaluation': dict(allow_partial=True),
    'a resumed training': dict(resume=True),
    'a training from its weights': {},
}


@pytest.mark.parametrize('way', WAYS)
def test_weights_that_are_not_finite_are_refused(tmp_path, way):
    make_runner(tmp_path, epochs=1).train()
    path = tmp_path / 'epoch_1.pth'
    content = load(path)
    content['state_dict']['stem.bias'][-1] = torch.nan
    torch.save(content, path)
    options = WAYS[way] | dict(load_from=str(path))
    partial = options.pop('allow_partial', False)
    whole = dict(type='lm4ve.WholeCheckpointHook', allow_partial=partial)
    runner = make_runner(tmp_path, epochs=2, hooks=[whole], **options)
    words = (
        rf"The checkpoint '{path}' has weights that are NaN or infinite, .*: stem\.bias"
    )
    start = runner.train if 'training' in way else runner.load_or_resume
    with pytest.raises(CheckpointError, match=words):
        start()


class Kind(IntEnum):
    """A number that a pickle stores as a call of its class."""

    ONE = 1


def test_containers_are_stored_plain(tmp_path):
    counts = defaultdict(list, x=[np.float32(1.5)])
    checkpoint = dict(
        message_hub=dict(
            log_scalars={}, runtime_info=dict(pair=Pair(np.int64(1), counts))
        ),
        meta=OrderedDict(sizes=(np.arange(2), {3}), kind=Kind.ONE, path=Path('a/b')),
        param_schedulers=[dict(pair=Pair(1, None), function=len)],
        a_hook_of_the_user=defaultdict(list, x=[frozenset({1}), torch.float16]),
    )
    checkpoint['message_hub']['resumed_keys'] = defaultdict(bool, a=True)
    checkpoint['state_dict'] = torch.nn.Linear(1, 1).state_dict()
    PlainCheckpointHook().before_save_checkpoint(None, checkpoint)
    torch.save(checkpoint, tmp_path / 'a.pth')
    read = load(tmp_path / 'a.pth')
    assert read['message_hub']['runtime_info'] == dict(pair=(1, dict(x=[1.5])))
    assert read['message_hub']['resumed_keys'] == dict(a=True)
    assert read['meta'] == dict(sizes=([0, 1], {3}), kind=1, path='a/b')
    assert read['param_schedulers'] == [dict(pair=(1, None))]
    assert read['a_hook_of_the_user'] == dict(x=[{1}, torch.float16])
    assert read['state_dict']._metadata == {'': dict(version=1)}


def test_what_has_no_plain_form_is_saved_as_text_and_named(monkeypatch):
    warnings = []
    monkeypatch.setattr(
        'lm4ve.runner.plain_data.print_log', lambda text, **_: warnings.append(text)
    )
    checkpoint = dict(meta=dict(when=datetime.date(2026, 1, 2)))
    PlainCheckpointHook().before_save_checkpoint(None, checkpoint)
    assert checkpoint == dict(meta=dict(when='2026-01-02'))
    (warning,) = warnings
    assert 'meta.when of the checkpoint is a date' in warning


class Line(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(2, 1)

    def forward(self, inputs, data_samples=None, mode='loss'):
        return dict(loss=self.fc(torch.stack(list(inputs))).sum())


class StopsAfter(Hook):
    """Ends a training after an epoch, as ``EarlyStoppingHook`` does."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def before_train_epoch(self, runner: Runner) -> None:
        # MMEngine asks for it after the epoch.
        runner.train_loop.stop_training = runner.epoch + 1 == self.epoch


@pytest.mark.parametrize('by_epoch', [True, False])
@pytest.mark.parametrize('interval', [1, 2, 3, 10])
def test_end_of_a_training_that_stopped_early_is_saved_once(
    tmp_path, by_epoch, interval
):
    every = interval if by_epoch else interval * STEPS_PER_EPOCH
    saving = dict(
        type='lm4ve.AtomicCheckpointHook',
        interval=every,
        by_epoch=by_epoch,
        published_keys=['meta', 'state_dict'],
    )
    data = [dict(inputs=torch.ones(2)) for _ in range(STEPS_PER_EPOCH)]
    runner = toy.make_runner(
        tmp_path,
        Line(),
        data,
        batch_size=1,
        train_cfg=dict(by_epoch=True, max_epochs=9),
        default_hooks=dict(checkpoint=saving),
        custom_hooks=[StopsAfter(4), PlainCheckpointHook()],
    )
    runner.train()
    done = 4 * STEPS_PER_EPOCH
    (published,) = tmp_path.glob('*-*.pth')
    regular = set(tmp_path.glob('*.pth')) - {published}
    saved = [load(file)['meta']['iter'] for file in regular]
    assert saved.count(done) == 1
    content = load(published)
    assert content['meta']['iter'] == done
    assert sorted(content) == ['meta', 'state_dict']
    last = Path((tmp_path / 'last_checkpoint').read_text())
    assert load(last)['meta']['iter'] == done
