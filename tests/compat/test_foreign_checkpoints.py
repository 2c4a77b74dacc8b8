"""Nothing of a checkpoint is executed, and nothing that it names is deleted."""

import itertools
import json
import pickle
from functools import partial, reduce
from pathlib import Path
from types import SimpleNamespace

import mmengine
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.infer import BaseInferencer
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModule
from mmengine.runner import FlexibleRunner, Runner, checkpoint, load_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from lm4ve.errors import CheckpointError, UserError
from lm4ve.llm.torch_files import open_torch
from lm4ve.runner.checkpoint_files import read_checkpoint
from tests.helpers.hostile import Payload, walk_to_exec
from tests.helpers.runner.toy import Score, make_runner
from tests.helpers.runner.toy_neck import DATA, Toy

HOOKS = ('CheckpointHook', 'lm4ve.AtomicCheckpointHook')


#: Each evaluation is better than the one before, in a resumed training too.
BETTER = itertools.count(1)


def train(work_dir: Path, epochs: int, runner=Runner, hook=HOOKS[0], **kwargs) -> None:
    data = DATA[:4]
    loader = dict(
        dataset=data, batch_size=2, sampler=dict(type='DefaultSampler', shuffle=False)
    )
    checkpoint = dict(type=hook, save_best='score', rule='greater', max_keep_ckpts=2)
    hooks = dict(checkpoint=checkpoint, plain=dict(type='lm4ve.PlainCheckpointHook'))
    kwargs |= dict(
        val_dataloader=loader, val_cfg={}, val_evaluator=Evaluator(Score(BETTER))
    )
    kwargs |= dict(
        train_cfg=dict(by_epoch=True, max_epochs=epochs), default_hooks=hooks
    )
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
    inferencer = type(
        'Any', (BaseInferencer,), dict(visualize=0, postprocess=0, _init_pipeline=0)
    )
    with pytest.raises(UserError, match='Fix: give the model'):
        inferencer(weights=str(tmp_path / 'a.pth'), scope='mmengine')
    assert not (tmp_path / 'ran').exists()


def load_by_runner(runner, resume: bool, path: Path) -> None:
    train(path.parent / 'run', 1, runner, load_from=str(path), resume=resume)


def load_for_inference(path: Path) -> None:
    class Any(BaseInferencer):
        visualize = postprocess = _init_pipeline = 0

    Any(dict(model=dict(type='BaseDataPreprocessor')), str(path), scope='mmengine')


def load_as_initial_weights(prefix: str | None, path: Path) -> None:
    start = dict(type='Pretrained', checkpoint=str(path), prefix=prefix)
    BaseModule(init_cfg=start).init_weights()


def load_from_home(path: Path) -> None:
    """Load a model of MMEngine's own list, to which the user's folder adds."""
    (path.parent / 'open_mmlab.json').write_text(json.dumps(dict(mine=path.name)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('MMENGINE_HOME', str(path.parent))
        CheckpointLoader.load_checkpoint('open-mmlab://mine')


def load_from_storage(path: Path) -> None:
    """Load from a remote storage, whose answer is a local file's."""
    with pytest.MonkeyPatch.context() as patch:
        storage = SimpleNamespace(get=lambda _: path.read_bytes())
        patch.setattr(checkpoint, 'get_file_backend', lambda *_, **__: storage)
        CheckpointLoader.load_checkpoint('s3://bucket/a.pth')


def load_url(path: Path) -> None:
    """Do what is done of an ``http://`` address, without a network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('TORCH_HOME', str(path.parent / 'cache'))
        CheckpointLoader._schemes['http://'](f'file://{path}')


#: Every way on which a file of weights is read.
DOORS = {
    'read_checkpoint': read_checkpoint,
    'block reader': open_torch,
    'CheckpointLoader': lambda path: CheckpointLoader.load_checkpoint(str(path)),
    'load_checkpoint': lambda path: load_checkpoint(torch.nn.Linear(1, 1), str(path)),
    'local scheme': lambda path: checkpoint.load_from_local(str(path), 'cpu'),
    'http': load_url,
    'open-mmlab': load_from_home,
    's3': load_from_storage,
    'load_from': partial(load_by_runner, Runner, False),
    'resume': partial(load_by_runner, Runner, True),
    'load_from of FlexibleRunner': partial(load_by_runner, FlexibleRunner, False),
    'resume of FlexibleRunner': partial(load_by_runner, FlexibleRunner, True),
    'inferencer': load_for_inference,
    'init_cfg': partial(load_as_initial_weights, None),
    'init_cfg with a prefix': partial(load_as_initial_weights, 'backbone'),
}
PAYLOADS = {'function': Payload, 'getattr': walk_to_exec}
VARIABLES = ('', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD')


@pytest.mark.parametrize('variable', VARIABLES)
@pytest.mark.parametrize('payload', PAYLOADS.values(), ids=PAYLOADS)
@pytest.mark.parametrize('door', DOORS.values(), ids=DOORS)
def test_no_door_lets_a_pickle_run_code(tmp_path, monkeypatch, door, payload, variable):
    if variable:
        monkeypatch.setenv(variable, '1')
    path, ran = tmp_path / 'a.pth', tmp_path / 'ran'
    torch.save(dict(state_dict={}, meta={}, other=payload(ran)), path)
    with pytest.raises((CheckpointError, pickle.UnpicklingError)):
        door(path)
    assert not ran.exists()


@pytest.mark.parametrize('door', [DOORS['CheckpointLoader'], DOORS['http']])
def test_no_old_format_lets_a_pickle_run_code(tmp_path, door):
    path, ran = tmp_path / 'a.pth', tmp_path / 'ran'
    torch.save(dict(a=Payload(ran)), path, _use_new_zipfile_serialization=False)
    with pytest.raises((CheckpointError, pickle.UnpicklingError)):
        door(path)
    assert not ran.exists()


def test_the_payloads_run_code_where_a_loader_lets_them(tmp_path):
    content = {name: payload(tmp_path / name) for name, payload in PAYLOADS.items()}
    torch.save(dict(a=content['function']), tmp_path / 'a.pth')
    torch.load(tmp_path / 'a.pth', weights_only=False)
    torch.save(dict(a=content['getattr']), tmp_path / 'b.pth')
    with torch.serialization.safe_globals([getattr, HistoryBuffer]):
        torch.load(tmp_path / 'b.pth', weights_only=True)
    assert all((tmp_path / name).exists() for name in PAYLOADS)


def test_mmengine_calls_torch_load_only_where_it_is_ours():
    package = Path(mmengine.__file__).parent
    callers = {p for p in package.rglob('*.py') if 'torch.load(' in p.read_text()}
    unused = package / 'utils/dl_utils/hub.py'  # for torch < 1.7
    assert callers - {unused} == {Path(checkpoint.__file__)}
    assert checkpoint.torch.load.__module__.startswith('lm4ve.')


@pytest.mark.parametrize('hook', HOOKS)
@pytest.mark.parametrize('name', ['precious', 'best_score_epoch_1.pth', 'epoch_1.pth'])
@pytest.mark.parametrize('kind', ['file', 'folder'])
def test_resuming_deletes_nothing_outside_the_work_directory(
    tmp_path, hook, name, kind
):
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
@pytest.mark.parametrize(
    'ids', [['../other/', 2, 3, 4], 'abcd', None, [1.5, True, 3, 4]]
)
def test_resuming_deletes_nothing_by_numbers_that_are_none(tmp_path, hook, ids):
    train(tmp_path / 'run', 1, hook=hook)
    path = tmp_path / 'run/epoch_1.pth'
    change(path, message_hub__runtime_info__keep_ckpt_ids=ids)
    train(tmp_path / 'run', 2, hook=hook, load_from=str(path), resume=True)
    assert path.exists()
