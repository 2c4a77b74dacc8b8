"""Inferencers give what the model computes, and refuse what they cannot use."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import MODELS

from lm4ve.errors import UserError
from lm4ve.runner.config import read_config
from lm4ve.tasks.vqa import RetrievalInferencer, VQAInferencer
from tests.helpers.tools import run_tool_here
from tests.tasks.vqa.files import write_image
from tests.tasks.vqa.tiny import ANSWERS, meter_config, write_tokenizer

QUESTION = 'what color is the cat'
HEADS = dict(
    vqa=dict(type='lm4ve.VQAHead', vocabulary=ANSWERS, in_channels=32),
    rank=dict(type='lm4ve.RetrievalHead', in_channels=32),
    match=dict(type='lm4ve.MatchingHead', in_channels=32),
)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """Configs, checkpoints with large weights, and a folder of three images."""
    folder = tmp_path_factory.mktemp('made')
    tokenizer = write_tokenizer(folder / 'tokenizer')
    pipeline = [
        dict(type='mmpretrain.LoadImageFromFile'),
        dict(type='mmpretrain.ResizeEdge', scale=32),
        dict(type='mmpretrain.CenterCrop', crop_size=32),
        dict(type='lm4ve.PackVisionLanguage'),
    ]
    for name, head in HEADS.items():
        config = folder / f'{name}.py'
        config.write_text(
            f'model = {meter_config(tokenizer, True, head=head)!r}\n'
            f'test_dataloader = dict(dataset=dict(type="lm4ve.VQAFiles", pipeline={pipeline!r}))\n'
        )
        torch.manual_seed(3)
        model = MODELS.build(read_config(config).model)
        for p in model.parameters():
            if p.requires_grad and p.dim() > 1:
                torch.nn.init.normal_(p, std=0.3)
        torch.save(dict(state_dict=model.state_dict()), folder / f'{name}.pth')
    for i in range(3):
        write_image(folder / f'images/{i}.png', seed=i, size=(32, 32))
    (folder / 'images/notes.txt').write_text('no image')
    return folder


def inferencer(made, name, **options):
    kind = VQAInferencer if name == 'vqa' else RetrievalInferencer
    return kind(made / f'{name}.py', made / f'{name}.pth', device='cpu', **options)


def tokens_of(model, path):
    """Image tokens of a file of the model's own size, without the pipeline."""
    pixels = torch.from_numpy(cv2.imread(str(path)).transpose(2, 0, 1).copy())
    return model.encode_images(model.data_preprocessor.normalize([pixels]))


def test_answers_are_the_models_best(made):
    asked = inferencer(made, 'vqa')
    path = made / 'images/1.png'
    (result,) = asked(path, QUESTION, topk=3)
    model = asked.model
    with torch.no_grad():
        ids, padding = model.data_preprocessor.tokenize([QUESTION])
        fused = model.fuse(tokens_of(model, path), model.encode_texts(ids, padding), padding)
        scores = model.head(model.pool(fused, padding)).sigmoid()[0]
    order = scores.argsort(descending=True).tolist()
    assert [a['answer'] for a in result['answers']] == [ANSWERS[i] for i in order[:3]]
    assert result['pred_answer'] == ANSWERS[order[0]]
    assert result['pred_score'] == pytest.approx(float(scores.max()), abs=1e-5)
    assert (result['question'], result['img_path']) == (QUESTION, str(path))


def test_batches_arrays_and_files_agree(made):
    asked = inferencer(made, 'vqa')
    files = [made / f'images/{i}.png' for i in range(3)]
    alone = [asked(f, QUESTION)[0]['pred_score'] for f in files]
    assert len(set(alone)) == 3
    arrays = [cv2.imread(str(f)) for f in files]
    for images in (files, arrays, made / 'images'):
        found = asked(images, QUESTION, batch_size=2)
        assert [r['pred_score'] for r in found] == pytest.approx(alone, abs=1e-5)
    many = asked(files[0], [QUESTION, 'two dogs'], batch_size=2)
    assert [r['question'] for r in many] == [QUESTION, 'two dogs']
    assert many[0]['pred_score'] == pytest.approx(alone[0], abs=1e-5)
    (sample,) = asked(files[0], QUESTION, return_datasamples=True)
    assert sample.pred_scores.shape == (len(ANSWERS),)


@pytest.mark.parametrize('head', ['rank', 'match'])
def test_pairs_are_ranked_by_their_score(made, head, tmp_path):
    found = inferencer(made, head)
    model = found.model
    texts = ['a red cat', 'two dogs on the mat']
    files = [made / f'images/{i}.png' for i in range(3)]
    expected = torch.zeros(3, 2)
    with torch.no_grad():
        for i, path in enumerate(files):
            for t, text in enumerate(texts):
                ids, padding = model.data_preprocessor.tokenize([text])
                words = model.encode_texts(ids, padding)
                expected[i, t] = model.score_pairs(tokens_of(model, path), words, padding)
    assert expected.std(0).min() > 1e-4
    torch.testing.assert_close(found.score(files, texts, 2), expected, rtol=1e-4, atol=1e-5)
    by_text = found(made / 'images', texts, topk=2, batch_size=4, out_dir=tmp_path)
    for t, result in enumerate(by_text):
        order = expected[:, t].argsort(descending=True)[:2]
        assert result['text'] == texts[t]
        assert [r['img_path'] for r in result['images']] == [str(files[i]) for i in order]
    assert len(list(tmp_path.iterdir())) == 2
    (by_image,) = found(files[0], texts, rank='captions')
    best = int(expected[0].argmax())
    assert by_image['captions'][0]['text'] == texts[best]
    assert by_image['captions'][0]['score'] == pytest.approx(float(expected[0, best]), abs=1e-4)


@pytest.mark.parametrize(
    'images, questions',
    [
        ('none.png', QUESTION),
        ('broken.png', QUESTION),
        ('empty', QUESTION),
        (np.zeros((4, 4)), QUESTION),
        ('good.png', '  '),
        ('good.png', []),
        (['good.png', 'good.png'], ['a'] * 3),
    ],
)
def test_unusable_inputs_are_refused(images, questions, made, tmp_path, monkeypatch):
    write_image(tmp_path / 'good.png')
    (tmp_path / 'broken.png').write_bytes((tmp_path / 'good.png').read_bytes()[:100])
    (tmp_path / 'empty').mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        inferencer(made, 'vqa')(images, questions)


@pytest.mark.parametrize(
    'kind, config, checkpoint',
    [
        (VQAInferencer, 'rank', 'rank'),
        (RetrievalInferencer, 'vqa', 'vqa'),
        (VQAInferencer, 'vqa', 'none'),
        (VQAInferencer, 'vqa', 'rank'),
    ],
)
def test_unfitting_models_are_refused(kind, config, checkpoint, made):
    with pytest.raises(UserError):
        kind(made / f'{config}.py', made / f'{checkpoint}.pth', device='cpu')


@pytest.mark.parametrize(
    'name, images, text, printed, pictures',
    [
        ('vqa', 'images/0.png', QUESTION, ANSWERS[:1], ['00000_0.png', '0_activations.png']),
        ('rank', 'images', 'a cat', ['0.png', '1.png', '2.png'], ['00000.png']),
    ],
)
def test_demo_prints_results_and_draws(
    name, images, text, printed, pictures, made, tmp_path, capsys
):
    options = ('--config', made / f'{name}.py', '--checkpoint', made / f'{name}.pth')
    more = ('--device', 'cpu', '--out-dir', tmp_path)
    run_tool_here('vision_language/demo.py', made / images, text, *options, *more)
    out = capsys.readouterr().out
    assert text in out and all(word in out for word in printed)
    assert sorted(p.name for p in tmp_path.iterdir()) == pictures
    assert all(cv2.imread(str(p)).std() > 5 for p in tmp_path.iterdir())
