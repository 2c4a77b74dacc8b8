"""`lm4ve train --dry-run` finds what a training would fail of, and writes nothing."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from lm4ve.dry_run.memory import naming_the_batch
from lm4ve.errors import UserError
from lm4ve.files import sole_use
from lm4ve.zoo import find_config
from tests.helpers.processes import environment
from tests.helpers.tasks import CONFIGS, ROOT
from tests.helpers.tools import ERRORS_ONLY, run_lm4ve

pytest.importorskip('mmpretrain')
PLAIN = CONFIGS / 'lm4ve/vit-demo_none_digits.py'
MINILM = CONFIGS / 'lm4ve/vit-demo_minilm_digits.py'
#: Of every task, one that makes its own data.
DEMOS = [
    'lm4ve/vit-demo_minilm_digits.py',
    'medical/cmunext-demo_minilm_ultrasound.py',
    'motion/vectornet-demo_minilm_sim.py',
    'pointcloud/pointbert-demo_minilm_primitives.py',
    'rooms/sqa3d-demo_minilm_rooms.py',
    'video/videomae-demo_minilm_moving-digits.py',
    'vqa/meter-demo_minilm_easy-vqa.py',
]
ROWS = [
    'config',
    'processes',
    'resume',
    'inputs',
    'weights',
    'data',
    'files',
    'twins',
    'workers',
    'schedule',
    'steps',
    'memory',
    'disk',
    'time',
]
FOLDERS_CONFIG = """
_base_ = {base!r}
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(8, 8)),
    dict(type='PackInputs'),
]
data = dict(
    _delete_=True, type='lm4ve.CheckedImageFolder', pipeline=pipeline,
)
train_dataloader = dict(batch_size=4, dataset=dict(**data, data_root={train!r}))
val_dataloader = dict(dataset=dict(**data, data_root={val!r}, test_mode=True))
"""


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """``run(config, *flags)`` makes a dry run in an empty folder.

    It returns the verdict of each row, and the error's text or ''.
    """
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    monkeypatch.setattr('lm4ve.dry_run.workers._SECONDS', 0.2)

    def dry_run(config, *flags):
        error = ''
        try:
            run_lm4ve('train', [str(config), '--dry-run', *map(str, flags)])
        except UserError as e:
            error = str(e)
        return verdicts_in(capsys.readouterr().out), error

    return dry_run


def verdicts_in(output: str) -> dict[str, str]:
    """Return the verdict of each row of the table that a dry run prints."""
    row = re.compile(r'(\w+) +(ok|warning|failed|not checked)( |$)')
    verdicts = {}
    for line in output.splitlines():
        found = row.match(line)
        if found:
            verdicts[found[1]] = found[2]
    return verdicts


@pytest.fixture
def images(tmp_path):
    """``images.write()`` writes a config whose data are folders of ten classes."""
    draw = np.random.default_rng(0)

    def write(classes=10):
        for split in ('train', 'val'):
            for label in range(classes):
                folder = tmp_path / split / f'{label:02}'
                folder.mkdir(parents=True)
                for number in range(3):
                    pixels = draw.integers(0, 255, (20, 20, 3), np.uint8)
                    cv2.imwrite(str(folder / f'{number}.jpg'), pixels)
        config = tmp_path / 'folders.py'
        text = FOLDERS_CONFIG.format(
            base=str(PLAIN), train=str(tmp_path / 'train'), val=str(tmp_path / 'val')
        )
        config.write_text(text)
        return config

    return SimpleNamespace(write=write, folder=tmp_path)


def mark(config: str):
    """Return a parameter that has the marker ``walk``, but for the images."""
    marks = () if config.startswith('lm4ve/') else pytest.mark.walk
    return pytest.param(config, id=config, marks=marks)


@pytest.mark.parametrize('config', [mark(config) for config in DEMOS])
def test_the_demo_of_every_task_passes(run, config):
    verdicts, error = run(find_config(f'lm4ve::{config}'))
    assert error == ''
    assert list(verdicts) == ROWS
    assert set(verdicts.values()) <= {'ok', 'warning'}


def test_sound_folders_pass_and_nothing_is_written(run, images):
    config = images.write()
    before = sorted(images.folder.rglob('*'))
    _, error = run(config)
    assert error == ''
    assert sorted(images.folder.rglob('*')) == before


def cut_an_image(folder: Path) -> None:
    path = folder / 'train/03/2.jpg'
    path.write_bytes(path.read_bytes()[:-40])


def empty_an_image(folder: Path) -> None:
    (folder / 'val/09/0.jpg').write_bytes(b'')


def drop_a_class(folder: Path) -> None:
    shutil.rmtree(folder / 'val/00')


@pytest.mark.parametrize(
    ('damage', 'check', 'message'),
    [
        (empty_an_image, 'files', r".* corrupt: '.*val/09/0.jpg' .*Fix: fetch them"),
        (drop_a_class, 'steps', r"label 0 is '01', and the model learned it as '00'"),
    ],
)
def test_damaged_data_are_named_and_the_rest_is_checked(
    run, images, damage, check, message
):
    config = images.write()
    damage(images.folder)
    verdicts, error = run(config)
    assert re.match(f'{check}: .*{message}', error)
    assert verdicts[check] == 'failed'
    assert verdicts['schedule'] == 'ok'


def test_damage_that_training_replaces_is_a_warning(run, images):
    config = images.write()
    cut_an_image(images.folder)
    verdicts, error = run(config)
    assert error == ''
    assert verdicts['files'] == 'warning'
    refuse = "train_dataloader.dataset.on_corrupt='refuse'"
    verdicts, error = run(config, '--cfg-options', refuse)
    assert re.match("files: The image '.*train/03/2.jpg' .*Fix: fetch it", error)
    assert verdicts['files'] == 'failed'


def test_a_step_that_does_not_fit_into_memory_names_the_batch():
    with pytest.raises(
        UserError, match='train_dataloader.batch_size=8: .* does not fit'
    ):
        with naming_the_batch(8):
            torch.empty(2**60, dtype=torch.int8)


def test_more_classes_than_the_head_has_fail(run, images):
    verdicts, error = run(images.write(classes=11))
    assert re.match('steps: model.head.num_classes=10 is below the 11 classes', error)
    assert verdicts['disk'] == 'not checked'


def test_a_head_for_more_classes_is_a_warning(run, images):
    verdicts, error = run(images.write(classes=9))
    assert error == ''
    assert verdicts['data'] == 'warning'


def test_a_missing_layer_fails_and_what_builds_on_it_is_left_out(run):
    verdicts, error = run(MINILM, '--cfg-options', 'model.neck.block.layers=(6,)')
    assert re.match(
        'weights: block.layers=.*has no layer 6. Fix: numbers from -6 to 5', error
    )
    assert verdicts['steps'] == 'not checked'
    assert verdicts['files'] == 'ok'


def test_an_unknown_field_fails_and_nothing_else_is_checked(run):
    verdicts, error = run(PLAIN, '--cfg-options', 'env_cfg.cudnn_benchmrk=True')
    assert error.startswith('config: env_cfg.cudnn_benchmrk is not a known field')
    assert {*verdicts.values()} == {'failed', 'not checked'}


def test_all_that_is_missing_fails_in_one_row(run):
    verdicts, error = run(CONFIGS / 'lm4ve/vit-s_llama_in1k.py')
    assert verdicts['inputs'] == 'failed'
    assert verdicts['data'] == verdicts['weights'] == 'not checked'
    assert error.startswith('inputs: 2 things are missing:')
    assert "data_root='data/imagenet' does not exist" in error


@pytest.mark.parametrize('rate', [100, 1e6])
def test_a_rate_that_the_warm_up_hides_is_a_warning(run, rate):
    verdicts, error = run(PLAIN, '--lr', rate)
    assert (verdicts['steps'], error) == ('warning', '')


def test_a_batch_of_more_than_all_samples_is_a_warning_or_trains_nothing(run):
    small = 'train_dataloader.dataset.indices=40'
    verdicts, error = run(PLAIN, '--cfg-options', small)
    assert (verdicts['data'], error) == ('warning', '')
    drop = 'train_dataloader.drop_last=True'
    _, error = run(PLAIN, '--cfg-options', small, drop)
    assert error.startswith('data: train_dataloader: nothing would train, since 40')


def test_a_work_directory_that_cannot_be_written_to_fails(run, tmp_path):
    file = tmp_path / 'file'
    file.touch()
    for folder in (file, file / 'run'):
        verdicts, error = run(PLAIN, '--work-dir', folder)
        assert verdicts['disk'] == 'failed'
        assert re.match(f"disk: work_dir='{file}' cannot be written to: ", error)


def test_a_full_disk_fails(run, monkeypatch):
    usage = SimpleNamespace(total=10**6, used=10**6, free=1000)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage)
    _, error = run(PLAIN)
    assert re.match("disk: work_dir: checkpoints in '.*' need .* Fix: free some", error)


def test_the_checkpoint_of_a_flexible_runner_is_measured(run, tmp_path, monkeypatch):
    config = tmp_path / 'flexible.py'
    config.write_text(
        f'_base_ = {str(PLAIN)!r}\n'
        "runner_type = 'FlexibleRunner'\n"
        "strategy = dict(type='SingleDeviceStrategy')\n"
    )
    usage = SimpleNamespace(total=10**6, used=10**6, free=1000)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage)
    _, error = run(config)
    assert re.match("disk: work_dir: checkpoints in '.*' need .* Fix: free some", error)


def test_a_score_that_is_not_measured_fails_before_the_first_epoch(run):
    _, error = run(PLAIN, '--cfg-options', 'default_hooks.checkpoint.save_best=mAP')
    assert error.startswith("steps: checkpoint.save_best='mAP' must be one of")


def test_a_monitor_that_is_not_measured_fails_before_the_first_epoch(run):
    stop = "custom_hooks=[dict(type='EarlyStoppingHook',monitor={!r})]"
    verdicts, error = run(PLAIN, '--cfg-options', stop.format('accuracy'))
    assert verdicts['steps'] == 'failed'
    assert error == (
        "steps: EarlyStoppingHook.monitor='accuracy' must be one of accuracy/top1. "
        "Did you mean 'accuracy/top1'?"
    )
    verdicts, error = run(PLAIN, '--cfg-options', stop.format('accuracy/top1'))
    assert (verdicts['steps'], error) == ('ok', '')


def test_a_training_is_not_disturbed_and_would_be_continued(run, tmp_path):
    short = [
        '--cfg-options',
        'train_cfg.max_epochs=2',
        'train_dataloader.dataset.indices=64',
        'val_dataloader.dataset.indices=32',
        'default_hooks.checkpoint.interval=1',
    ]
    folder = tmp_path / 'run'
    # In a process of its own, since MMEngine's loggers of one process and second are one.
    train = ['train', PLAIN, '--work-dir', folder, *short]
    subprocess.run(
        [sys.executable, '-m', 'lm4ve.commands', *train],
        env=environment(),
        cwd=tmp_path,
        check=True,
        **ERRORS_ONLY,
    )
    before = {path: path.stat().st_mtime_ns for path in folder.rglob('*')}

    verdicts, error = run(PLAIN, '--work-dir', folder, *short)
    assert error == ''
    assert verdicts['resume'] == 'warning'  # it would replace checkpoints
    verdicts, error = run(PLAIN, '--work-dir', folder, '--resume', *short)
    assert error == ''
    assert verdicts['resume'] == 'ok'
    with sole_use(folder / 'training-0.lock'):
        _, error = run(PLAIN, '--work-dir', folder, *short)
    assert error.startswith('resume: Another run works here')
    after = {path: path.stat().st_mtime_ns for path in folder.rglob('*')}
    after.pop(folder / 'training-0.lock')
    before.pop(folder / 'training-0.lock')
    assert after == before


FAILING_PARTS = """
import os
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from lm4ve.data.ranks import gather
from lm4ve.registry import DATASETS
from lm4ve.tasks.image import DigitsDataset

def fail_in_rank_1():
    if os.environ['RANK'] == '1':
        raise ValueError('this machine is broken')

@HOOKS.register_module()
class FailingHook(Hook):
    def before_train_iter(self, *args, **kwargs):
        fail_in_rank_1()

@DATASETS.register_module()
class FailingDigits(DigitsDataset):
    def load_data_list(self):
        fail_in_rank_1()
        gather('found')
        return super().load_data_list()
"""


@pytest.mark.parametrize(
    ('check', 'fields'),
    [
        ('steps', "custom_hooks = [dict(type='FailingHook')]"),
        ('data', "train_dataloader = dict(dataset=dict(type='lm4ve.FailingDigits'))"),
    ],
)
def test_the_rank_that_fails_while_others_wait_for_it_is_named(tmp_path, check, fields):
    (tmp_path / 'failing_parts.py').write_text(FAILING_PARTS)
    config = tmp_path / 'config.py'
    config.write_text(
        f'_base_ = {str(PLAIN)!r}\n'
        "custom_imports = dict(imports=['lm4ve', 'failing_parts'])\n"
        f'{fields}\n'
    )
    env = environment()
    env['PYTHONPATH'] += f'{os.pathsep}{tmp_path}'
    done = subprocess.run(
        ['bash', ROOT / 'tools/dist_train.sh', config, '2', '--dry-run'],
        env=env,
        cwd=tmp_path,
        text=True,
        capture_output=True,
        timeout=900,
    )
    assert done.returncode == 2, done.stderr
    verdicts = verdicts_in(done.stdout)
    # What was found before the one process has failed.
    assert set(verdicts) == {*ROWS[: ROWS.index(check)]}
    assert done.stdout.count('verdict') == 1
    assert re.search(
        rf'error: {check}: .*ValueError: this machine is broken \(traceback: rank 1 on',
        done.stderr,
    )
    assert not (tmp_path / 'work_dirs').exists()
