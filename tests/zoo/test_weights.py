"""The weights that come with lm4ve: they score what is recorded, and serve every command."""

import json

import pytest
import torch

import lm4ve
from lm4ve.commands import export, test
from lm4ve.errors import CheckpointError
from lm4ve.zoo import WEIGHTS, all_models, find_checkpoint

pytest.importorskip('mmpretrain')

SCORES = json.loads((WEIGHTS / 'scores.json').read_text())
#: Small test sets of the demos, as overrides: generated data, so that no other sample changes.
SMALL = {
    'primitives': 'test_dataloader.dataset.per_class=4',
    'moving-digits': 'test_dataloader.dataset.clips=dict(train=8,val=8,test=32)',
}


def score(name: str, folder, *options: str) -> dict[str, float]:
    out = ['--out', str(folder / 'out.json'), '--out-item', 'metrics', '--work-dir', str(folder)]
    test.main([name, 'pretrained', *out, *options])
    return json.loads((folder / 'out.json').read_text())


def test_every_file_is_small_and_has_a_score():
    files = {p.stem: p.stat().st_size for p in WEIGHTS.glob('*.safetensors')}
    assert files.keys() == SCORES.keys() and files.keys() <= all_models().keys()
    assert max(files.values()) < 3e6 and sum(files.values()) < 10e6


@pytest.mark.parametrize('name', [n for n in SCORES if n.endswith('_digits')])
def test_digits_score_what_is_recorded(name, tmp_path):
    assert score(name, tmp_path) == pytest.approx(SCORES[name], abs=0.19)  # one image


@pytest.mark.parametrize('name', [n for n in SCORES if n.rpartition('_')[2] in SMALL])
def test_subsets_score_near_what_is_recorded(name, tmp_path):
    data = f'test_dataloader.dataset.data_root={tmp_path}/data'
    found = score(name, tmp_path, '--cfg-options', data, SMALL[name.rpartition('_')[2]])
    for metric, value in SCORES[name].items():
        assert found[metric] > 0.8 * value, metric


def test_apis_take_the_weights(tmp_path):
    name = 'vit-demo_minilm_digits'
    model = lm4ve.apis.get_model(name, pretrained=True)
    with pytest.raises(CheckpointError, match='mapper_in'):
        lm4ve.apis.get_model('vit-demo_none_digits', pretrained=WEIGHTS / f'{name}.safetensors')
    data = lm4ve.tasks.image.DigitsDataset(split='test', indices=8)
    images = [data[i]['img'] for i in range(8)]
    found = lm4ve.apis.inference(name, 'pretrained', images, device='cpu')
    assert sum(r['pred_label'] == data[i]['gt_label'] for i, r in enumerate(found)) >= 7
    out = tmp_path / 'model.safetensors'
    export.main([name, 'pretrained', '--format', 'safetensors', '--out', str(out)])
    again = lm4ve.apis.get_model(name, pretrained=out).state_dict()
    assert all(torch.equal(v, again[k]) for k, v in model.state_dict().items() if 'source' not in k)


def test_a_config_of_the_same_name_gets_no_weights(tmp_path):
    own = tmp_path / 'vit-demo_none_digits.py'
    own.write_text("_base_ = 'lm4ve::lm4ve/vit-demo_none_digits.py'")
    for config in (own, None, 'vit-demo_none_digits'):
        with pytest.raises(CheckpointError, match='No weights come with'):
            find_checkpoint('pretrained', config)
    assert find_checkpoint(own, own) == own and find_checkpoint(None, own) is None
