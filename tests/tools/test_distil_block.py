"""A distilled model loads without the language model and keeps all weights but its neck's."""

import json

import pytest
import torch

from lm4ve.errors import UserError
from lm4ve.necks import LLMBlockNeck
from lm4ve.runner.checkpoint_files import read_state
from lm4ve.zoo import WEIGHTS
from tests.helpers.tasks import CONFIGS
from tests.helpers.tools import load_tool, run_tool_here

pytest.importorskip('mmpretrain')
DEMO = CONFIGS / 'lm4ve/vit-demo_minilm_digits.py'
FEW = ['train_dataloader.dataset.indices=128', 'test_dataloader.dataset.indices=128']
NAME = 'vit-demo_minilm_digits_distilled'


def distil(out, *words, config=DEMO, options=FEW):
    words = ['pretrained', '--out', out, '--steps', 30, *words]
    run_tool_here('distil_block.py', config, *words, '--cfg-options', *options)
    return json.loads((out / f'{NAME}.json').read_text())


@pytest.fixture(scope='module')
def distilled(tmp_path_factory):
    """The folder of a distilled model, and what the tool reports."""
    folder = tmp_path_factory.mktemp('distilled')
    return folder, distil(folder, '--width', 32)


def test_distilled_neck_is_small_and_imitates(distilled):
    _, report = distilled
    assert report['errors'][-1] < 0.9 * report['errors'][0]
    before = report['trained']['parameters of the neck']
    assert report['distilled']['parameters of the neck'] < before / 50


def test_distilled_model_ships_without_the_language_model(distilled, tmp_path):
    folder, report = distilled
    config = folder / f'{NAME}.py'
    assert 'MiniLM' not in config.read_text()
    assert str(folder) not in config.read_text()
    words = [config, folder / f'{NAME}.pth', '--work-dir', tmp_path]
    out = tmp_path / 'out.json'
    run_tool_here('test.py', *words, '--out', out, '--out-item', 'metrics')
    accuracy = json.loads(out.read_text())['accuracy/top1']
    assert accuracy == pytest.approx(report['distilled']['accuracy/top1'])


def test_distillation_keeps_the_rest_and_repeats_itself(distilled, tmp_path):
    state = read_state(distilled[0] / f'{NAME}.pth')
    trained = read_state(WEIGHTS / f'{DEMO.stem}.safetensors')
    rest = [name for name in trained if not name.startswith('neck.')]
    assert rest
    for name in rest:
        assert torch.equal(state[name], trained[name])
    distil(tmp_path, '--width', 32)
    again = read_state(tmp_path / f'{NAME}.pth')
    for name in state:
        assert torch.equal(state[name], again[name])


def test_an_earlier_result_is_not_overwritten(distilled):
    with pytest.raises(UserError, match='another --out'):
        distil(distilled[0])


def test_padding_is_not_imitated():
    tokens_of = load_tool('distil_block.py')['tokens_of']
    neck = LLMBlockNeck(3, dict(type='MLPBlock', embed_dims=4))
    out = torch.randn(2, 4, 3)
    mask = torch.tensor([[False] * 4, [False, True, True, False]])
    expected = torch.cat([out[0], out[1, [0, 3]]])
    assert torch.equal(tokens_of(neck, (out, {}), dict(padding_mask=mask)), expected)
    read = dict(padding_mask=mask, queries=torch.tensor([[0, 1], [2, 0]]))
    expected = torch.cat([out[0, :2], out[1, 1:2]])
    assert torch.equal(tokens_of(neck, out[:, :2], read), expected)
    grid = torch.randn(2, 3, 2, 2)
    assert torch.equal(tokens_of(neck, grid, {})[1], grid[0, :, 0, 1])


def test_models_without_a_block_to_replace_are_refused(tmp_path):
    with pytest.raises(UserError, match='no LLMBlockNeck'):
        distil(tmp_path / 'a', config=CONFIGS / 'lm4ve/vit-demo_none_digits.py')
    with pytest.raises(UserError, match='branch'):
        distil(tmp_path / 'b', options=['model.neck.branch=True'])
