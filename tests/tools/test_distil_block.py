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
FEW = [f'{part}_dataloader.dataset.indices=128' for part in ('train', 'test')]
NAME = 'vit-demo_minilm_digits_distilled'


def distil(out, *words, config=DEMO, options=FEW):
    words = 'pretrained', '--out', out, '--steps', 30, *words
    run_tool_here('distil_block.py', config, *words, '--cfg-options', *options)
    return json.loads((out / f'{NAME}.json').read_text())


def test_distilled_model_ships_without_the_language_model(tmp_path):
    found = distil(tmp_path / 'a', '--width', 32)
    assert found['errors'][-1] < 0.9 * found['errors'][0]
    before, after = found['trained'], found['distilled']
    assert after['parameters of the neck'] < before['parameters of the neck'] / 50
    config, weights = (tmp_path / 'a' / f'{NAME}.{end}' for end in ('py', 'pth'))
    assert 'MiniLM' not in config.read_text()
    assert str(tmp_path) not in config.read_text()
    out = '--out', tmp_path / 'out.json', '--out-item', 'metrics'
    run_tool_here('test.py', config, weights, '--work-dir', tmp_path, *out)
    shipped = json.loads((tmp_path / 'out.json').read_text())['accuracy/top1']
    assert shipped == pytest.approx(after['accuracy/top1'])
    state, trained = (
        read_state(weights),
        read_state(WEIGHTS / f'{DEMO.stem}.safetensors'),
    )
    rest = [k for k in trained if not k.startswith('neck.')]
    assert rest and all(torch.equal(state[k], trained[k]) for k in rest)
    distil(tmp_path / 'b', '--width', 32)
    again = read_state(tmp_path / 'b' / f'{NAME}.pth')
    assert all(torch.equal(state[k], again[k]) for k in state)
    with pytest.raises(UserError, match='another --out'):
        distil(tmp_path / 'b')


def test_padding_is_not_imitated():
    tokens_of = load_tool('distil_block.py')['tokens_of']
    neck, out = (
        LLMBlockNeck(3, dict(type='MLPBlock', embed_dims=4)),
        torch.randn(2, 4, 3),
    )
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
