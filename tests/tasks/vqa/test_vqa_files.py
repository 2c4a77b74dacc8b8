"""Questions and captions in files: what is read, grouped, drawn and packed, and what is refused."""

import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from PIL import Image
from torchvision import transforms

from lm4ve.errors import UserError
from lm4ve.tasks import vqa
from lm4ve.tasks.vqa.datasets.easy_vqa import EasyVQA
from lm4ve.tasks.vqa.datasets.vqa import draw_questions, group_by_image
from tests.helpers.hostile import edit
from tests.helpers.tasks import CONFIGS
from tests.helpers.vqa import files, released

QUESTIONS = 'vqav2/v2_OpenEnded_mscoco_{}_questions.json'
TRAIN, ANNOTATIONS = (
    QUESTIONS.format('train2014'),
    'vqav2/v2_mscoco_train2014_annotations.json',
)


@pytest.fixture
def coco(tmp_path):
    return files.write_vqav2(tmp_path / 'coco')


def vqav2(root, split='train2014', **kwargs):
    return vqa.VQAv2(split=split, data_root=str(root), serialize_data=False, **kwargs)


def test_question_has_image_answers_and_types(coco):
    edit(coco / ANNOTATIONS, lambda c: c['annotations'].reverse())  # found by their ids
    edit(coco / TRAIN, lambda c: c['questions'][1].update(question='What is it? '))
    data = vqav2(coco)
    assert len(data) == 8 and not data.test_mode
    info = data.get_data_info(1)
    assert info['img_path'] == f'{coco}/train2014/COCO_train2014_000000000001.jpg'
    assert info['text'] == ['What is it? ']  # as written, as in METER
    assert info['gt_answers'] == ['2'] * 8 + ['maybe'] * 2
    assert (info['question_id'], info['image_id']) == (1001, 1)
    assert (info['question_type'], info['answer_type']) == ('what is', 'number')
    data = vqav2(coco, 'test-dev2015')
    assert data.test_mode and len(data) == 4
    info = data.get_data_info(0)
    assert info['img_path'].endswith('/test2015/COCO_test2015_000000000201.jpg')
    assert info['gt_answers'] == [] and 'answer_type' not in info


def test_visual_genome_answers_are_normalized(tmp_path):
    root = files.write_visual_genome(tmp_path)
    data = vqa.VisualGenomeQA(data_root=str(root), serialize_data=False)
    infos = [data.get_data_info(i) for i in range(4)]
    assert [i['img_path'].removeprefix(str(root)) for i in infos] == [
        *('/VG_100K_2/1.jpg', '/VG_100K/2.jpg', '/VG_100K_2/3.jpg', '/VG_100K/4.jpg')
    ]
    assert infos[0]['gt_answers'] == ['no'] and infos[0]['question_id'] == 986001
    (root / 'question_answers.json').write_text('[{"id": 1, "qas": [{"qa_id": 1}]}]')
    with pytest.raises(UserError, match='question_answers.json'):
        vqa.VisualGenomeQA(data_root=str(root))


#: The same questions in each format.
OWN = dict(
    csv='image,question,answers,question_id\na.png,How many?,2|2|3,17\n'
    'b.png,"What, where?",a cat,x\n',
    tsv='image\tquestion\tanswers\tquestion_id\na.png\tHow many?\t2|2|3\t17\n'
    'b.png\tWhat, where?\ta cat\tx\n',
    # Its lines end at line feeds only.
    jsonl='{"image": "a.png", "question": "How\u2028many?", "answers": ["2", "2", "3"], '
    '"question_id": "17"}\n'
    '{"image": "b.png", "question": "What, where?", "answer": "a cat", "question_id": "x"}\n',
)


@pytest.mark.parametrize('kind', OWN)
def test_own_questions_are_read(kind, tmp_path):
    for name in 'ab':
        files.write_image(tmp_path / f'images/{name}.png')
    (tmp_path / f'q.{kind}').write_text(OWN[kind], 'utf-8')
    data = vqa.VQAFiles(
        f'q.{kind}', str(tmp_path), dict(img_path='images'), serialize_data=False
    )
    first, second = data.get_data_info(0), data.get_data_info(1)
    assert first['img_path'] == f'{tmp_path}/images/a.png'
    assert first['gt_answers'] == ['2', '2', '3'] and first['question_id'] == 17
    assert first['text'] == ['How\u2028many?' if kind == 'jsonl' else 'How many?']
    assert second['text'] == ['What, where?'] and second['gt_answers'] == ['a cat']
    assert second['question_id'] == 'x'


def test_unanswerable_questions_are_left_out_of_training(coco):
    assert (
        len(vqav2(coco, vocabulary=['yes', 'maybe'])) == 8
    )  # two annotators said 'maybe'
    assert {d['gt_answers'][0] for d in vqav2(coco, vocabulary=['yes', 'red'])} == {
        'yes',
        'red',
    }
    assert len(vqav2(coco, 'val2014', vocabulary=['yes'])) == 6


@pytest.mark.parametrize('split, count', [('train2014', 7), ('val2014', 6)])
def test_empty_questions_are_kept_in_tests_only(split, count, coco):
    edit(
        coco / QUESTIONS.format(split), lambda c: c['questions'][0].update(question=' ')
    )
    assert len(vqav2(coco, split)) == count
    with pytest.raises(UserError):
        vqav2(coco, split, on_corrupt='refuse')


BAD_ROWS = [
    ('q.csv', 'picture,question\na.png,What?\n'),
    ('q.csv', 'image,question,question\na.png,What?,Who?\n'),
    ('q.jsonl', '["a.png", "What?"]\n'),
    ('q.csv', 'image,question\na.png,What?,more\n'),
    ('q.csv', 'image,question\na.png,"What?\n'),
    ('q.csv', 'question_id,image,question\n1,a.png,A?\n1,a.png,B?\n'),
    ('q.jsonl', '{"image": "a.png", "question": 3}\n'),
    ('q.jsonl', '{"image": "a.png", "question": "What?", "answers": [2]}\n'),
    ('q.jsonl', '{"image": "a.png", "question": "\\ud800?"}\n'),
    ('q.jsonl', f'{{"image": "a.png", "question": {"[" * 2000}'),
]


@pytest.mark.parametrize('name, text', BAD_ROWS)
def test_bad_row_names_the_file(name, text, tmp_path):
    files.write_image(tmp_path / 'a.png')
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=name):
        vqa.VQAFiles(name, str(tmp_path))


#: Wrong contents, as changes of one of the files.
BAD = [
    (TRAIN, lambda c: c.update(task_type='Multiple-Choice')),
    (TRAIN, lambda c: c.update(data_subtype='val2014')),
    (TRAIN, lambda c: c['questions'].append(c['questions'][0])),
    (ANNOTATIONS, lambda c: c['info'].update(version='1.0')),
    (ANNOTATIONS, lambda c: c['annotations'].pop()),
    (ANNOTATIONS, lambda c: c['annotations'][0].update(image_id=2)),
    (ANNOTATIONS, lambda c: c['annotations'][0]['answers'][3].update(answer=2)),
]


@pytest.mark.parametrize('file, change', BAD, ids=range(len(BAD)))
def test_bad_file_is_named_before_training(file, change, coco):
    edit(coco / file, change)
    with pytest.raises(UserError, match='vqav2'):
        vqav2(coco)


ENTRIES = [
    dict(img_path=path, text=[f'{path}{n}?'], question_id=f'{path}{n}', gt_answers=[a])
    for path, answers in (('a', 'yes red no box'), ('b', 'red'))
    for n, a in enumerate(answers.split())
]  # fmt: skip


def test_grouped_questions_stay_with_their_answers():
    a, b = group_by_image(ENTRIES)
    assert a['text'] == ['a0?', 'a1?', 'a2?', 'a3?'] and b['text'] == ['b0?']
    answer_of = {e['text'][0]: e['gt_answers'] for e in ENTRIES}
    seen = set()
    for _ in range(50):
        drawn = draw_questions(a, 3)
        assert len(set(drawn['text'])) == 3
        assert drawn['gt_answers'] == [answer_of[t] for t in drawn['text']]
        assert [f'{i}?' for i in drawn['question_id']] == drawn['text']
        seen.add(tuple(drawn['text']))
    assert len(seen) > 10
    assert draw_questions(b, 3)['text'] == ['b0?'] * 3
    assert sorted(draw_questions(a, 8)['text']) == sorted(a['text'] * 2)
    assert {*draw_questions(a, 4, {'red', 'box'})['text']} == {'a1?', 'a3?'}
    assert draw_questions(b, 2, {'box'})['text'] == ['b0?'] * 2  # it has no other


def test_some_answers_are_asked_for_first():
    data = EasyVQA(questions_per_image=4, verify=False)
    loader = SimpleNamespace(dataset=data, num_workers=0, persistent_workers=False)
    hook = vqa.AskFirstHook(['circle', 'rectangle', 'triangle'], epochs=2)
    for epoch in range(3):
        hook.before_train_epoch(SimpleNamespace(train_dataloader=loader, epoch=epoch))
        is_shape = []
        for i in range(100):
            info = data.get_data_info(i)
            assert len(info['text']) == 4
            for (answer,) in info['gt_answers']:
                is_shape.append(answer in hook.answers)
        assert (np.mean(is_shape) > 0.6) == (epoch < 2)


def test_packing_keeps_pixels_and_texts():
    pack = vqa.PackVisionLanguage()
    image = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
    packed = pack(
        dict(img=image, text=['a', 'b'], gt_answers=['c'], question_id=7, other=1)
    )
    assert packed['inputs'].equal(torch.from_numpy(image).permute(2, 0, 1))
    assert packed['data_samples'].metainfo == dict(
        text=['a', 'b'], gt_answers=['c'], question_id=7
    )
    assert pack(dict(img=np.zeros((2, 4), np.uint8)))['inputs'].shape == (3, 2, 4)
    with pytest.raises(UserError, match="'a.png' has 4 channels, not 3. Fix: "):
        pack(dict(img=np.zeros((2, 4, 4), np.uint8), img_path='a.png'))


def augmentation() -> list:
    """Return the operations of the shipped RandAugment."""
    cfg = Config.fromfile(CONFIGS / '_base_/vqa/images.py')
    return Compose(cfg.train_pipeline).transforms[1].transforms


def test_there_are_as_many_operations_as_in_meter():
    assert len(augmentation()) == len(released.OPERATIONS)


@pytest.mark.parametrize('direction', [-1, 1])
@pytest.mark.parametrize('number', range(14), ids=list(released.OPERATIONS))
def test_augmentation_is_meters(number, direction):
    """Each operation, at its level and in both directions, as METER's formula has it."""
    name = list(released.OPERATIONS)[number]
    rng = np.random.default_rng(number)
    noise = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((160, 120), Image.Resampling.BICUBIC)
    operation = augmentation()[number]
    assert operation.prob == 1
    if name in released.SIGNED:
        assert operation.random_negative_prob == 0.5
        operation.random_negative_prob = float(direction < 0)
    pixels = np.ascontiguousarray(np.asarray(picture)[..., ::-1])
    found = operation(dict(img=pixels))['img'][..., ::-1]
    # OpenCV moves a picture where Pillow moves the grid on it.
    expected = np.asarray(released.augmented(picture, name, -direction))
    difference = np.abs(found.astype(int) - expected)
    most, share = released.ROUNDING.get(name, (0, 0.0))
    assert difference.max() <= most
    assert (difference > 0).any(axis=-1).mean() <= share


@pytest.mark.parametrize('size', [(400, 300), (301, 437), (224, 224), (90, 100)])
def test_test_pixels_are_those_of_meter(size, tmp_path):
    path = files.write_image(tmp_path / 'a.png', size=size)
    cfg = Config.fromfile(CONFIGS / '_base_/vqa/images.py')
    found = Compose(cfg.test_pipeline)(dict(img_path=str(path)))['inputs']
    resize = transforms.Resize(224, transforms.InterpolationMode.BICUBIC)
    expected = transforms.CenterCrop(224)(resize(Image.open(path)))
    assert np.array_equal(found.numpy()[::-1].transpose(1, 2, 0), np.asarray(expected))


@pytest.mark.parametrize('names', [('SolarizeAdd', 'TranslateYabs'), ('Equalize',) * 2])
def test_training_pixels_are_those_of_meter(names, tmp_path, monkeypatch):
    """Two operations on the picture as it is stored, then the pixels of a test."""
    picture = Image.open(files.write_image(tmp_path / 'a.png', size=(400, 300)))
    steps = Compose(Config.fromfile(CONFIGS / '_base_/vqa/images.py').train_pipeline)
    augment = steps.transforms[1]
    numbers = [list(released.OPERATIONS).index(name) for name in names]
    monkeypatch.setattr(augment, 'random_policy_indices', lambda: numbers)
    for number in numbers:
        augment.transforms[number].random_negative_prob = 0.0
    found = steps(dict(img_path=str(tmp_path / 'a.png')))['inputs']
    for name in names:
        picture = released.augmented(picture, name, -1)
    resize = transforms.Resize(224, transforms.InterpolationMode.BICUBIC)
    expected = transforms.CenterCrop(224)(resize(picture))
    assert np.array_equal(found.numpy()[::-1].transpose(1, 2, 0), np.asarray(expected))


@pytest.fixture
def flickr(tmp_path):
    return files.write_flickr30k(tmp_path / 'flickr30k')


def flickr30k(root, split='train', **kwargs):
    prefix = dict(img_path='flickr30k-images')
    fixed = dict(
        ann_file='dataset_flickr30k.json', data_prefix=prefix, serialize_data=False
    )
    return vqa.KarpathyRetrieval(split=split, data_root=str(root), **fixed, **kwargs)


def test_equal_and_empty_captions_do_not_count(flickr):
    def repeat(content):
        sentences = content['images'][0]['sentences']
        sentences[3]['raw'], sentences[4]['raw'] = sentences[1]['raw'], 'As written. '

    edit(flickr / 'dataset_flickr30k.json', repeat)
    data = flickr30k(flickr, test_mode=True)
    assert data.get_data_info(0)['text'] == [
        *map(files.caption, range(3)),
        'As written. ',
    ]
    assert data.get_data_info(0)['caption_ids'] == [0, 1, 2, 4]
    assert len(flickr30k(flickr, on_corrupt='refuse')) == 29

    def empty(content):
        content['images'][0]['sentences'][2]['raw'] = '  '
        content['images'][1]['sentences'] = []

    edit(flickr / 'dataset_flickr30k.json', empty)
    for options in (dict(on_corrupt='refuse'), dict(test_mode=True)):
        with pytest.raises(UserError, match='image 0, image 1'):
            flickr30k(flickr, **options)
    data = flickr30k(flickr, test_mode=True, on_corrupt='skip')
    assert [len(d['text']) for d in data] == [3, 5, 5, 5, 5]
    assert data.num_left_out == 1


def with_shared_texts(content):
    """Let all images share some captions, so that unchecked draws are often wrong."""
    for image in content['images']:
        image['sentences'][0]['raw'] = 'A photo.'
        image['sentences'][1]['raw'] = f'Photo {image["imgid"] % 2}.'


def test_false_captions_never_describe_the_image(flickr):
    edit(flickr / 'dataset_flickr30k.json', with_shared_texts)
    own = {d['image_id']: set(d['text']) for d in flickr30k(flickr, test_mode=True)}
    data = flickr30k(flickr, num_negatives=12)
    for i in range(5 * len(data)):
        info = data.get_data_info(i % len(data))
        true, *false = info['text']
        own_captions = own[info['image_id']]
        assert true in own_captions
        assert own_captions.isdisjoint(false)
        assert len(set(false)) == 12
    # As METER's release draws them.
    data = flickr30k(flickr, num_negatives=30, checked_negatives=False)
    np.random.seed(0)
    _, *false = data.get_data_info(0)['text']
    assert 'A photo.' in false
    assert len(set(false)) < 30


def test_entries_are_images_in_tests_captions_in_training(flickr):
    data = flickr30k(flickr, 'test')
    assert data.test_mode
    assert len(data) == 3
    info = data.get_data_info(0)
    assert info['img_path'] == f'{flickr}/flickr30k-images/1009.jpg'
    assert info['text'] == [files.caption(i) for i in range(45, 50)]
    assert info['image_id'] == 9
    assert info['caption_ids'] == [45, 46, 47, 48, 49]

    data = flickr30k(flickr, num_negatives=7)
    assert not data.test_mode
    assert len(data) == 6 * 5
    info = data.get_data_info(7)
    assert info['text'][0] == files.caption(7)
    assert len(info['text']) == 8
    assert info['image_id'] == 1
    assert info['caption_ids'] == [7]


def test_splits_are_put_together(flickr, tmp_path):
    assert len(flickr30k(flickr, ('train', 'val'), test_mode=False)) == 9 * 5
    coco = files.write_coco(tmp_path / 'coco')
    how = dict(ann_file='dataset_coco.json', data_root=str(coco), serialize_data=False)
    data = vqa.KarpathyRetrieval(split=('train', 'restval'), **how)
    folders = Counter(
        data.get_data_info(i)['img_path'].split('/')[-2] for i in range(len(data))
    )
    assert folders == dict(train2014=20, val2014=10) and not data.test_mode
    assert vqa.KarpathyRetrieval(split='val', **how).test_mode


#: The same captions as rows and in one cell.
CAPTIONS = {
    'rows.csv': 'image,caption\nb.png,two\na.png,"one, or more"\nb.png,three\n',
    'cells.csv': 'image,captions\nb.png,two|three\na.png,"one, or more"\n',
}


@pytest.mark.parametrize('name', CAPTIONS)
def test_own_captions_are_grouped_by_image(name, tmp_path):
    for image in ('a.png', 'b.png'):
        files.write_image(tmp_path / image)
    (tmp_path / name).write_text(CAPTIONS[name])
    data = vqa.CaptionFiles(name, str(tmp_path), test_mode=True, serialize_data=False)
    found = {}
    for info in data:
        found[Path(info['img_path']).name] = info['text']
    assert found == {'b.png': ['two', 'three'], 'a.png': ['one, or more']}
    assert [i['caption_ids'] for i in data] == [[0, 1], [2]]


def test_corrupt_images_are_left_out(flickr):
    (flickr / 'flickr30k-images/1010.jpg').write_bytes(b'no image')
    with pytest.raises(UserError, match='1 of 3 images are corrupt.*1010.jpg'):
        flickr30k(flickr, 'test')
    data = flickr30k(flickr, 'test', on_corrupt='skip')
    assert [d['image_id'] for d in data] == [9, 11] and data.num_corrupt == 1


@pytest.mark.parametrize(
    'change',
    [lambda c: c['images'][2]['sentences'][0].pop('raw'), lambda c: c.pop('images')],
)
def test_bad_captions_are_named_before_training(change, flickr):
    edit(flickr / 'dataset_flickr30k.json', change)
    with pytest.raises(UserError, match='dataset_flickr30k.json'):
        flickr30k(flickr)


def test_impossible_options_and_missing_images_are_refused(flickr):
    for options in (dict(num_negatives=26), dict(split=('train', 'x'))):
        with pytest.raises(UserError, match='dataset.'):
            flickr30k(flickr, **options)
    shutil.rmtree(flickr / 'flickr30k-images')
    for split in ('train', 'test'):
        with pytest.raises(UserError, match='exist'):
            flickr30k(flickr, split)
