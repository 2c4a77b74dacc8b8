"""Damaged weights and tokenizers change and run nothing; right ones reach the encoders."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from safetensors.torch import load_file, save_file

from lm4ve.errors import CheckpointError, UserError
from lm4ve.release.release import make_release
from lm4ve.tasks import vqa
from tests.helpers.hostile import Payload, edit
from tests.helpers.vqa.files import write_image
from tests.helpers.vqa.shrink import write_clip, write_roberta
from tests.helpers.vqa.tiny import (
    ANSWERS,
    IMAGE,
    TEXT,
    batch,
    build,
    meter_config,
    write_tokenizer,
)


@pytest.mark.parametrize(
    'name', ['../b.png', '/etc/b.png', 'http://localhost:9/b.png', ' ']
)
def test_lists_name_no_image_outside_their_folder(name, tmp_path):
    row = json.dumps(dict(image=name, question='What?', caption='a'))
    (tmp_path / 'q.jsonl').write_text(row + '\n')
    write_image(tmp_path.parent / 'b.png')
    for kind in (vqa.VQAFiles, vqa.CaptionFiles):
        with pytest.raises(UserError, match='leads out of the folder'):
            kind('q.jsonl', str(tmp_path), test_mode=True)


def of_code(folder: Path, target: Path) -> None:
    (folder / 'code.py').write_text(f"open({str(target)!r}, 'w')\nclass T: pass\n")
    fields = dict(auto_map=dict(AutoTokenizer=['code.T', 'code.T']))
    edit(folder / 'tokenizer_config.json', lambda c: c.update(fields))


def of_pickles(folder: Path, target: Path) -> None:
    (folder / 'tokenizer.json').unlink()
    fields = dict(tokenizer_class='TransfoXLTokenizer')
    edit(folder / 'tokenizer_config.json', lambda c: c.update(fields))
    for name in ('vocab.pkl', 'vocab.bin', 'tokenizer.json'):
        (folder / name).write_bytes(pickle.dumps(Payload(target)))


HOSTILE = {
    'code': of_code,
    'pickles': of_pickles,
    # Rust panics once it is looked up.
    'panic': lambda f, _: edit(
        f / 'tokenizer.json', lambda c: c['model']['vocab'].pop('<unk>')
    ),
    'deep': lambda f, _: (f / 'tokenizer.json').write_text('[' * 100_000),
    'a list': lambda f, _: (f / 'tokenizer_config.json').write_text('[]'),
    'a padding': lambda f, _: edit(
        f / 'tokenizer_config.json', lambda c: c.update(pad_token=5)
    ),
}


@pytest.mark.parametrize('kind', HOSTILE)
def test_a_hostile_tokenizer_runs_nothing(kind, tmp_path):
    folder = Path(write_tokenizer(tmp_path / 'tokenizer'))
    HOSTILE[kind](folder, tmp_path / 'ran')
    if kind == 'code':
        vqa.VisionLanguagePreprocessor(str(folder), max_length=12)
    else:
        with pytest.raises(BaseException):  # noqa: B017, PT011  (Rust panics are no Exception)
            vqa.VisionLanguagePreprocessor(str(folder), max_length=12).tokenize(
                ['of b']
            )
    assert not (tmp_path / 'ran').exists()


def test_token_numbers_beyond_the_encoder_are_refused(tmp_path):
    folder = Path(write_tokenizer(tmp_path))
    edit(folder / 'tokenizer.json', lambda c: c['model']['vocab'].update(cat=10**6))
    with pytest.raises(UserError, match='number of tokens=1000001'):
        build(str(folder))


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path / 'clip')


@pytest.fixture
def roberta(tmp_path):
    return write_roberta(tmp_path / 'roberta')


def test_weights_are_read_when_training_starts(clip):
    encoder = vqa.TransformersImageEncoder(checkpoint=str(clip))
    stored = load_file(clip / 'model.safetensors')
    name = 'encoder.layers.1.mlp.fc1.weight'
    assert len(encoder.model.encoder.layers) == 2  # of 3
    assert not torch.equal(
        encoder.model.state_dict()[name], stored[f'vision_model.{name}']
    )
    encoder.init_weights()
    for key, value in encoder.model.state_dict().items():
        assert torch.equal(value, stored[f'vision_model.{key}']), key


@pytest.mark.parametrize('change', [None, lambda w: w[:3], lambda w: w.to(torch.int8)])
def test_wrong_weights_are_refused(clip, change):
    file, name = clip / 'model.safetensors', 'vision_model.post_layernorm.weight'
    stored = load_file(file)
    weight = stored.pop(name)
    save_file(stored if change is None else {**stored, name: change(weight)}, file)
    encoder = vqa.TransformersImageEncoder(checkpoint=str(clip))
    before = encoder.model.post_layernorm.weight.clone()
    with pytest.raises(
        (CheckpointError, RuntimeError), match='post_layernorm|quantized'
    ):
        encoder.init_weights()
    assert torch.equal(encoder.model.post_layernorm.weight, before)


@pytest.mark.parametrize('old_names', [False, True])
def test_text_weights_are_loaded_once(old_names, roberta):
    stored = load_file(roberta / 'model.safetensors')
    if old_names:  # as of TensorFlow
        pairs = (
            ('LayerNorm.weight', 'LayerNorm.gamma'),
            ('LayerNorm.bias', 'LayerNorm.beta'),
        )
        renamed = {
            k.replace(*pairs[0]).replace(*pairs[1]): v for k, v in stored.items()
        }
        save_file(renamed, roberta / 'model.safetensors')
    encoder = vqa.TransformersTextEncoder(checkpoint=str(roberta))
    encoder.init_weights()
    for key, value in encoder.model.state_dict().items():
        assert torch.equal(value, stored[f'roberta.{key}']), key
    torch.nn.init.zeros_(encoder.model.embeddings.word_embeddings.weight)
    encoder.init_weights()
    assert not encoder.model.embeddings.word_embeddings.weight.any()


IMPOSSIBLE = [
    (vqa.TransformersImageEncoder, dict(config=TEXT)),
    (vqa.TransformersImageEncoder, dict(config=IMAGE, drop_layers=3)),
    (vqa.TransformersImageEncoder, dict(config=IMAGE, head_token=True)),
    (vqa.TransformersTextEncoder, dict(config=dict(model_type='t5'))),
    # A damaged configuration would fill the memory.
    (vqa.TransformersImageEncoder, dict(config=dict(IMAGE, hidden_size=10**8))),
    (vqa.TransformersTextEncoder, dict(config=dict(TEXT, hidden_size=float('inf')))),
]


@pytest.mark.parametrize('kind, options', IMPOSSIBLE)
def test_impossible_encoders_are_refused(kind, options):
    with pytest.raises(UserError, match=r'model\.(image|text)_encoder'):
        kind(**options)


@pytest.mark.bitwise
def test_release_works_without_the_original_files(clip, roberta, tmp_path):
    """A released METER needs neither the encoders' files nor the vocabulary's."""
    answers = tmp_path / 'answers.json'
    answers.write_text(json.dumps(ANSWERS))
    shutil.copytree(roberta, tmp_path / 'tokenizer')
    cfg = meter_config(
        str(tmp_path / 'tokenizer'),
        neck=True,
        image_encoder=dict(type='lm4ve.TransformersImageEncoder', checkpoint=str(clip)),
        text_encoder=dict(
            type='lm4ve.TransformersTextEncoder', checkpoint=str(roberta)
        ),
        head=dict(type='lm4ve.VQAHead', vocabulary=str(answers), in_channels=32),
    )
    model = MODELS.build(cfg).eval()
    model.init_weights()
    Config(dict(model=cfg)).dump(tmp_path / 'meter.py')
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'meter.pth')
    release = make_release(
        tmp_path / 'meter.py', tmp_path / 'meter.pth', tmp_path / 'out'
    )
    shutil.rmtree(clip)
    shutil.rmtree(roberta)
    answers.unlink()
    again = MODELS.build(Config.fromfile(release.config).model).eval()
    again.load_state_dict(
        torch.load(release.checkpoint, weights_only=True)['state_dict']
    )
    data = batch([['what color is the cat']])
    for m in (model, again):
        m.answer = m.forward(**m.data_preprocessor(data), mode='predict')[0].pred_scores
    assert torch.equal(model.answer, again.answer)
