"""From a file to what the model takes, through the pipelines of the configs."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, ConcatDataset
from mmengine.registry import DATASETS, DefaultScope, init_default_scope
from PIL import Image
from torchvision import transforms

pytest.importorskip('mmpretrain')
from lm4ve.errors import UserError  # noqa: E402
from lm4ve.runner.seeding import seed_everything  # noqa: E402
from lm4ve.tasks.base.language.structures import VisionLanguageDataSample  # noqa: E402
from lm4ve.tasks.vqa import PackVisionLanguage
from tests.docs.blocks import blocks_of  # noqa: E402
from tests.helpers.tasks import CONFIGS  # noqa: E402
from tests.tasks.vqa import files  # noqa: E402

PIECES = CONFIGS / '_base_/vision_language'


@pytest.fixture(autouse=True)
def scope():
    before = DefaultScope.get_current_instance()
    init_default_scope('mmengine')
    yield
    init_default_scope(before.scope_name if before else 'mmengine')


def pack(image, **entry):
    return PackVisionLanguage()(dict(img=image, **entry))


def test_packing_keeps_pixels_and_texts():
    image = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
    packed = pack(image, text=['a', 'b'], gt_answers=['c'], question_id=7, other=1)
    assert packed['inputs'].dtype == torch.uint8 and packed['inputs'].shape == (3, 2, 4)
    assert packed['inputs'][2, 1, 3] == image[1, 3, 2]
    sample = packed['data_samples']
    assert isinstance(sample, VisionLanguageDataSample)
    assert (sample.text, sample.gt_answers, sample.question_id) == (['a', 'b'], ['c'], 7)
    assert 'other' not in sample and 'answer_type' not in sample


def test_gray_images_get_three_channels():
    assert pack(np.zeros((2, 4), np.uint8))['inputs'].shape == (3, 2, 4)
    with pytest.raises(UserError, match="channels of 'a.png'=4"):
        pack(np.zeros((2, 4, 4), np.uint8), img_path='a.png')


@pytest.mark.parametrize('size', [(400, 300), (301, 437), (224, 224), (90, 100)])
def test_test_pixels_are_those_of_meter(size, tmp_path):
    path = files.write_image(tmp_path / 'a.png', size=size)
    cfg = Config.fromfile(PIECES / 'images.py')
    found = Compose(cfg.test_pipeline)(dict(img_path=str(path)))['inputs']
    steps = [transforms.Resize(224, transforms.InterpolationMode.BICUBIC)]
    expected = transforms.Compose([*steps, transforms.CenterCrop(224)])(Image.open(path))
    assert np.array_equal(found.numpy()[::-1].transpose(1, 2, 0), np.asarray(expected))


def test_all_answered_questions_train_together(tmp_path):
    cfg = Config.fromfile(PIECES / 'vqav2.py')
    coco, genome = tmp_path / 'coco', tmp_path / 'genome'
    files.write_vqav2(coco)
    files.write_visual_genome(genome)
    whole = cfg.trainval_genome
    assert cfg.trainval.datasets == whole.datasets[:2]
    whole.pop('_delete_')
    for part in whole.datasets:
        part.vocabulary = str(coco / 'vqav2/vocabulary.json')
        part.data_root = str(genome if 'Genome' in part.type else coco)
        part.serialize_data = False
    data = DATASETS.build(whole)
    assert isinstance(data, ConcatDataset) and len(data) == 8 + 6 + 4
    assert not any(d.test_mode for d in data.datasets)
    names = {data[i]['data_samples'].img_path.split('/')[-2] for i in (0, 8, 14, 15)}
    assert names == {'train2014', 'val2014', 'VG_100K', 'VG_100K_2'}


def test_guides_config_reads_own_questions(tmp_path, monkeypatch):
    (block,) = [b for b in blocks_of('docs/guides/vqa.md') if 'VQAFiles' in b.code]
    folder = CONFIGS / 'vision_language'
    text = block.code.replace("'meter_", f"'{folder}/meter_")
    (tmp_path / 'mine.py').write_text(text)
    root = tmp_path / 'data/mine'
    files.write_image(root / 'images/kitchen/1.jpg')
    row = dict(image='kitchen/1.jpg', question='How many cups are there?', answer='2')
    for split in ('train', 'val'):
        files.write_csv(root / f'{split}.csv', [row])
    files.write_json(root / 'vocabulary.json', ['2'])
    monkeypatch.chdir(tmp_path)
    cfg = Config.fromfile('mine.py')
    assert cfg.model.head.vocabulary == 'data/mine/vocabulary.json' and cfg.model.neck is not None
    for split, tests in (('train', False), ('val', True), ('test', True)):
        data = DATASETS.build(cfg[f'{split}_dataloader'].dataset)
        assert data.test_mode == tests
        sample = data[0]['data_samples']
        assert (sample.text, sample.gt_answers) == ([row['question']], ['2'])


def test_augmentation_follows_the_seed(tmp_path):
    path = files.write_image(tmp_path / 'a.png', size=(320, 240))
    cfg = Config.fromfile(PIECES / 'images.py')
    pipeline = Compose(cfg.train_pipeline)

    def run(seed):
        seed_everything(seed)
        return pipeline(dict(img_path=str(path)))['inputs'].numpy().tobytes()

    assert run(1) == run(1) and len({run(seed) for seed in range(12)}) > 8
    assert len(cfg.train_pipeline[1].policies) == 14
