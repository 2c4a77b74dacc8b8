"""Pre-trained weights reach the encoders when training starts, and only right ones."""

import json
import shutil

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from safetensors.torch import load_file, save_file

from lm4ve.errors import CheckpointError, UserError
from lm4ve.release.release import make_release
from lm4ve.tasks.vqa import TransformersImageEncoder, TransformersTextEncoder
from tests.tasks.vqa.shrink import write_clip, write_roberta
from tests.tasks.vqa.tiny import ANSWERS, IMAGE, TEXT, batch, meter_config


@pytest.fixture
def clip(tmp_path):
    write_clip(tmp_path / 'clip')
    return tmp_path / 'clip'


@pytest.fixture
def roberta(tmp_path):
    write_roberta(tmp_path / 'roberta')
    return tmp_path / 'roberta'


def test_weights_are_read_when_training_starts(clip):
    encoder = TransformersImageEncoder(checkpoint=str(clip))
    stored = load_file(clip / 'model.safetensors')
    name = 'encoder.layers.1.mlp.fc1.weight'
    assert len(encoder.model.encoder.layers) == 2  # of 3
    assert not torch.equal(encoder.model.state_dict()[name], stored[f'vision_model.{name}'])
    encoder.init_weights()
    for key, value in encoder.model.state_dict().items():
        assert torch.equal(value, stored[f'vision_model.{key}']), key


@pytest.mark.parametrize('change', [None, lambda w: w[:3], lambda w: w.to(torch.int8)])
def test_wrong_weights_are_refused(clip, change):
    file, name = clip / 'model.safetensors', 'vision_model.post_layernorm.weight'
    stored = load_file(file)
    weight = stored.pop(name)
    save_file(stored if change is None else {**stored, name: change(weight)}, file)
    encoder = TransformersImageEncoder(checkpoint=str(clip))
    before = encoder.model.post_layernorm.weight.clone()
    with pytest.raises((CheckpointError, RuntimeError), match='post_layernorm'):
        encoder.init_weights()
    assert torch.equal(encoder.model.post_layernorm.weight, before)


@pytest.mark.parametrize('old_names', [False, True])
def test_text_weights_are_loaded_once(old_names, roberta):
    stored = load_file(roberta / 'model.safetensors')
    if old_names:  # as of TensorFlow
        pairs = (('LayerNorm.weight', 'LayerNorm.gamma'), ('LayerNorm.bias', 'LayerNorm.beta'))
        renamed = {k.replace(*pairs[0]).replace(*pairs[1]): v for k, v in stored.items()}
        save_file(renamed, roberta / 'model.safetensors')
    encoder = TransformersTextEncoder(checkpoint=str(roberta))
    encoder.init_weights()
    for key, value in encoder.model.state_dict().items():
        assert torch.equal(value, stored[f'roberta.{key}']), key
    torch.nn.init.zeros_(encoder.model.embeddings.word_embeddings.weight)
    encoder.init_weights()
    assert not encoder.model.embeddings.word_embeddings.weight.any()


IMPOSSIBLE = [
    (TransformersImageEncoder, dict(config=TEXT)),
    (TransformersImageEncoder, dict(config=IMAGE, drop_layers=3)),
    (TransformersImageEncoder, dict(config=IMAGE, head_token=True)),
    (TransformersTextEncoder, dict(config=dict(model_type='t5'))),
    # A damaged configuration would fill the memory.
    (TransformersImageEncoder, dict(config=dict(IMAGE, hidden_size=10**8))),
    (TransformersTextEncoder, dict(config=dict(TEXT, hidden_size=float('inf')))),
]


@pytest.mark.parametrize('kind, options', IMPOSSIBLE)
def test_impossible_encoders_are_refused(kind, options):
    with pytest.raises(UserError, match=r'model\.(image|text)_encoder'):
        kind(**options)


def test_release_works_without_the_original_files(clip, roberta, tmp_path):
    """A released METER needs neither the encoders' files nor the vocabulary's."""
    answers = tmp_path / 'answers.json'
    answers.write_text(json.dumps(ANSWERS))
    shutil.copytree(roberta, tmp_path / 'tokenizer')
    cfg = meter_config(
        str(tmp_path / 'tokenizer'),
        neck=True,
        image_encoder=dict(type='lm4ve.TransformersImageEncoder', checkpoint=str(clip)),
        text_encoder=dict(type='lm4ve.TransformersTextEncoder', checkpoint=str(roberta)),
        head=dict(type='lm4ve.VQAHead', vocabulary=str(answers), in_channels=32),
    )
    model = MODELS.build(cfg).eval()
    model.init_weights()
    Config(dict(model=cfg)).dump(tmp_path / 'meter.py')
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'meter.pth')
    release = make_release(tmp_path / 'meter.py', tmp_path / 'meter.pth', tmp_path / 'out')
    shutil.rmtree(clip)
    shutil.rmtree(roberta)
    answers.unlink()
    again = MODELS.build(Config.fromfile(release.config).model).eval()
    again.load_state_dict(torch.load(release.checkpoint, weights_only=True)['state_dict'])
    data = batch([['what color is the cat']])
    for m in (model, again):
        m.answer = m.forward(**m.data_preprocessor(data), mode='predict')[0].pred_scores
    assert torch.equal(model.answer, again.answer)
