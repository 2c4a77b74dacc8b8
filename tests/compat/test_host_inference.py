"""The hosts' own inferencers refuse a checkpoint that is not of the config's model."""

import sys

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from lm4ve.errors import CheckpointError, UserError
from tests.helpers.tiny_runs import PLACE, WRONG, state_of, without, write_runs
from tests.helpers.tools import run_command

for package in ('mmpretrain', 'mmaction'):
    pytest.importorskip(package)
from mmaction.apis import init_recognizer  # noqa: E402
from mmaction.apis.inferencers import ActionRecogInferencer  # noqa: E402
from mmpretrain import ImageClassificationInferencer, get_model  # noqa: E402


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """A copy of small trained models, in the place that their configs name."""
    write_runs(tmp_path, 'vit_frozen', 'videomae')
    monkeypatch.chdir(tmp_path)
    yield
    init_default_scope('mmengine')


def image_inferencer(cfg: Config):
    return ImageClassificationInferencer(cfg, pretrained='given.pth', device='cpu')


#: What loads a checkpoint, and the model whose config it gets.
LOADERS = [
    (image_inferencer, 'vit_frozen'),
    (lambda cfg: image_inferencer(get_model(cfg)), 'vit_frozen'),
    (lambda cfg: get_model(cfg, pretrained='given.pth'), 'vit_frozen'),
    (lambda cfg: ActionRecogInferencer(cfg, 'given.pth', device='cpu'), 'videomae'),
    (lambda cfg: init_recognizer(cfg, 'given.pth', device='cpu'), 'videomae'),
]


@pytest.mark.parametrize('change', [change for change, _ in WRONG.values()], ids=WRONG)
@pytest.mark.parametrize('load, model', LOADERS)
def test_a_wrong_checkpoint_is_refused(load, model, change):
    torch.save(dict(state_dict=change(state_of(model))), 'given.pth')
    with pytest.raises(UserError):
        load(Config.fromfile(f'{PLACE}/{model}.py'))


@pytest.mark.parametrize('load, model', LOADERS)
def test_the_right_checkpoint_loads(load, model):
    torch.save(dict(state_dict=state_of(model)), 'given.pth')
    loaded = load(Config.fromfile(f'{PLACE}/{model}.py'))
    loaded = getattr(loaded, 'model', loaded)
    for name, value in state_of(model).items():
        assert torch.equal(loaded.state_dict()[name], value) or '_extra_state' in name


@pytest.mark.parametrize('load, model', LOADERS)
def test_a_baseline_without_a_block_refuses_too(load, model):
    """Nothing in the model is ours; the config imports lm4ve."""
    cfg = Config.fromfile(f'{PLACE}/{model}.py')
    cfg.model.pop('neck')
    torch.save(dict(state_dict=state_of(model)), 'given.pth')
    with pytest.raises(CheckpointError, match='neck'):
        load(cfg)


def test_who_insists_gets_a_part():
    cfg = Config.fromfile(f'{PLACE}/vit_frozen.py')
    cfg.default_hooks.whole_checkpoint = dict(allow_partial=True)
    torch.save(dict(state_dict=without('head.')(state_of('vit_frozen'))), 'given.pth')
    (result,) = image_inferencer(cfg)(np.zeros((8, 8, 3), np.uint8))
    assert result['pred_label'] in range(10)


def test_lm4ve_may_be_imported_by_the_config_alone():
    """A script that never names lm4ve: the first load is checked already."""
    torch.save(dict(state_dict=without('head.')(state_of('vit_frozen'))), 'given.pth')
    script = (
        'from mmpretrain import ImageClassificationInferencer as I\n'
        f"I('{PLACE}/vit_frozen.py', pretrained='given.pth', device='cpu')"
    )
    done = run_command(sys.executable, '-c', script)
    assert done.returncode and 'CheckpointError' in done.stderr
