"""All that a training needs and lacks is said at once, before anything is built."""

import copy
import re
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.model import BaseModel

from lm4ve.commands.launch import main as launch
from lm4ve.errors import UserError
from lm4ve.runner.config import read_config
from lm4ve.runner.missing import find_missing
from tests.helpers.tasks import CONFIGS
from tests.helpers.tools import run_lm4ve

pytest.importorskip('mmpretrain')
IMAGENET = CONFIGS / 'lm4ve/vit-s_llama_in1k.py'
#: One sentence for a folder that two data sets name.
FOLDER = (
    'train_dataloader.dataset.data_root and val_dataloader.dataset.data_root='
    "'data/imagenet' does not exist. Fix: put train/<wnid>/*.JPEG and "
    'val/<wnid>/*.JPEG there, or name another place: --cfg-options '
    'train_dataloader.dataset.data_root=FOLDER val_dataloader.dataset.data_root=FOLDER'
)
MODEL = (
    "model.neck.block.checkpoint='data/llm/llama-7b' does not exist. Fix: put the "
    "language model's folder there, or try a small one: --cfg-options "
    'model.neck.block.checkpoint=package:all-MiniLM-L6-v2'
)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """Let the test run in an empty folder, on a machine of two cores without a GPU."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('lm4ve.runner.missing.count_cores', lambda: 2)
    monkeypatch.setattr('torch.cuda.device_count', lambda: 0)


def texts(cfg, processes=1) -> list[str]:
    return [str(each) for each in find_missing(cfg, processes)]


def test_launcher_names_all_that_is_missing_before_it_starts_a_process(monkeypatch):
    def start(args):
        raise AssertionError('a process was started')

    monkeypatch.setattr('torch.distributed.run.run', start)
    monkeypatch.setattr(sys, 'argv', ['launch', 'train', '8', str(IMAGENET)])
    with pytest.raises(UserError) as error:
        launch()
    assert str(error.value).splitlines() == [
        '3 things are missing:',
        f'  1. {MODEL}',
        f'  2. {FOLDER}',
        '  3. 8 processes are asked for, but this machine has 2 cores and no GPU. Fix: ask '
        'for 2, or use a larger machine',
    ]


def test_train_names_the_same():
    with pytest.raises(UserError) as error:
        run_lm4ve('train', [str(IMAGENET)])
    assert MODEL in str(error.value)
    assert FOLDER in str(error.value)


def test_folders_of_another_number_than_the_classes_are_missing(tmp_path):
    for split in ('train', 'val'):
        for name in range(10):
            (tmp_path / 'data/imagenet' / split / f'n{name}').mkdir(parents=True)
    cfg = read_config(CONFIGS / 'lm4ve/vit-s_in1k.py')
    first, second = texts(cfg)
    assert re.match(
        "train_dataloader.dataset.*1000 names, but 'data/imagenet/train' has 10", first
    )
    assert second.startswith('val_dataloader.dataset')


def test_a_list_below_a_folder_that_is_there_is_missing(tmp_path):
    (tmp_path / 'data/busi/images').mkdir(parents=True)
    (tmp_path / 'data/busi/masks/0').mkdir(parents=True)
    cfg = read_config('medical/cmunext_none_busi.py')
    assert [text.partition('. Fix')[0] for text in texts(cfg)] == [
        "train_dataloader.dataset.ann_file: 'data/busi/busi_train.txt' does not exist",
        "val_dataloader.dataset.ann_file: 'data/busi/busi_val.txt' does not exist",
    ]


@pytest.mark.parametrize(
    'name',
    [
        'lm4ve/vit-demo_minilm_digits.py',
        'motion/vectornet-demo_minilm_sim.py',
        'rooms/sqa3d-demo_minilm_rooms.py',
        'video/videomae-demo_minilm_moving-digits.py',
        'vqa/meter-demo_minilm_digit-scenes.py',
    ],
)
def test_demos_make_their_data(name):
    assert texts(read_config(CONFIGS / name)) == []


def test_more_processes_than_gpus_cannot_begin_and_more_than_cores_can(monkeypatch):
    cfg = Config(dict(model=dict(type='Any')))
    (warning,) = find_missing(cfg, 3)
    assert not warning.stops
    monkeypatch.setattr('torch.cuda.device_count', lambda: 2)
    (missing,) = find_missing(cfg, 3)
    assert missing.stops
    assert find_missing(cfg, 2) == []


def test_classes_of_ones_own_and_images_without_labels_need_no_thousand_folders(
    tmp_path,
):
    (tmp_path / 'data/imagenet/train/one').mkdir(parents=True)
    (tmp_path / 'data/imagenet/train/two').mkdir()
    cfg = read_config(CONFIGS / 'lm4ve/vit-s_in1k.py')
    cfg.val_dataloader = None
    assert len(texts(cfg)) == 1
    for fields in (
        dict(classes=['one', 'two']),
        dict(classes='names.txt'),
        dict(metainfo=dict(classes=('one', 'two'))),
        dict(with_label=False),
    ):
        own = copy.deepcopy(cfg)
        own.train_dataloader.dataset.update(fields)
        assert texts(own) == [], fields


class MakesItsFolder(BaseDataset):
    """A user's data set, which could write its files when it is built."""


class NamesAHubModel(BaseModel):
    """A user's model, whose library looks names up by itself."""


def test_nothing_is_said_of_a_users_data_set_and_model():
    dataset = dict(type=MakesItsFolder, data_root='data/not_yet')
    model = dict(type=NamesAHubModel, checkpoint='resnet50', cache='in memory')
    text = dict(type=NamesAHubModel, tokenizer='bert-base-uncased')
    cfg = Config(dict(model=dict(model, text=text)))
    cfg.train_dataloader = dict(dataset=dataset)
    assert texts(cfg) == []


def test_nothing_is_said_of_what_another_backend_reads():
    backend = dict(backend='petrel', path_mapping={'data/': 's3://bucket/'})
    metric = dict(type='mmdet.CocoMetric', ann_file='data/val.json')
    cfg = Config(dict(default_scope='mmdet', val_evaluator=metric))
    assert len(texts(cfg)) == 1
    cfg.val_evaluator.backend_args = backend
    assert texts(cfg) == []


def test_a_training_that_goes_on_needs_no_weights_to_begin_with(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr('torch.distributed.run.run', started.append)
    config = CONFIGS / 'lm4ve/vit-demo_none_digits.py'
    words = [str(config), '--cfg-options', 'load_from=gone.pth']
    for flags in ([], ['--resume', 'auto']):
        monkeypatch.setattr(sys, 'argv', ['launch', 'train', '1', *words, *flags])
        if flags:
            launch()
        else:
            with pytest.raises(UserError, match="load_from='gone.pth' does not exist"):
                launch()
    assert len(started) == 1
    # In one process the checkpoint is looked for first.
    state = dict(state_dict={}, meta=dict(epoch=1, iter=5))
    (tmp_path / 'work').mkdir()
    torch.save(state, tmp_path / 'work/epoch_1.pth')
    with pytest.raises(Exception) as error:
        run_lm4ve('train', [*words, f'work_dir={tmp_path}/work', '--resume', 'auto'])
    assert 'gone.pth' not in str(error.value)
