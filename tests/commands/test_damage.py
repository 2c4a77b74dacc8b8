"""Damage in what is scored ends a command before its first step, or every metric says so."""

import json

import cv2
import numpy as np
import pytest

pytest.importorskip('mmpretrain')

from lm4ve.errors import UserError
from lm4ve.runner.command_line import run_tool
from lm4ve.study.run_job import run_job
from lm4ve.study.store import Store
from lm4ve.study.trainings.training import training_job
from tests.helpers.tasks import CONFIGS
from tests.helpers.tools import run_lm4ve

#: The validation set does not say that it is one.
CONFIG = """
_base_ = {base!r}
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(8, 8)),
    dict(type='PackInputs'),
]
data = dict(_delete_=True, type='lm4ve.CheckedImageFolder', pipeline=pipeline)
train_dataloader = dict(batch_size=4, dataset=dict(**data, data_root={train!r}))
val_dataloader = dict(dataset=dict(**data, data_root={val!r}))
test_dataloader = val_dataloader
"""


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Folders of two classes with five images each."""
    draw = np.random.default_rng(0)
    for split in ('train', 'val'):
        for label in 'ab':
            (tmp_path / split / label).mkdir(parents=True)
            for number in range(5):
                pixels = draw.integers(0, 255, (20, 20, 3), np.uint8)
                cv2.imwrite(str(tmp_path / split / label / f'{number}.jpg'), pixels)
    base = str(CONFIGS / 'lm4ve/vit-demo_none_digits.py')
    splits = {split: str(tmp_path / split) for split in ('train', 'val')}
    (tmp_path / 'config.py').write_text(CONFIG.format(base=base, **splits))
    monkeypatch.setenv('LM4VE_CACHE', str(tmp_path / 'cache'))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(data, capsys):
    """``run(command, *words)`` runs a command; returns its exit code and what it printed."""

    def run(command, *words):
        code = 0
        flags = ['config.py', *map(str, words)]
        if '--dry-run' not in words:
            flags += ['--work-dir', 'work']
        try:
            run_tool(lambda: run_lm4ve(command, flags))
        except SystemExit as end:
            code = end.code
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def without_storage(path):
    """Let storage not give a file: a link to itself, as the system's error ELOOP."""
    path.unlink()
    path.symlink_to(path.name)


ONE_EPOCH = ('--epochs', 1)


def test_training_ends_before_its_first_step_if_its_validation_is_damaged(run, data):
    cut(data / 'val/b/3.jpg')
    code, printed = run('train', *ONE_EPOCH)
    assert code == 2
    assert '1 of 10 images are corrupt' in printed
    assert 'val/b/3.jpg' in printed
    assert 'Epoch(train)' not in ''.join(p.read_text() for p in data.rglob('*.log'))
    assert not list(data.rglob('*.pth'))


def test_dry_run_finds_damage_in_the_validation_and_warns_of_it_in_training(run, data):
    cut(data / 'train/a/0.jpg')
    code, printed = run('train', '--dry-run')
    assert code == 0
    assert 'Other samples will replace damaged ones' in ' '.join(printed.split())
    cut(data / 'val/b/3.jpg')
    code, printed = run('train', '--dry-run')
    assert code == 2
    assert 'files: CheckedImageFolder: 1 of 10 images are corrupt' in printed


def test_training_replaces_a_damaged_sample_and_says_so(run, data):
    cut(data / 'train/a/0.jpg')
    code, printed = run('train', *ONE_EPOCH)
    assert code == 0
    assert 'another sample replaces it' in printed
    assert '10 of 10 samples' in printed


def test_a_test_of_a_part_says_of_which_wherever_it_reports(run, data):
    assert run('train', *ONE_EPOCH)[0] == 0
    (checkpoint,) = data.rglob('epoch_1.pth')
    out = ('--out', 'scores.json', '--out-item', 'metrics')
    code, printed = run('test', checkpoint, *out)
    assert code == 0
    assert '10 of 10 samples' in printed
    scores = json.loads((data / 'scores.json').read_text())
    assert (scores['samples/scored'], scores['samples/total']) == (10, 10)

    for number in range(3):
        cut(data / f'val/b/{number}.jpg')
    code, printed = run('test', checkpoint)
    assert code == 2
    assert '3 of 10 images are corrupt' in printed
    skip = ('--cfg-options', "test_dataloader.dataset.on_corrupt='skip'")
    code, printed = run('test', checkpoint, *out, *skip)
    assert code == 0
    assert '7 of 10 samples' in printed
    scores = json.loads((data / 'scores.json').read_text())
    assert (scores['samples/scored'], scores['samples/total']) == (7, 10)


@pytest.mark.parametrize('split', ['train', 'val'])
def test_what_storage_does_not_give_is_worth_another_try(split, run, data):
    without_storage(data / split / 'a/1.jpg')
    code, printed = run('train', *ONE_EPOCH)
    assert code == 1
    assert 'a/1.jpg' in printed
    assert 'ELOOP' in printed
    assert 'corrupt' not in printed


def test_damaged_training_data_that_nobody_may_replace_is_an_error(run, data):
    cut(data / 'train/a/0.jpg')
    refuse = "train_dataloader.dataset.on_corrupt='refuse'"
    code, printed = run('train', *ONE_EPOCH, '--cfg-options', refuse)
    assert code == 2
    assert 'train/a/0.jpg' in printed


def test_validation_without_test_mode_cannot_be_asked_for(run):
    off = 'val_dataloader.dataset.test_mode=False'
    code, printed = run('train', '--cfg-options', off)
    assert code == 2
    assert 'val_dataloader.dataset.test_mode=False: the metric would' in printed


def test_training_of_a_grid_ends_before_its_first_step_or_keeps_both_numbers(data):
    for number in range(3):
        cut(data / f'val/b/{number}.jpg')
    options = {'train_cfg.max_epochs': 1}
    with pytest.raises(UserError, match='3 of 10 images are corrupt'):
        run_training(data, options)
    assert not list(data.rglob('*.pth'))
    options['test_dataloader.dataset.on_corrupt'] = 'skip'
    result = run_training(data, options)
    assert (result.scored, result.total) == (7, 10)
    assert list(result.metrics) == ['accuracy/top1']


def run_training(folder, options):
    """Run the config of a folder as a job; return its result."""
    path = folder / 'config.py'
    job = training_job('one', 'test', 0, None, path, options, 'accuracy/top1')
    store = Store(folder / 'jobs')
    store.prepare(job)
    run_job(store.folder_of(job))
    return store.result(job)
