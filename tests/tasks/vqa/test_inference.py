"""Inferencers, activations and pictures show what the model computes, or refuse."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from lm4ve.analysis import analyse
from lm4ve.analysis.loading import samples_of_files
from lm4ve.analysis.samples import samples_of
from lm4ve.errors import UserError
from lm4ve.runner.config import read_config
from lm4ve.tasks import vqa
from lm4ve.text.structures import VisionLanguageDataSample
from tests.helpers.logs import record_logs
from tests.helpers.models import call_of
from tests.helpers.tools import run_tool_here
from tests.helpers.vqa.files import write_image
from tests.helpers.vqa.tiny import ANSWERS, HEADS, batch, build, write_models

QUESTION, LONG = 'what color is the cat', 'what color is the dog that sits on red mat'


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """Configs, checkpoints with large weights, and a folder of three images."""
    folder = tmp_path_factory.mktemp('made')
    write_models(folder, 'vqa', 'retrieval', 'matching')
    for i in range(3):
        write_image(folder / f'images/{i}.png', seed=i, size=(32, 32))
    (folder / 'images/notes.txt').write_text('no image')
    return folder


def inferencer(made, name):
    kind = vqa.VQAInferencer if name == 'vqa' else vqa.RetrievalInferencer
    return kind(made / f'{name}.py', made / f'{name}.pth', device='cpu')


@torch.no_grad()
def scores_of(model, path, text):
    """What the head gives for an image of the model's own size, without the pipeline."""
    loaded = cv2.imread(str(path)).transpose(2, 0, 1)
    pixels = torch.from_numpy(loaded.copy())
    ids, padding = model.data_preprocessor.tokenize([text])
    images = model.encode_images(model.data_preprocessor.normalize([pixels]))
    fused = model.fusion(images, model.encode_texts(ids, padding), padding)
    features = model.pool(fused, padding)
    if hasattr(model.head, 'vocabulary'):
        return model.head(features)[0]
    return model.head.score(features)[0]


def test_answers_are_the_models_best(made):
    asked = inferencer(made, 'vqa')
    path = made / 'images/1.png'
    (result,) = asked(path, QUESTION, topk=3)
    scores = scores_of(asked.model, path, QUESTION).sigmoid()
    order = scores.argsort(descending=True).tolist()
    assert [a['answer'] for a in result['answers']] == [ANSWERS[i] for i in order[:3]]
    assert result['pred_answer'] == ANSWERS[order[0]]
    assert result['pred_score'] == pytest.approx(float(scores.max()), abs=1e-5)
    assert (result['question'], result['img_path']) == (QUESTION, str(path))


def test_batches_arrays_and_files_agree(made):
    asked = inferencer(made, 'vqa')
    files = [made / f'images/{i}.png' for i in range(3)]
    arrays = [cv2.imread(str(file)) for file in files]
    alone = []
    for file in files:
        (result,) = asked(file, QUESTION)
        alone.append(result['pred_score'])
    assert len(set(alone)) == 3
    for images in (files, arrays, made / 'images'):
        results = asked(images, QUESTION, batch_size=2)
        scores = [result['pred_score'] for result in results]
        assert scores == pytest.approx(alone, abs=1e-5)
    many = asked(files[0], [QUESTION, 'two dogs '], batch_size=2)
    assert [result['question'] for result in many] == [QUESTION, 'two dogs ']
    assert many[0]['pred_score'] == pytest.approx(alone[0], abs=1e-5)
    (sample,) = asked(files[0], QUESTION, return_datasamples=True)
    assert sample.pred_scores.shape == (len(ANSWERS),)


@pytest.mark.parametrize('head', ['retrieval', 'matching'])
def test_pairs_are_ranked_by_their_score(made, head, tmp_path):
    found = inferencer(made, head)
    texts = ['a red cat', 'two dogs on the mat']
    files = [made / f'images/{i}.png' for i in range(3)]
    rows = [[scores_of(found.model, file, text) for text in texts] for file in files]
    expected = torch.stack([torch.stack(row) for row in rows])
    assert expected.std(0).min() > 1e-4
    torch.testing.assert_close(
        found.score(files, texts, 2), expected, rtol=1e-4, atol=1e-5
    )
    by_text = found(made / 'images', texts, topk=2, batch_size=4, out_dir=tmp_path)
    for t, result in enumerate(by_text):
        order = expected[:, t].argsort(descending=True)[:2]
        assert result['text'] == texts[t]
        assert [r['img_path'] for r in result['images']] == [
            str(files[i]) for i in order
        ]
    assert len(list(tmp_path.iterdir())) == 2
    (by_image,) = found(files[0], texts, rank='captions', out_dir=tmp_path / 'one')
    assert [p.name for p in (tmp_path / 'one').iterdir()] == ['00000_0.png']
    best = int(expected[0].argmax())
    assert by_image['captions'][0]['text'] == texts[best]
    assert by_image['captions'][0]['score'] == pytest.approx(
        float(expected[0, best]), abs=1e-4
    )


def test_unusable_inputs_and_models_are_refused(made, tmp_path, monkeypatch):
    write_image(tmp_path / 'good.png')
    (tmp_path / 'broken.png').write_bytes((tmp_path / 'good.png').read_bytes()[:100])
    (tmp_path / 'empty').mkdir()
    monkeypatch.chdir(tmp_path)
    asked = inferencer(made, 'vqa')
    wrong = ['none.png', 'broken.png', 'empty', np.zeros((4, 4)), ['good.png'] * 2]
    for images, questions in (*((x, ['a'] * 3) for x in wrong), ('good.png', ' ')):
        with pytest.raises(UserError):
            asked(images, questions)
    for kind, name in (
        (vqa.VQAInferencer, 'retrieval'),
        (vqa.RetrievalInferencer, 'vqa'),
    ):
        with pytest.raises(UserError):
            kind(made / f'{name}.py', made / f'{name}.pth', device='cpu')


def test_damaged_images_of_a_folder_are_skipped_and_named(made, tmp_path, monkeypatch):
    warnings = record_logs(monkeypatch, 'lm4ve.tasks.base.inputs')
    good = write_image(tmp_path / 'photos/inner/0.png', seed=0, size=(32, 32))
    cut = tmp_path / 'photos/cut.png'
    cut.write_bytes(good.read_bytes()[:60])
    (result,) = inferencer(made, 'vqa')(tmp_path / 'photos', QUESTION)
    assert result['img_path'] == str(good)
    (warning,) = warnings
    assert f"1 of 2 files cannot be read: '{cut}'" in warning
    with pytest.raises(UserError, match='cut.png'):
        inferencer(made, 'vqa')([good, cut], QUESTION)


def test_demo_prints_results_and_draws(made, tmp_path, capsys):
    for name, images, printed, pictures in (
        ('vqa', 'images/0.png', ANSWERS[:1], ['00000_0.png', '0_activations.png']),
        ('retrieval', 'images', ['0.png', '1.png', '2.png'], ['00000.png']),
    ):
        options = (
            '--config',
            made / f'{name}.py',
            '--checkpoint',
            made / f'{name}.pth',
        )
        more = ('--device', 'cpu', '--out-dir', tmp_path / name)
        run_tool_here('vqa/demo.py', made / images, QUESTION, *options, *more)
        out = capsys.readouterr().out
        assert QUESTION in out and all(word in out for word in printed)
        drawn = sorted((tmp_path / name).iterdir())
        assert [p.name for p in drawn] == pictures
        assert all(cv2.imread(str(p)).std() > 5 for p in drawn)


def model_of(made, **changes):
    model = build(str(made / 'tokenizer'), True, **changes).eval()
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
def test_points_are_image_and_words(tokens, made):
    model, data = model_of(made, tokens=tokens), batch([[QUESTION], [LONG]])
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


def test_word_attention_equals_the_plain_kernel(made):
    model, data = model_of(made), batch([[QUESTION], [LONG]])
    got = analyse(model, data).attention['words to image']
    module, words = model.fusion.text_layers[-1].crossattention.self, QUESTION.split()
    hidden, others = call_of(model, data, module)
    module.config._attn_implementation = 'eager'
    with torch.no_grad():
        expected = module(hidden, **{**others, 'attention_mask': None})[1].mean(dim=1)[
            ..., 1:
        ]
    assert got.titles[0] == ['<s>', *words] and expected.std() > 1e-3
    for i, titles in enumerate(got.titles):
        torch.testing.assert_close(
            got.weights[i, : len(titles)], expected[i, : len(titles)]
        )
    assert (got.weights[0, len(words) + 2 :] == 0).all()


def test_the_first_caption_of_an_image_is_shown(made):
    model = model_of(made, head=HEADS['retrieval'])
    data = batch([[LONG, QUESTION, 'cat'], [QUESTION, 'dog']])
    seen = analyse(model, data)
    alone = analyse(model, batch([[LONG], [QUESTION]]))
    torch.testing.assert_close(
        seen.points['after'].tokens, alone.points['after'].tokens
    )
    assert [len(s.text) for s in data['data_samples']] == [3, 2]
    sheets = samples_of(seen, model, ['a', 'b'], None)
    assert sheets[0].picture.words[1:3] == ['what', 'color']
    assert sheets[0].facts['caption'] == LONG


def test_wrong_texts_are_refused(made):
    for texts in ({}, dict(caption='a'), dict(question='  ')):
        with pytest.raises(UserError, match='--question'):
            samples_of_files(
                read_config(made / 'vqa.py'), [made / 'images/0.png'], **texts
            )


def test_hook_draws_every_nth_question(tmp_path):
    pixels = torch.zeros(3, 8, 8, dtype=torch.uint8)
    pixels[2] = 255  # red, loaded as BGR
    runner = SimpleNamespace(
        model=SimpleNamespace(head=SimpleNamespace(vocabulary=['no', 'red'])),
        visualizer=vqa.VisionLanguageVisualizer(),
        val_dataloader=SimpleNamespace(batch_size=3),
        iter=7,
    )
    hook = vqa.VisionLanguageVisualizationHook(
        enable=True, interval=2, out_dir=str(tmp_path)
    )
    known = dict(text=[QUESTION], gt_answers=[], img_path='x/my.png')
    sample = VisionLanguageDataSample(metainfo=known)
    sample.set_answer(torch.tensor([0.25, 0.75]), ['no', 'red'])
    hook.after_val_iter(runner, 0, dict(inputs=[pixels] * 3), [sample] * 3)
    written = sorted(p.name for p in tmp_path.iterdir())
    assert written == ['val_00000_my_7.png', 'val_00002_my_7.png']
    image = cv2.imread(str(tmp_path / written[0]))
    assert (image == (0, 0, 255)).all(-1).sum() > 5000
