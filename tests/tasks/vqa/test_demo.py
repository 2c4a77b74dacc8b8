"""The embedded data: what easy-vqa holds, and that scenes, captions and answers are true."""

import collections
import json
import re
import sys

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from lm4ve.errors import UserError
from lm4ve.registry import DATASETS
from lm4ve.runner.command_line import build_runner
from lm4ve.tasks.base.digit_scans import digit_scans
from lm4ve.tasks.vqa.demo import digit_scenes as ds
from lm4ve.tasks.vqa.demo import easy_vqa as ev
from lm4ve.tasks.vqa.demo.digit_scenes import write_digit_scenes
from tests.helpers.tasks import FOLDERS

LOAD = [dict(type='mmcv.LoadImageFromFile'), dict(type='lm4ve.PackVisionLanguage')]
SMALL = dict(train=60, val=8, test=20)


def easy(split: str, **options):
    return DATASETS.build(dict(type='lm4ve.EasyVQA', split=split, verify=False, **options))


def questions(split: str) -> list[tuple[str, str, int]]:
    data = easy(split)
    infos = (data.get_data_info(i) for i in range(len(data)))
    return [(d['text'][0], d['gt_answers'][0], d['image_id']) for d in infos]


# ------------------------------------------------------------------------- easy-vqa
def test_easy_vqa_is_what_the_package_says_and_nothing_of_it_is_imported():
    before = set(sys.modules)
    train, test = questions('train'), questions('test')
    assert (len(train), len(test)) == (38575, 9673)
    assert (len({q[2] for q in train}), len({q[2] for q in test})) == (4000, 1000)
    assert list(ev.ANSWERS) == (ev.locate_easy_vqa() / 'answers.txt').read_text().split()
    assert {a for _, a, _ in train} == {a for _, a, _ in test} == set(ev.ANSWERS)
    assert not any(m.split('.')[0] in ('easy_vqa', 'test') for m in set(sys.modules) - before)


def test_settings_can_be_chosen_without_the_test_split():
    fit, val = questions('fit'), questions('val')
    images = [{q[2] for q in part} for part in (fit, val)]
    assert [len(i) for i in images] == [3600, 400] and not images[0] & images[1]
    assert sorted(fit + val) == sorted(questions('train'))


def test_blank_images_leave_the_question_and_nothing_to_see():
    plain = easy('test', pipeline=LOAD, indices=4)
    blank = easy('test', pipeline=LOAD, indices=4, blank_images=True)
    for a, b in zip(plain, blank, strict=True):
        assert a['inputs'].unique().numel() > 1 == b['inputs'].unique().numel()
        assert a['inputs'].shape == b['inputs'].shape == (3, ev.SIZE, ev.SIZE)
        assert a['data_samples'].text == b['data_samples'].text


def test_other_files_of_the_package_are_refused(monkeypatch):
    with pytest.raises(UserError, match='train, fit, val, test'):
        easy('dev')
    monkeypatch.setitem(ev.SHA256, 'test', '0' * 64)
    with pytest.raises(UserError, match='expected sha256'):
        easy('train')


# ---------------------------------------------------------------------- digit scenes
def at(digits: np.ndarray, row: int, column: int) -> int | None:
    """The digit in a cell; None if there is none or no such cell."""
    inside = 0 <= row < len(digits) and 0 <= column < len(digits)
    return int(digits[row, column]) if inside and digits[row, column] >= 0 else None


#: Where the first digit of a caption's fact is, seen from the second.
PLACES = {'left of': (0, -1), 'right of': (0, 1), 'above': (-1, 0), 'below': (1, 0)}


def is_true(caption: str, digits: np.ndarray) -> bool:
    """Read a caption and look whether each of its facts holds somewhere."""
    facts = re.split(', | and ', caption)
    for fact in facts:
        first, place, second = re.fullmatch(r'a (\d) ([a-z ]+) a (\d)', fact).groups()
        down, right = PLACES[place]
        if not any(
            at(digits, *cell) == int(second)
            and at(digits, cell[0] + down, cell[1] + right) == int(first)
            for cell in np.ndindex(digits.shape)
        ):
            return False
    return len(facts) == ds.FACTS


def answer_of(question: str, digits: np.ndarray) -> str:
    """Answer a question by looking at the grid."""
    flat = digits.ravel().tolist()
    if found := re.fullmatch(r'is there a (\d)\?', question):
        return 'yes' if int(found[1]) in flat else 'no'
    if found := re.fullmatch(r'how many (\d)s are there\?', question):
        return str(flat.count(int(found[1])))
    place, named = re.fullmatch(r'which digit is ([a-z ]+) the (\d)\?', question).groups()
    (cell,) = np.argwhere(digits == int(named)).tolist()  # "the" one
    down, right = PLACES[place]
    return str(at(digits, cell[0] + down, cell[1] + right))


@pytest.mark.parametrize('split', list(SMALL))
def test_captions_are_true_and_answers_are_right(split):
    asked = collections.Counter()
    for scene in ds.scenes(split, 60, train=100):
        assert ds.DIGITS[0] <= (scene.digits >= 0).sum() <= ds.DIGITS[1]
        assert len(set(scene.captions)) == ds.CAPTIONS
        assert all(is_true(c, scene.digits) for c in scene.captions)
        assert len({q['question'] for q in scene.questions}) == ds.QUESTIONS
        for q in scene.questions:
            assert q['answer'] == answer_of(q['question'], scene.digits)
            asked[q['answer_type'], q['answer']] += 1
    kinds = {kind for kind, _ in asked}
    assert kinds == {'yes/no', 'number', 'other'}
    assert 0.6 < asked['yes/no', 'yes'] / asked['yes/no', 'no'] < 1.7


def test_a_caption_names_its_scene_among_500_and_none_of_the_training():
    train, test = list(ds.scenes('train', 600)), list(ds.scenes('test', 500, train=600))
    assert not any(is_true(c, s.digits) for t in test[:15] for c in t.captions for s in train)
    alone = [
        sum(is_true(c, other.digits) for other in test) == 1 for t in test[:15] for c in t.captions
    ]
    assert np.mean(alone) > 0.9


def test_scenes_are_the_same_each_time_and_more_of_them_begin_alike():
    first, again = list(ds.scenes('val', 5, train=50)), list(ds.scenes('val', 8, train=50))
    for a, b in zip(first, again[:5], strict=True):
        assert np.array_equal(a.digits, b.digits)
        assert (a.captions, a.questions) == (b.captions, b.questions)


def test_pictures_show_the_digits_of_the_splits_own_scans():
    for split in SMALL:
        layouts = [s.digits for s in ds.scenes(split, 30, train=50)]
        for digits, picture in zip(layouts, ds.pictures(split, iter(layouts)), strict=True):
            cells = picture.reshape(ds.GRID, ds.CELL, ds.GRID, ds.CELL).astype(float)
            # A digit may reach a little into the cell beside it.
            middle = cells[:, 4:12, :, 4:12].mean((1, 3))
            assert ((middle > 20) == (digits >= 0)).all()
    # A picture of ink everywhere says where it came from.
    images, labels = digit_scans()['test']
    scans = {d: images[labels == d][:1] * 0 + 16 * (d == 3) for d in range(10)}
    layout = np.array([[3, 4, -1], [-1, 3, 5], [6, -1, 3]])
    drawn = ds.draw(layout, scans, np.random.default_rng(0))
    bright = drawn.reshape(3, 16, 3, 16).mean((1, 3)) > 50
    assert np.array_equal(bright, layout == 3)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return write_digit_scenes(tmp_path_factory.mktemp('data') / 'digit-scenes', SMALL)


def test_files_are_read_as_anybodys_are(folder):
    options = dict(data_root=str(folder), scenes=SMALL, pipeline=LOAD)
    train = DATASETS.build(dict(type='lm4ve.DigitScenes', num_negatives=2, **options))
    assert len(train) == SMALL['train'] * ds.CAPTIONS
    captions = [json.loads(x) for x in (folder / 'train_captions.jsonl').open()]
    own = {c['image']: c['captions'] for c in captions}
    for i in (0, 7, 100):
        sample = train[i]['data_samples']
        mine = own['/'.join(sample.img_path.split('/')[-2:])]
        assert [text in mine for text in sample.text] == [True, False, False]
    test = DATASETS.build(dict(type='lm4ve.DigitScenes', split='test', **options))
    assert len(test) == SMALL['test'] and len(test[3]['data_samples'].text) == ds.CAPTIONS
    image = cv2.imread(test[3]['data_samples'].img_path)
    assert np.array_equal(test[3]['inputs'].numpy(), image.transpose(2, 0, 1))
    asked = DATASETS.build(dict(type='lm4ve.DigitScenesVQA', split='val', **options))
    assert len(asked) == SMALL['val'] * ds.QUESTIONS
    scenes = [json.loads(x) for x in (folder / 'val_scenes.jsonl').open()]
    for i in range(len(asked)):
        sample, digits = asked[i]['data_samples'], scenes[i // ds.QUESTIONS]['digits']
        assert sample.gt_answers == [answer_of(sample.text[0], np.array(digits))]


def test_writing_again_leaves_it_and_other_files_are_refused(folder, tmp_path):
    first = folder / 'train' / '0000.png'
    before = first.stat().st_mtime_ns
    write_digit_scenes(folder, SMALL)
    assert first.stat().st_mtime_ns == before
    with pytest.raises(UserError, match='Fix: remove the folder'):
        write_digit_scenes(folder, dict(SMALL, test=9))
    (tmp_path / 'mine.txt').write_text('precious')
    with pytest.raises(UserError, match='not empty'):
        write_digit_scenes(tmp_path, SMALL)
    assert (tmp_path / 'mine.txt').read_text() == 'precious'
    with pytest.raises(UserError, match='train, val, test'):
        DATASETS.build(dict(type='lm4ve.DigitScenes', split='dev', data_root=str(folder)))


# ----------------------------------------------------------------------- the configs
def config(name: str, work_dir, **options) -> Config:
    cfg = Config.fromfile(FOLDERS['vqa'] / f'meter-demo_{name}.py')
    cfg.work_dir, cfg.log_level = str(work_dir), 'ERROR'
    cfg.visualizer.vis_backends = []
    cfg.merge_from_dict(options)
    return cfg


def test_the_configs_pixels_and_answers_are_the_datas(folder):
    cfg = config('none_easy-vqa', folder)
    assert cfg.model.head.vocabulary == list(ev.ANSWERS)
    root = ev.locate_easy_vqa()
    images = [cv2.imread(str(root / f'train/images/{i}.png'))[..., ::-1] for i in range(400)]
    scenes = [cv2.imread(str(p)) for p in sorted((folder / 'train').glob('*.png'))]
    for name, pixels, atol in (('easy-vqa', images, 2.5), ('digit-scenes', scenes, 2.5)):
        given = config(f'none_{name}', folder).model.data_preprocessor
        pixels = np.stack(pixels).astype(float)
        np.testing.assert_allclose(given.mean, pixels.mean((0, 1, 2)), atol=atol)
        np.testing.assert_allclose(given.std, pixels.std((0, 1, 2)), atol=atol)


def train(cfg: Config) -> dict[str, float]:
    """Train at a constant rate and return what the last validation logged."""
    cfg.param_scheduler, cfg.custom_hooks = [], []
    cfg.default_hooks.checkpoint.update(interval=-1, save_last=False)
    cfg.train_cfg.val_interval = cfg.train_cfg.max_epochs
    runner = build_runner(cfg)
    runner.train()
    logged = runner.message_hub.log_scalars
    return {k: v.current() for k, v in logged.items() if k.startswith('val/')}


@pytest.mark.slow
def test_a_short_training_finds_the_captions_of_its_scenes(tmp_path):
    counts = dict(train=24, val=1, test=1)
    folder = write_digit_scenes(tmp_path / 'scenes', counts)
    data = dict(data_root=str(folder), scenes=counts, split='train')
    cfg = config('minilm_digit-scenes', tmp_path / 'run', **{'train_cfg.max_epochs': 40})
    cfg.train_dataloader.update(batch_size=36)
    cfg.train_dataloader.dataset.update(data)
    cfg.val_dataloader.dataset.update(data, test_mode=True)
    found = train(cfg)
    # By chance 3 of 72 captions, and one of 24 pictures: 4 %.
    assert found['val/retrieval/image_to_text/R@1'] > 20
    assert found['val/retrieval/text_to_image/R@1'] > 15
