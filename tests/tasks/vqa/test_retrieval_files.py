"""Karpathy's splits and own captions: what is read, what is drawn, what bad input ends in."""

import shutil
from collections import Counter

import numpy as np
import pytest

from lm4ve.errors import UserError
from lm4ve.tasks.vqa import CaptionFiles, KarpathyRetrieval
from tests.helpers import hostile
from tests.tasks.vqa import files


@pytest.fixture
def flickr(tmp_path):
    return files.write_flickr30k(tmp_path / 'flickr30k')


def flickr30k(root, split='train', **kwargs):
    prefix = dict(img_path='flickr30k-images')
    fixed = dict(ann_file='dataset_flickr30k.json', data_prefix=prefix, serialize_data=False)
    return KarpathyRetrieval(split=split, data_root=str(root), **fixed, **kwargs)


def change(root, edit):
    hostile.edit(root / 'dataset_flickr30k.json', edit)


def test_equal_and_empty_captions_do_not_count(flickr):
    def repeat(content):
        sentences = content['images'][0]['sentences']
        sentences[3]['raw'], sentences[4]['raw'] = sentences[1]['raw'], 'As written. '

    change(flickr, repeat)
    data = flickr30k(flickr, test_mode=True)
    assert data.get_data_info(0)['text'] == [*map(files.caption, range(3)), 'As written. ']
    assert data.get_data_info(0)['caption_ids'] == [0, 1, 2, 4]
    assert len(flickr30k(flickr, on_corrupt='refuse')) == 29

    def empty(content):
        content['images'][0]['sentences'][2]['raw'] = '  '
        content['images'][1]['sentences'] = []

    change(flickr, empty)
    assert [len(d['text']) for d in flickr30k(flickr, test_mode=True)] == [3, 5, 5, 5, 5]
    with pytest.raises(UserError):
        flickr30k(flickr, on_corrupt='refuse')


def with_shared_texts(content):
    """Let all images share some captions, so that unchecked draws are often wrong."""
    for image in content['images']:
        image['sentences'][0]['raw'] = 'A photo.'
        image['sentences'][1]['raw'] = f'Photo {image["imgid"] % 2}.'


def test_false_captions_never_describe_the_image(flickr):
    change(flickr, with_shared_texts)
    own = {d['image_id']: set(d['text']) for d in flickr30k(flickr, test_mode=True)}
    data = flickr30k(flickr, num_negatives=12)
    for i in range(5 * len(data)):
        info = data.get_data_info(i % len(data))
        true, *false = info['text']
        assert true in own[info['image_id']] and own[info['image_id']].isdisjoint(false)
        assert len(set(false)) == 12
    # As METER's release draws them.
    data = flickr30k(flickr, num_negatives=30, checked_negatives=False)
    np.random.seed(0)
    _, *false = data.get_data_info(0)['text']
    assert 'A photo.' in false and len(set(false)) < 30


def test_entries_are_images_in_tests_captions_in_training(flickr):
    data = flickr30k(flickr, 'test')
    assert data.test_mode and len(data) == 3
    info = data.get_data_info(0)
    assert info['img_path'] == f'{flickr}/flickr30k-images/1009.jpg'
    assert info['text'] == [files.caption(i) for i in range(45, 50)]
    assert info['image_id'] == 9 and info['caption_ids'] == [45, 46, 47, 48, 49]
    data = flickr30k(flickr, num_negatives=7)
    assert not data.test_mode and len(data) == 6 * 5
    info = data.get_data_info(7)
    assert info['text'][0] == files.caption(7) and len(info['text']) == 8
    assert info['image_id'] == 1 and info['caption_ids'] == [7]


def test_splits_are_put_together(flickr, tmp_path):
    assert len(flickr30k(flickr, ('train', 'val'), test_mode=False)) == 9 * 5
    coco = files.write_coco(tmp_path / 'coco')
    how = dict(ann_file='dataset_coco.json', data_root=str(coco), serialize_data=False)
    data = KarpathyRetrieval(split=('train', 'restval'), **how)
    folders = Counter(data.get_data_info(i)['img_path'].split('/')[-2] for i in range(len(data)))
    assert folders == dict(train2014=20, val2014=10) and not data.test_mode
    assert KarpathyRetrieval(split='val', **how).test_mode


#: The same captions as rows, in one cell, and as JSON lines.
OWN = {
    'rows.csv': 'image,caption\nb.png,two\na.png,"one, or more"\nb.png,three\n',
    'cells.csv': 'image,captions\nb.png,two|three\na.png,"one, or more"\n',
    'lines.jsonl': '{"image": "b.png", "captions": ["two", "three"]}\n'
    '{"image": "a.png", "caption": "one, or more"}\n',
}


@pytest.mark.parametrize('name', OWN)
def test_own_captions_are_grouped_by_image(name, tmp_path):
    for image in ('a.png', 'b.png'):
        files.write_image(tmp_path / image)
    (tmp_path / name).write_text(OWN[name])
    data = CaptionFiles(name, str(tmp_path), test_mode=True, serialize_data=False)
    found = {i['img_path'].split('/')[-1]: i['text'] for i in data}
    assert found == {'b.png': ['two', 'three'], 'a.png': ['one, or more']}
    assert [i['caption_ids'] for i in data] == [[0, 1], [2]]


def test_corrupt_images_are_left_out(flickr):
    (flickr / 'flickr30k-images/1010.jpg').write_bytes(b'no image')
    data = flickr30k(flickr, 'test')
    assert [d['image_id'] for d in data] == [9, 11] and data.num_corrupt == 1


@pytest.mark.parametrize(
    'edit', [lambda c: c['images'][2]['sentences'][0].pop('raw'), lambda c: c.pop('images')]
)
def test_bad_file_is_named_before_training(edit, flickr):
    change(flickr, edit)
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
