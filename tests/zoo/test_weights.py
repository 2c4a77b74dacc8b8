"""The weights that come with lm4ve: they score what is recorded, and serve every command."""

import json

import pytest
import torch

import lm4ve
from lm4ve.errors import CheckpointError
from lm4ve.zoo import WEIGHTS, all_models, find_checkpoint
from tests.helpers.tools import run_lm4ve

pytest.importorskip('mmpretrain')

SCORES = json.loads((WEIGHTS / 'scores.json').read_text())
#: Name's end -> overrides that make the demo's test set small, and the least share of
#: the score.
SMALL = {
    '_digits': ((), 0.998),  # one image of 540
    '_primitives': (('per_class=4',), 0.8),
    '_moving-digits': (('clips.train=8', 'clips.val=8', 'clips.test=32'), 0.9),
}


def test_every_file_is_small_and_has_a_score():
    files = {p.stem: p.stat().st_size for p in WEIGHTS.glob('*.safetensors')}
    assert files.keys() == SCORES.keys() and files.keys() <= all_models().keys()
    assert max(files.values()) < 3e6 and sum(files.values()) < 10e6


@pytest.mark.parametrize('name', SCORES)
def test_weights_score_what_is_recorded(name, tmp_path):
    fields, share = next(row for end, row in SMALL.items() if name.endswith(end))
    fields = fields and (*fields, f'data_root={tmp_path}/data')
    words = [f'test_dataloader.dataset.{field}' for field in fields]
    out = f'--out {tmp_path}/out.json --out-item metrics --work-dir {tmp_path}'.split()
    run_lm4ve(
        'test', [name, 'pretrained', *out, '--cfg-options', 'log_level=INFO', *words]
    )
    found = json.loads((tmp_path / 'out.json').read_text())
    assert all(found[metric] >= share * value for metric, value in SCORES[name].items())


def test_apis_and_export_take_the_weights(tmp_path):
    name, out = 'vit-demo_minilm_digits', tmp_path / 'model.safetensors'
    state = lm4ve.apis.get_model(name, pretrained=True).state_dict()
    with pytest.raises(CheckpointError, match='mapper_in'):
        lm4ve.apis.get_model(
            'vit-demo_none_digits', pretrained=WEIGHTS / f'{name}.safetensors'
        )
    data = lm4ve.tasks.image.DigitsDataset(split='test', indices=8)
    found = lm4ve.apis.inference(
        name, 'pretrained', [d['img'] for d in data], device='cpu'
    )
    assert (
        sum(r['pred_label'] == d['gt_label'] for r, d in zip(found, data, strict=True))
        >= 7
    )
    run_lm4ve(
        'export', [name, 'pretrained', '--format', 'safetensors', '--out', str(out)]
    )
    again = lm4ve.apis.get_model(name, pretrained=out).state_dict()
    assert all(torch.equal(v, again[k]) for k, v in state.items() if 'source' not in k)


def test_a_config_of_the_same_name_gets_no_weights(tmp_path):
    own = tmp_path / 'vit-demo_none_digits.py'
    own.write_text("_base_ = 'lm4ve::lm4ve/vit-demo_none_digits.py'")
    for config in (own, None):
        with pytest.raises(CheckpointError, match='No weights come with'):
            find_checkpoint('pretrained', config)
    assert find_checkpoint(own, own) == own and find_checkpoint(None, own) is None
