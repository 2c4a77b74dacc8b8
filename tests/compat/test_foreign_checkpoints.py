"""Nothing of a checkpoint is executed, and nothing that it names is deleted."""

import itertools
import pickle
from functools import reduce
from pathlib import Path

import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.infer import BaseInferencer
from mmengine.runner import FlexibleRunner, Runner
from mmengine.runner.checkpoint import CheckpointLoader

from lm4ve.errors import CheckpointError, UserError
from tests.helpers.hostile import Payload
from tests.runner.test_checkpoint_hooks import DATA, Toy
from tests.runner.toy import Score, make_runner

HOOKS = ('CheckpointHook', 'lm4ve.AtomicCheckpointHook')


#: Each evaluation is better than the one before, in a resumed training too.
BETTER = itertools.count(1)


def train(work_dir: Path, epochs: int, runner=Runner, hook=HOOKS[0], **kwargs) -> None:
    data = DATA[:4]
    loader = dict(dataset=data, batch_size=2, sampler=dict(type='DefaultSampler', shuffle=False))
    checkpoint = dict(type=hook, save_best='score', rule='greater', max_keep_ckpts=2)
    hooks = dict(checkpoint=checkpoint, plain=dict(type='lm4ve.PlainCheckpointHook'))
    kwargs |= dict(val_dataloader=loader, val_cfg={}, val_evaluator=Evaluator(Score(BETTER)))
    kwargs |= dict(train_cfg=dict(by_epoch=True, max_epochs=epochs), default_hooks=hooks)
    make_runner(work_dir, Toy(), data, 2, runner=runner, **kwargs).train()


def change(path: Path, **fields) -> None:
    """Rewrite a checkpoint as somebody else could: ``meta.x`` is ``meta__x``."""
    content = torch.load(path, weights_only=True)
    for name, value in fields.items():
        *keys, last = name.split('__')
        reduce(dict.__getitem__, keys, content)[last] = value
    torch.save(content, path)


@pytest.mark.parametrize('runner', [Runner, FlexibleRunner])
@pytest.mark.parametrize('key', ['config', 'cfg'])
def test_resuming_does_not_execute_the_config_of_a_checkpoint(tmp_path, runner, key):
    train(tmp_path, 1, runner)
    code = f"a = __import__('pathlib').Path('{tmp_path}/ran').touch()"
    path = tmp_path / 'epoch_1.pth'
    change(path, **{f'meta__{key}': code, 'message_hub__runtime_info__cfg': code})
    # Its own count of epochs is one too high after a better score.
    train(tmp_path, 3, runner, load_from=str(path), resume=True)
    assert (tmp_path / 'epoch_3.pth').exists() and not (tmp_path / 'ran').exists()


def test_an_inferencer_does_not_execute_the_config_of_a_checkpoint(tmp_path):
    code = f"a = __import__('pathlib').Path('{tmp_path}/ran').touch()"
    torch.save(dict(meta=dict(cfg=code), state_dict={}), tmp_path / 'a.pth')
    inferencer = type('Any', (BaseInferencer,), dict(visualize=0, postprocess=0, _init_pipeline=0))
    with pytest.raises(UserError, match='Fix: give the model'):
        inferencer(weights=str(tmp_path / 'a.pth'), scope='mmengine')
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('scheme', ['', 'file://'])
def test_no_pickle_is_executed_from_wherever_it_comes(tmp_path, monkeypatch, zipped, scheme):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    path, ran = tmp_path / 'a.pth', tmp_path / 'ran'
    torch.save(dict(state_dict=Payload(ran)), path, _use_new_zipfile_serialization=zipped)
    load = CheckpointLoader.load_checkpoint
    if scheme:  # what http:// is loaded with, without a network
        load = CheckpointLoader._schemes['http://'].__globals__['load_url']
    with pytest.raises((CheckpointError, pickle.UnpicklingError)):
        load(f'{scheme}{path}')
    assert not ran.exists()


@pytest.mark.parametrize('hook', HOOKS)
@pytest.mark.parametrize('name', ['precious', 'best_score_epoch_1.pth', 'epoch_1.pth'])
@pytest.mark.parametrize('kind', ['file', 'folder'])
def test_resuming_deletes_nothing_outside_the_work_directory(tmp_path, hook, name, kind):
    train(tmp_path / 'run', 1, hook=hook)
    target = tmp_path / 'other' / name
    (target if kind == 'folder' else target.parent).mkdir(parents=True)
    (target / 'inside' if kind == 'folder' else target).write_text('kept')
    path = tmp_path / 'run/epoch_1.pth'
    change(path, message_hub__runtime_info__best_ckpt=str(target))
    train(tmp_path / 'run', 2, hook=hook, load_from=str(path), resume=True)
    assert target.exists()
    names = sorted(p.name for p in (tmp_path / 'run').glob('*.pth'))
    best = [n for n in names if n.startswith('best')]
    # Its own best file of that name is known again, wherever the run lay before.
    assert 'best_score_epoch_2.pth' in best
    assert ('best_score_epoch_1.pth' in best) == (not name.startswith('best'))


@pytest.mark.parametrize('hook', HOOKS)
@pytest.mark.parametrize('ids', [['../other/', 2, 3, 4], 'abcd', None, [1.5, True, 3, 4]])
def test_resuming_deletes_nothing_by_numbers_that_are_none(tmp_path, hook, ids):
    train(tmp_path / 'run', 1, hook=hook)
    path = tmp_path / 'run/epoch_1.pth'
    change(path, message_hub__runtime_info__keep_ckpt_ids=ids)
    train(tmp_path / 'run', 2, hook=hook, load_from=str(path), resume=True)
    assert path.exists()
