"""Karpathy's splits and own captions: what is read, what is drawn, what bad input ends in."""

import json
import logging
from collections import Counter

import numpy as np
import pytest
from mmengine.dataset import Compose
from torch.utils.data import DataLoader

from lm4ve.errors import UserError
from lm4ve.runner.loops import number_batches, seed_everything
from lm4ve.tasks.vqa import CaptionFiles, KarpathyRetrieval
from lm4ve.tasks.vqa.datasets.text_pool import TextPool
from tests.tasks.vqa import files


@pytest.fixture
def flickr(tmp_path):
    return files.write_flickr30k(tmp_path / 'flickr30k')


@pytest.fixture
def log(monkeypatch):
    lines = []

    def record(message, logger=None, level=logging.INFO):
        lines.append(message)

    target = 'lm4ve.tasks.base.language.text_entries.print_log'
    monkeypatch.setattr(target, record)
    return lines


def flickr30k(root, split='train', **kwargs):
    prefix = dict(img_path='flickr30k-images')
    fixed = dict(ann_file='dataset_flickr30k.json', data_prefix=prefix, serialize_data=False)
    return KarpathyRetrieval(split=split, data_root=str(root), **fixed, **kwargs)


def change(root, edit):
    path = root / 'dataset_flickr30k.json'
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


# ---------------------------------------------------------------------- what is read
def test_a_test_has_one_entry_an_image_with_all_its_captions(flickr):
    data = flickr30k(flickr, 'test')
    assert data.test_mode and len(data) == 3
    info = data.get_data_info(0)
    assert info['img_path'] == f'{flickr}/flickr30k-images/1009.jpg'
    assert info['text'] == [files.caption(i) for i in range(45, 50)]
    assert info['image_id'] == 9 and info['caption_ids'] == [45, 46, 47, 48, 49]


def test_a_training_has_one_entry_a_caption_which_comes_first(flickr):
    data = flickr30k(flickr, num_negatives=7)
    assert not data.test_mode and len(data) == 6 * 5
    info = data.get_data_info(7)
    assert info['text'][0] == files.caption(7) and len(info['text']) == 8
    assert info['image_id'] == 1 and info['caption_ids'] == [7]


def test_splits_can_be_put_together_as_meter_trains(flickr, tmp_path):
    assert len(flickr30k(flickr, ('train', 'val'), test_mode=False)) == 9 * 5
    coco = files.write_coco(tmp_path / 'coco')
    how = dict(ann_file='dataset_coco.json', data_root=str(coco), serialize_data=False)
    data = KarpathyRetrieval(split=('train', 'restval'), **how)
    assert not data.test_mode and len(data) == 6 * 5
    folders = Counter(data.get_data_info(i)['img_path'].split('/')[-2] for i in range(len(data)))
    assert folders == dict(train2014=20, val2014=10)
    assert KarpathyRetrieval(split='val', **how).test_mode


def test_equal_captions_of_one_image_count_once(flickr):
    def repeat(content):
        sentences = content['images'][0]['sentences']
        sentences[3]['raw'] = f' {sentences[1]["raw"]}\n'

    change(flickr, repeat)
    data = flickr30k(flickr, test_mode=True)
    assert data.get_data_info(0)['text'] == [files.caption(i) for i in (0, 1, 2, 4)]
    assert data.get_data_info(0)['caption_ids'] == [0, 1, 2, 4]
    assert len(flickr30k(flickr)) == 29


ROWS = [('b.png', 'two'), ('a.png', 'one, or more'), ('b.png', 'three')]


@pytest.mark.parametrize('kind', ['rows', 'lists', 'lines'])
def test_own_captions_are_put_together_by_image(kind, tmp_path):
    for name in 'ab':
        files.write_image(tmp_path / f'{name}.png')
    if kind == 'rows':
        name, rows = 'c.csv', [dict(image=i, caption=c) for i, c in ROWS]
        files.write_csv(tmp_path / name, rows)
    elif kind == 'lists':
        name, first = 'c.csv', dict(image='b.png', captions='two|three')
        files.write_csv(tmp_path / name, [first, dict(image='a.png', captions='one, or more')])
    else:
        name, first = 'c.jsonl', dict(image='b.png', captions=['two', 'three'])
        files.write_jsonl(tmp_path / name, [first, dict(image='a.png', caption='one, or more')])
    data = CaptionFiles(name, str(tmp_path), test_mode=True, serialize_data=False)
    found = {i['img_path'].split('/')[-1]: i['text'] for i in map(data.get_data_info, (0, 1))}
    assert found == {'b.png': ['two', 'three'], 'a.png': ['one, or more']}
    assert [data.get_data_info(i)['caption_ids'] for i in (0, 1)] == [[0, 1], [2]]


# ---------------------------------------------------------------------- what is drawn
def with_shared_texts(content):
    """Let all images share some captions, so that unchecked draws are often wrong."""
    for image in content['images']:
        image['sentences'][0]['raw'] = 'A photo.'
        image['sentences'][1]['raw'] = f'Photo {image["imgid"] % 2}.'


def test_no_false_caption_has_the_text_of_one_of_the_image(flickr):
    change(flickr, with_shared_texts)
    data = flickr30k(flickr, num_negatives=12)
    own = {}
    for image in flickr30k(flickr, test_mode=True):
        own[image['image_id']] = set(image['text'])
    for _ in range(5):
        for i in range(len(data)):
            info = data.get_data_info(i)
            true, *false = info['text']
            assert true in own[info['image_id']]
            assert own[info['image_id']].isdisjoint(false)
            assert len(set(false)) == 12


def test_unchecked_draws_are_the_released_flaw(flickr):
    change(flickr, with_shared_texts)
    data = flickr30k(flickr, num_negatives=30, checked_negatives=False)
    np.random.seed(0)
    info = data.get_data_info(0)
    assert 'A photo.' in info['text'][1:] and len(set(info['text'][1:])) < 30


def test_false_captions_are_drawn_anew_and_follow_the_seed(flickr):
    data = flickr30k(flickr, num_negatives=5)

    def draw(*key):
        seed_everything(*key)
        return [data.get_data_info(i)['text'] for i in (3, 17)]

    assert draw(1, 2) == draw(1, 2) != draw(1, 3)
    seed_everything(1)
    assert data.get_data_info(3)['text'][1:] != data.get_data_info(3)['text'][1:]


def texts_of_batches(root, workers, skip=0):
    """Return the texts of a training's batches as the suite's loops number them."""
    data = flickr30k(root, num_negatives=3, verify=False)
    data.pipeline = Compose([lambda info: info['text']])
    loader = DataLoader(data, 4, num_workers=workers, collate_fn=list)
    number_batches(loader).begin((7, 1), skip, skip)
    return list(loader)


@pytest.mark.parametrize('workers', [0, 2])
def test_a_resumed_training_draws_what_the_whole_one_drew(workers, flickr):
    whole = texts_of_batches(flickr, 0)
    assert len(whole) == 8 and len({t for b in whole for s in b for t in s[1:]}) > 20
    assert texts_of_batches(flickr, workers) == whole
    assert texts_of_batches(flickr, workers, skip=5) == whole[5:]


def test_draws_are_uniform_over_the_captions_of_other_images():
    pool = TextPool([f'{i}' for i in range(12)], [i // 3 for i in range(12)])
    np.random.seed(0)
    counts = Counter(t for _ in range(3000) for t in pool.draw(1, 2))
    assert set(counts) == {f'{i}' for i in (0, 1, 2, 6, 7, 8, 9, 10, 11)}
    assert all(abs(n - 6000 / 9) < 100 for n in counts.values())


def test_all_false_captions_can_be_drawn_and_not_one_more():
    pool = TextPool(['a', 'b', 'c', 'b', 'd'], [0, 0, 1, 1, 2])
    for _ in range(20):
        assert sorted(pool.draw(0, 2)) == ['c', 'd']
        assert sorted(pool.draw(2, 3)) == ['a', 'b', 'c']
    with pytest.raises(ValueError):
        pool.draw(0, 3)


def test_a_pool_keeps_texts_of_any_letters():
    texts = ['naïve', '', '一只狗', 'a\ud800b', 'x' * 1000]
    pool = TextPool(texts, range(5))
    assert [pool.text(i) for i in range(5)] == texts


# ------------------------------------------------------------------ what is left out
def test_empty_captions_are_left_out_and_counted(flickr, log):
    def empty(content):
        content['images'][0]['sentences'][2]['raw'] = '  '
        content['images'][1]['sentences'] = []

    change(flickr, empty)
    data = flickr30k(flickr, test_mode=True)
    assert [len(d['text']) for d in data] == [4, 5, 5, 5, 5]
    assert '2 of 6 entries have an empty caption or none: image 0, image 1' in log[0]
    with pytest.raises(UserError, match='empty caption'):
        flickr30k(flickr, on_corrupt='refuse')


def test_a_test_leaves_out_corrupt_images(flickr):
    (flickr / 'flickr30k-images/1010.jpg').write_bytes(b'no image')
    data = flickr30k(flickr, 'test')
    assert [d['image_id'] for d in data] == [9, 11] and data.num_corrupt == 1


# -------------------------------------------------------------------------- bad input
BAD_FILES = {
    'outside of the folder': lambda c: c['images'][0].update(filename='../secret.jpg'),
    "KeyError: 'raw'": lambda c: c['images'][2]['sentences'][0].pop('raw'),
    'damaged': lambda c: c['images'][2].update(filename=7),
    "no list 'images'": lambda c: c.update(images=[3]),
}


@pytest.mark.parametrize('words', BAD_FILES)
def test_a_bad_file_is_named_before_training(words, flickr):
    change(flickr, BAD_FILES[words])
    with pytest.raises(UserError, match=f'dataset_flickr30k.json.*{words}'):
        flickr30k(flickr)


def test_a_caption_file_without_images_is_refused(flickr):
    for path in (flickr / 'flickr30k-images').iterdir():
        path.unlink()
    with pytest.raises(UserError, match='do not exist'):
        flickr30k(flickr)
    with pytest.raises(UserError, match='3 of 3 images are corrupt.*does not exist'):
        flickr30k(flickr, 'test')


def test_a_split_that_the_file_has_not_is_refused(flickr):
    with pytest.raises(UserError, match="'restval' must be one of test, train, val"):
        flickr30k(flickr, ('train', 'restval'))


@pytest.mark.parametrize('number, words', [(26, 'at most 25'), (-1, 'at least 0')])
def test_a_number_of_false_captions_that_cannot_be_drawn_is_refused(number, words, flickr):
    with pytest.raises(UserError, match=f'num_negatives={number}.*{words}'):
        flickr30k(flickr, num_negatives=number)


@pytest.mark.parametrize(
    'text', ['image,text\na.png,one\n', 'picture,caption\na.png,one\n', 'image,caption\na.png,\n']
)
def test_a_bad_row_of_own_captions_names_the_file(text, tmp_path):
    files.write_image(tmp_path / 'a.png')
    (tmp_path / 'c.csv').write_text(text)
    with pytest.raises(UserError, match='c.csv'):
        CaptionFiles('c.csv', str(tmp_path), num_negatives=0)
