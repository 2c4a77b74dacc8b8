"""Activations and answers of images with words: where they lie and how they are drawn."""

from types import SimpleNamespace

import cv2
import pytest
import torch

from lm4ve.analysis import analyse
from lm4ve.analysis.loading import samples_of_files
from lm4ve.analysis.samples import samples_of
from lm4ve.errors import UserError
from lm4ve.runner.config import read_config
from lm4ve.tasks.base.language.structures import VisionLanguageDataSample
from lm4ve.tasks.vqa import VisionLanguageVisualizationHook, VisionLanguageVisualizer
from tests.tasks.vqa.files import write_image
from tests.tasks.vqa.tiny import HEADS, batch, build, write_config, write_tokenizer

SHORT, LONG = 'what color is the cat', 'what color is the dog that sits on red mat'


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp('tokenizer'))


def model_of(tokenizer, **changes):
    torch.manual_seed(0)
    model = build(tokenizer, True, **changes).eval()
    for name, p in model.named_parameters():  # attention of new weights is flat
        if 'query' in name or 'key' in name or 'mapper' in name:
            torch.nn.init.normal_(p, std=0.5)
    return model


def parts(model, data):
    """Image tokens, words and padding behind the fusion, by the model's own methods."""
    inputs = model.data_preprocessor(data)['inputs']
    padding = inputs['text_padding'].flatten(0, 1)
    with torch.no_grad():
        text = model.encode_texts(inputs['input_ids'].flatten(0, 1), padding)
        fused = model.fusion(model.encode_images(inputs['image']), text, padding)
    return fused, padding


@pytest.mark.parametrize('tokens', ['visual', 'joint'])
def test_points_are_image_and_words(tokens, tokenizer):
    model, data = model_of(tokenizer, tokens=tokens), batch([[SHORT], [LONG]])
    fused, padding = parts(model, data)
    seen = analyse(model, data)
    points = dict(seen.points)
    joint, count = points['encoder'], padding.shape[1]
    if tokens == 'visual':
        words = points.pop('words')
        assert (joint.layout.prefix, joint.layout.grid) == (1, (4, 4))
        torch.testing.assert_close(words.tokens, fused['text'])
        assert torch.equal(words.layout.padding_mask, padding)
    else:
        assert (joint.layout.prefix, joint.layout.grid) == (1, (4, 4, count))
        torch.testing.assert_close(joint.tokens[:, 16:], fused['text'])
        assert torch.equal(joint.layout.padding_mask[:, 16:], padding)
        assert not joint.layout.padding_mask[:, :16].any()
    torch.testing.assert_close(joint.tokens[:, :16], fused['image'][:, 1:])
    assert list(points) == ['encoder', 'mapped', 'block', 'after'] and padding.any()
    assert seen.attention['block'].weights.shape[-1] == len(joint.tokens[0])
    assert seen.attention['words to image'].weights.shape[-1] == 16


def test_word_attention_equals_the_plain_kernel(tokenizer):
    model, data = model_of(tokenizer), batch([[SHORT], [LONG]])
    got = analyse(model, data).attention['words to image']
    module, kept = model.fusion.text_layers[-1].crossattention.self, []
    handle = module.register_forward_pre_hook(
        lambda m, args, kwargs: kept.append((args, kwargs)), with_kwargs=True
    )
    parts(model, data)
    handle.remove()
    module.config._attn_implementation = 'eager'
    (args, kwargs), words = kept[0], SHORT.split()
    with torch.no_grad():
        expected = module(*args, **{**kwargs, 'attention_mask': None})[1].mean(dim=1)[..., 1:]
    assert got.titles[0] == ['<s>', *words] and expected.std() > 1e-3
    for i, titles in enumerate(got.titles):
        torch.testing.assert_close(got.weights[i, : len(titles)], expected[i, : len(titles)])
    assert (got.weights[0, len(words) + 2 :] == 0).all()


def test_the_first_caption_of_an_image_is_shown(tokenizer):
    model = model_of(tokenizer, head=HEADS['retrieval'])
    data = batch([[LONG, SHORT, 'cat'], [SHORT, 'dog']])
    seen = analyse(model, data)
    alone = analyse(model, batch([[LONG], [SHORT]]))
    torch.testing.assert_close(seen.points['after'].tokens, alone.points['after'].tokens)
    assert [len(s.text) for s in data['data_samples']] == [3, 2]
    sheets = samples_of(seen, model, ['a', 'b'])
    assert sheets[0].picture.words[1:3] == ['what', 'color']
    assert sheets[0].facts['caption'] == LONG


def answered(answers=()):
    sample = VisionLanguageDataSample(
        metainfo=dict(text=[SHORT], gt_answers=list(answers), img_path='x/my.png')
    )
    return sample.set_answer(torch.tensor([0.25, 0.75]), ['no', 'red'])


def test_wrong_texts_are_refused(tokenizer, tmp_path):
    path, config = write_image(tmp_path / 'a.png'), write_config(tmp_path / 'c.py', tokenizer)
    for texts in ({}, dict(caption='a'), dict(question='  ')):
        with pytest.raises(UserError, match='--question'):
            samples_of_files(read_config(config), [path], **texts)


def test_hook_draws_every_nth_question(tmp_path):
    pixels = torch.zeros(3, 8, 8, dtype=torch.uint8)
    pixels[2] = 255  # red, loaded as BGR
    runner = SimpleNamespace(
        model=SimpleNamespace(head=SimpleNamespace(vocabulary=['no', 'red'])),
        visualizer=VisionLanguageVisualizer(),
        val_dataloader=SimpleNamespace(batch_size=3),
        iter=7,
    )
    hook = VisionLanguageVisualizationHook(enable=True, interval=2, out_dir=str(tmp_path))
    hook.after_val_iter(runner, 0, dict(inputs=[pixels] * 3), [answered()] * 3)
    written = sorted(p.name for p in tmp_path.iterdir())
    assert written == ['val_00000_my_7.png', 'val_00002_my_7.png']
    image = cv2.imread(str(tmp_path / written[0]))
    assert (image == (0, 0, 255)).all(-1).sum() > 5000
