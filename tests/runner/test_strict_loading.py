"""Evaluation and resuming refuse a checkpoint of another model, by the names of its tensors."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner

from lm4ve.analysis.loading import load_model
from lm4ve.errors import CheckpointError, UserError
from lm4ve.runner.config import read_config
from tests.helpers.tiny_runs import PLACE, write_runs
from tests.helpers.tools import run_tool_here

pytest.importorskip('mmpretrain')


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """A copy of small trained models, in the place that their configs name."""
    write_runs(tmp_path, 'vit_frozen', 'vit_mlp', 'pointbert')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('LM4VE_CACHE', str(tmp_path / 'cache'))


def state_of(case: str) -> dict:
    return torch.load(f'{PLACE}/{case}.pth', weights_only=True)['state_dict']


def of_another_task() -> dict:
    return {k: v for k, v in state_of('pointbert').items() if not k.startswith('neck.')}


def without_record() -> dict:
    return {k: v for k, v in state_of('vit_frozen').items() if not k.endswith('llm_source')}


def misshapen() -> dict:
    state = state_of('vit_frozen')
    return state | {'head.layers.head.weight': torch.zeros(3, 3)}


#: What is given for the model with a frozen block -> its state, and what the error names.
WRONG = {
    'of another task': (of_another_task, 'encoder.first_conv'),
    'with an MLP block': (lambda: state_of('vit_mlp'), 'llm_source'),
    'without its record': (without_record, 'llm_source'),
    'empty': (dict, 'no model state'),
    'with another shape': (misshapen, 'head.layers.head.weight'),
}


def evaluate(config: str, state: dict, *flags: str) -> None:
    torch.save(dict(state_dict=state), 'given.pth')
    arguments = f'{PLACE}/{config}.py', 'given.pth', '--work-dir', 'work', '--out', 'out.json'
    run_tool_here('test.py', *arguments, '--out-item', 'metrics', *flags)


@pytest.mark.parametrize('state, named', WRONG.values(), ids=WRONG)
def test_command_test_refuses_wrong_checkpoint(state, named):
    with pytest.raises(UserError, match=named):
        evaluate('vit_frozen', state())
    assert not Path('out.json').exists()


@pytest.mark.parametrize('state, named', WRONG.values(), ids=WRONG)
def test_analysis_refuses_wrong_checkpoint(state, named):
    torch.save(dict(state_dict=state()), 'given.pth')
    with pytest.raises(UserError, match=named):
        load_model(read_config(f'{PLACE}/vit_frozen.py'), 'given.pth')


def test_mlp_block_refuses_llm_block():
    with pytest.raises(CheckpointError, match='is a MLPBlock'):
        evaluate('vit_mlp', state_of('vit_frozen'))


def test_hook_alone_refuses_wrong_checkpoint():
    """A Runner that somebody builds from a config with our runtime."""
    torch.save(dict(state_dict=state_of('vit_mlp')), 'given.pth')
    cfg = read_config(f'{PLACE}/vit_frozen.py')
    cfg.default_hooks.whole = dict(type='lm4ve.WholeCheckpointHook')
    cfg.update(work_dir='work', load_from='given.pth', experiment_name=Path.cwd().name)
    with pytest.raises(CheckpointError, match='llm_source'):
        Runner.from_cfg(cfg).val()


@pytest.mark.parametrize('name', [n for n in WRONG if n != 'empty'])
def test_allow_partial_evaluates_anyway(name):
    evaluate('vit_frozen', WRONG[name][0](), '--allow-partial')
    assert json.loads(Path('out.json').read_text())
    load_model(read_config(f'{PLACE}/vit_frozen.py'), 'given.pth', allow_partial=True)


def test_fine_tuning_loads_what_fits():
    torch.save(dict(state_dict=of_another_task()), 'given.pth')
    cfg = read_config(f'{PLACE}/vit_frozen.py')
    cfg.default_hooks.whole = dict(type='lm4ve.WholeCheckpointHook')
    cfg.update(work_dir='work', load_from='given.pth', experiment_name=Path.cwd().name)
    Runner.from_cfg(cfg).train()
