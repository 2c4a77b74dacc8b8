"""Activations of images with words: what is seen, where it lies, how it is drawn."""

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure

from lm4ve.analysis import analyse, magnitude
from lm4ve.analysis.loading import samples_of_files
from lm4ve.analysis.samples import samples_of
from lm4ve.errors import UserError
from lm4ve.runner.config import read_config
from lm4ve.tasks.base.language.structures import VisionLanguageDataSample
from lm4ve.tasks.base.pictures import TokenMap, to_image
from lm4ve.tasks.vqa.analysis import ANALYSIS, summarize_answers
from lm4ve.tasks.vqa.visualization import ImageAndWords
from tests.tasks.vqa.files import write_image
from tests.tasks.vqa.tiny import batch, build, meter_config, write_tokenizer

SHORT, LONG = 'what color is the cat', 'what color is the dog that sits on red mat'


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp('tokenizer'))


def model_of(tokenizer, neck=True, **changes):
    torch.manual_seed(0)
    model = build(tokenizer, neck, **changes).eval()
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
        fused = model.fuse(model.encode_images(inputs['image']), text, padding)
    return fused, padding


def plain_weights(model, data, module):
    """Weights ``[B, H, Q, N]`` that an attention of transformers returns itself."""
    kept = []

    def keep(m, args, kwargs):
        kept.append((args, {**kwargs, 'attention_mask': None}))

    handle = module.register_forward_pre_hook(keep, with_kwargs=True)
    parts(model, data)
    handle.remove()
    module.config._attn_implementation = 'eager'
    args, kwargs = kept[0]
    with torch.no_grad():
        return module(*args, **kwargs)[1]


# -------------------------------------------------------------------- what is seen
def test_points_are_the_image_around_the_neck_and_the_words(tokenizer):
    model, data = model_of(tokenizer), batch([[SHORT], [LONG]])
    fused, padding = parts(model, data)
    seen = analyse(model, data)
    assert list(seen.points) == ['encoder', 'mapped', 'block', 'after', 'words']
    image, words = seen.points['encoder'], seen.points['words']
    assert (image.layout.prefix, image.layout.grid) == (1, (4, 4))
    torch.testing.assert_close(image.tokens, fused['image'][:, 1:])
    torch.testing.assert_close(words.tokens, fused['text'])
    assert torch.equal(words.layout.padding_mask, padding) and padding.any()
    torch.testing.assert_close(
        words.measure('magnitude', scaled=False)[:1, : len(SHORT.split()) + 2],
        magnitude(fused['text'][:1, : len(SHORT.split()) + 2]),
    )


def test_a_joint_sequence_has_the_words_after_the_image(tokenizer):
    model, data = model_of(tokenizer, tokens='joint'), batch([[SHORT], [LONG]])
    fused, padding = parts(model, data)
    seen = analyse(model, data)
    assert list(seen.points) == ['encoder', 'mapped', 'block', 'after']
    point = seen.points['encoder']
    count = padding.shape[1]
    assert (point.layout.prefix, point.layout.grid) == (1, (4, 4, count))
    torch.testing.assert_close(point.tokens[:, :16], fused['image'][:, 1:])
    torch.testing.assert_close(point.tokens[:, 16:], fused['text'])
    assert torch.equal(point.layout.padding_mask[:, 16:], padding)
    assert not point.layout.padding_mask[:, :16].any()
    assert seen.attention['block'].weights.shape[-1] == 16 + count
    assert seen.attention['words to image'].weights.shape[-1] == 16


def test_attention_of_words_is_what_the_plain_kernel_computes(tokenizer):
    model, data = model_of(tokenizer), batch([[SHORT], [LONG]])
    got = analyse(model, data).attention['words to image']
    module = model.fusion.text_layers[-1].crossattention.self
    expected = plain_weights(model, data, module).mean(dim=1)[..., 1:]
    words = SHORT.split()
    assert got.titles[0] == ['<s>', *words]
    assert expected.std() > 1e-3
    for i, titles in enumerate(got.titles):
        torch.testing.assert_close(got.weights[i, : len(titles)], expected[i, : len(titles)])
    assert (got.weights[0, len(words) + 2 :] == 0).all()


def test_without_a_block_the_fusion_is_looked_at(tokenizer):
    model, data = model_of(tokenizer, neck=False), batch([[SHORT]])
    fused, _ = parts(model, data)
    seen = analyse(model, data)
    assert list(seen.points) == ['encoder', 'words']
    torch.testing.assert_close(seen.points['encoder'].tokens, fused['image'][:, 1:])
    assert list(seen.attention) == ['encoder', 'words to image']


def test_images_with_unequal_numbers_of_captions_show_their_first(tokenizer):
    head = dict(type='lm4ve.RetrievalHead', in_channels=32)
    model = model_of(tokenizer, head=head)
    data = batch([[LONG, SHORT, 'cat'], [SHORT, 'dog']])
    seen = analyse(model, data)
    alone = analyse(model, batch([[LONG], [SHORT]]))
    first = slice(None, None, 2)
    torch.testing.assert_close(
        seen.points['after'].tokens[first], alone.points['after'].tokens, rtol=1e-4, atol=1e-5
    )
    assert [len(s.text) for s in data['data_samples']] == [3, 2]
    sheets = samples_of(seen, model, ['a', 'b'])
    assert sheets[0].picture.words[1:3] == ['what', 'color']
    assert sheets[0].facts['caption'] == LONG and 'of 2 captions' in sheets[0].facts['score']


# ------------------------------------------------------------------ how it is drawn
def pixels_at(picture, tokens, places):
    figure = Figure(figsize=(picture.side, picture.side * picture.aspect), dpi=200)
    axes = figure.add_axes((0, 0, 1, 1))
    picture.draw_values(axes, tokens, 'viridis')
    image = to_image(figure)
    return [image[round(200 * y), round(200 * x)] / 255 for x, y in places]


@pytest.mark.parametrize('joint', [False, True])
def test_the_largest_value_lights_up_its_own_word_and_cell(joint):
    words = ['one', 'two', 'three', 'four', 'internationally', 'six']
    picture = ImageAndWords(np.zeros((1, 8, 8, 3), np.uint8), words, ' '.join(words), joint)
    values = np.zeros((4 if joint else 0) + 6 + 2)  # two of padding
    values[-2:] = np.nan
    values[-8 + 4] = 1.0
    grid = (2, 2, 8) if joint else (8,)
    top = picture.image_height if joint else 0.0
    # In the corner of each box, off its letters.
    places = [(x + 0.02, y + top + 0.02) for x, y, _, _ in picture.places]
    found = pixels_at(picture, TokenMap('t', 'm', values, grid), places)
    for i, color in enumerate(found):
        np.testing.assert_allclose(color, colormaps['viridis'](float(i == 4))[:3], atol=0.02)


def test_words_stay_in_their_room_and_apart():
    for count in (1, 12, 60):
        words = ['word' * (1 + i % 3) for i in range(count)]
        picture = ImageAndWords(np.zeros((1, 8, 8, 3), np.uint8), words, '', joint=False)
        boxes = np.array(picture.places)
        x, y, width, height = boxes.T
        assert (x >= 0).all() and (x + width <= picture.side).all()
        assert (y + height <= picture.image_height).all()
        same_line = y[:, None] == y
        overlap = same_line & (x[:, None] < (x + width)) & (x < (x + width)[:, None])
        assert overlap.sum() == count  # each with itself


# ----------------------------------------------------------------- what it is called
def test_facts_are_question_answer_and_truth():
    sample = VisionLanguageDataSample(
        metainfo=dict(text=[SHORT], gt_answers=['red'] * 8 + ['no'] * 2)
    )
    sample.set_answer(torch.tensor([0.25, 0.75]), ['no', 'red'])
    assert ANALYSIS.facts(sample, None) == {
        'question': SHORT,
        'prediction': 'red (75.0 %)',
        'truth': 'red (8 of 10), no (2 of 10)',
    }
    assert summarize_answers(['red']) == 'red'


# ------------------------------------------------------------------------- from files
@pytest.fixture
def config(tokenizer, tmp_path):
    def written(**changes):
        lines = [f'model = {meter_config(tokenizer, True, **changes)!r}']
        steps = [
            dict(type='mmpretrain.LoadImageFromFile'),
            dict(type='mmpretrain.ResizeEdge', scale=32),
            dict(type='mmpretrain.CenterCrop', crop_size=32),
            dict(type='lm4ve.PackVisionLanguage'),
        ]
        dataset = dict(type='lm4ve.VQAFiles', pipeline=steps)
        lines.append(f'test_dataloader = dict(dataset={dataset!r})')
        path = tmp_path / 'config.py'
        path.write_text('\n'.join(lines))
        return path

    return written


def test_a_file_and_a_question_become_a_sheet_and_a_page(config, tmp_path):
    from tests.analysis.test_visualize import is_sheet, page, visualize

    path = write_image(tmp_path / 'my cat.png')
    visualize(config(), 'none', path, '--question', SHORT, '--out-dir', tmp_path / 'out')
    assert is_sheet(tmp_path / 'out/my_cat.png')
    assert SHORT in page(tmp_path / 'out').words


def test_wrong_words_and_files_end_in_one_message(config, tmp_path):
    cfg = read_config(config())
    path = write_image(tmp_path / 'a.png')
    for texts, found in (
        ({}, '--question'),
        (dict(caption='a'), '--question'),
        (dict(question='  '), '--question'),
    ):
        with pytest.raises(UserError, match=found):
            samples_of_files(cfg, [path], **texts)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"a.png' cannot be decoded"):
        samples_of_files(cfg, [path], question=SHORT)
