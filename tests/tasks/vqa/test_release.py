"""A released METER needs neither the encoders' files nor the vocabulary's, only its tokenizer."""

import json
import shutil

import torch
from mmengine.config import Config
from mmengine.registry import MODELS

import lm4ve  # noqa: F401
from lm4ve.release.release import make_release
from tests.tasks.vqa.shrink import write_clip, write_roberta
from tests.tasks.vqa.tiny import ANSWERS, BLOCK, batch, meter_config


def test_release_works_without_the_original_files(tmp_path):
    write_clip(tmp_path / 'clip')
    write_roberta(tmp_path / 'roberta')
    (tmp_path / 'answers.json').write_text(json.dumps(ANSWERS))
    shutil.copytree(tmp_path / 'roberta', tmp_path / 'tokenizer')
    cfg = meter_config(str(tmp_path / 'tokenizer'), neck=True)
    cfg['image_encoder'] = dict(
        type='lm4ve.TransformersImageEncoder', checkpoint=str(tmp_path / 'clip')
    )
    cfg['text_encoder'] = dict(
        type='lm4ve.TransformersTextEncoder', checkpoint=str(tmp_path / 'roberta')
    )
    cfg['head']['vocabulary'] = str(tmp_path / 'answers.json')
    cfg['neck']['block'] = dict(BLOCK, seed=3)
    model = MODELS.build(cfg).eval()
    model.init_weights()
    Config(dict(model=cfg)).dump(tmp_path / 'meter.py')
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'meter.pth')
    release = make_release(tmp_path / 'meter.py', tmp_path / 'meter.pth', tmp_path / 'out')

    for name in ('clip', 'roberta'):
        shutil.rmtree(tmp_path / name)
    (tmp_path / 'answers.json').unlink()
    again = MODELS.build(Config.fromfile(release.config).model).eval()
    state = torch.load(release.checkpoint, weights_only=True)['state_dict']
    again.load_state_dict(state)
    data = batch([['what color is the cat']])
    for m in (model, again):
        m.answer = m.forward(**m.data_preprocessor(data), mode='predict')[0].pred_scores
    assert torch.equal(model.answer, again.answer)
