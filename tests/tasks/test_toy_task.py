"""The page "Add a task", from an empty folder to every command: a task of another project."""

import csv
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

import lm4ve.apis
from lm4ve.errors import UserError
from lm4ve.registry import MODELS, PROVIDERS
from lm4ve.tasks import TASKS, Task, all_tasks, get_task, register_task
from tests.helpers import quick_python
from tests.helpers.closeness import assert_equal_but_for_rounding
from tests.helpers.code_blocks import blocks_of
from tests.helpers.tools import run_command, run_tool_here

pytestmark = pytest.mark.slow
BLOCKS = blocks_of('docs/extend/add_a_task.md')
CHECKPOINT = 'work_dirs/waves/epoch_20.pth'


@pytest.fixture(scope='module')
def stranger(tmp_path_factory):
    """The page's folder after all of its commands, and what they printed."""
    folder = tmp_path_factory.mktemp('stranger')
    commands = []
    for block in BLOCKS:
        if block.language == 'bash':
            commands += block.commands
        elif block.code.startswith('# '):
            file = folder / block.code.split()[1]
            file.parent.mkdir(exist_ok=True)
            file.write_text(block.code)
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PATH': quick_python.path()}
    script = '\n'.join(commands)
    done = run_command('bash', '-eu', '-c', script, cwd=folder, env=env, timeout=480)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-1000:]
    return folder, done.stdout


@pytest.fixture
def folder(stranger, monkeypatch):
    """The page's folder as the working one, whose task other tests do not see."""
    folder, _ = stranger
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    if 'my_task' in sys.modules:  # imported once, by the first test
        register_task('waves', 'my_task')
    yield folder
    TASKS.pop('waves', None)


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline='') as file:
        return list(csv.DictReader(file))


def test_model_of_the_page_learns_and_its_predictions_are_a_table(stranger):
    folder, printed = stranger
    rows = rows_of(folder / 'waves.csv')
    files = sorted(str(path) for path in (folder / 'data/waves/test').iterdir())
    assert [str(folder / row['path']) for row in rows] == files
    right = sum(row['label'] == row['prediction'] for row in rows)
    assert right > 0.9 * len(rows)
    assert f'wave/accuracy {right / len(rows):.4f}' in printed


def test_numbers_that_a_model_predicts_are_a_table(stranger):
    folder, printed = stranger
    rows = rows_of(folder / 'speed.csv')
    assert [*rows[0]] == ['path', 'target', 'prediction']
    errors = []
    for row in rows:
        assert row['target'] == str(float(Path(row['path']).stem))
        errors.append(abs(float(row['target']) - float(row['prediction'])))
    assert f'wave/error {np.mean(errors):.4f}' in printed
    page = (folder / 'work_dirs/speed/activations/index.html').read_text()
    prediction = float(rows[0]['prediction'])
    assert f'prediction: <b>{prediction:.4g}<' in page


def test_sheets_show_files_and_samples_of_the_task(stranger):
    folder, _ = stranger
    seen = sorted((folder / 'seen').glob('*.png'))
    assert [sheet.stem for sheet in seen] == ['6.808', '6.857', '6.881']
    assert np.asarray(Image.open(seen[0]).convert('L')).std() > 20
    assert 'prediction: <b>fast' in (folder / 'seen/index.html').read_text()
    page = (folder / 'work_dirs/waves/activations/index.html').read_text()
    assert 'truth: <b>slow' in page and 'test_00001' in page


def test_file_of_another_kind_is_refused(folder, fails):
    Path('cat.png').touch()
    said = fails('analysis/visualize_activations.py', 'waves.py', CHECKPOINT, 'cat.png')
    assert "cat.png' does not fit: the config takes a wave" in said


def test_data_without_a_pipeline_show_samples_and_refuse_files(folder, fails):
    Path('bare.py').write_text("""
_base_ = './waves.py'
custom_imports = dict(imports=['lm4ve', 'my_task', 'loaded'])
test_dataloader = dict(
    dataset=dict(_delete_=True, type='lm4ve.LoadedWaves', data_root='data/waves/test'))
""")
    Path('loaded.py').write_text("""
from lm4ve.registry import DATASETS
from my_task.datasets import Waves
from my_task.transforms import LoadWave

@DATASETS.register_module()
class LoadedWaves(Waves):
    def load_data_list(self):
        return [LoadWave()(sample) for sample in super().load_data_list()[:2]]
""")
    tool = 'analysis/visualize_activations.py'
    run_tool_here(tool, 'bare.py', CHECKPOINT, '--indices', 1, '--out-dir', 'bare')
    assert [*Path('bare').glob('test_00001*.png')]
    (file, *_) = Path('data/waves/test').iterdir()
    said = fails(tool, 'bare.py', CHECKPOINT, file)
    assert said == (
        "test_dataloader.dataset (type='lm4ve.LoadedWaves') has no pipeline, through which files "
        'go. Fix: pipeline=[...] with its transforms, or pipeline=[] for none.\n'
    )


def test_inference_returns_the_number_of_a_regression(folder):
    (row, *_) = rows_of(folder / 'speed.csv')
    checkpoint = CHECKPOINT.replace('waves', 'speed')
    (result,) = lm4ve.apis.inference('speed.py', checkpoint, row['path'])
    assert f'{result["pred_value"]:.3f}' == f'{float(row["prediction"]):.3f}'


def test_task_name_is_unique(folder):
    Config.fromfile('waves.py')
    assert get_task('waves') in all_tasks()
    with pytest.raises(UserError, match="task 'waves' is 'my_task' already"):
        register_task('waves', 'another')


def task_named(name, registers, monkeypatch):
    """A package of this name that declares a task with a table of names."""
    task = Task(
        name=name,
        title=name,
        package=name,
        extra=name,
        models=(),
        registers=registers,
        input_noun='a file',
        input_suffixes=('.txt',),
    )
    monkeypatch.setitem(sys.modules, name, SimpleNamespace(TASK=task))


def test_name_that_another_module_registers_is_refused(monkeypatch):
    task_named('taker', {'data': ('Unseen', 'DigitsDataset')}, monkeypatch)
    with pytest.raises(UserError, match="'DigitsDataset' of the task 'taker'"):
        register_task('taker', 'taker')
    assert 'taker' not in TASKS
    assert 'Unseen' not in PROVIDERS


def test_row_of_a_table_that_is_a_text_is_refused(monkeypatch):
    task_named('texts', {'data': 'Texts'}, monkeypatch)
    with pytest.raises(UserError, match="is the text 'Texts'. Fix: a tuple"):
        register_task('texts', 'texts')


def test_failing_import_of_another_project_is_not_blamed_on_an_extra(monkeypatch):
    monkeypatch.setitem(PROVIDERS, 'Absent', ('absent.models', 'absent'))
    with pytest.raises(UserError, match=r'Fix: install what absent\.models needs'):
        MODELS.get('lm4ve.Absent')


def test_exported_program_computes_what_the_model_does(folder):
    waves = torch.randn(5, 32)
    program = torch.export.load('work_dirs/waves/waves.pt2').module()
    model = lm4ve.apis.get_model('waves.py', CHECKPOINT)
    assert_equal_but_for_rounding(program(waves)[0], model(waves), model)
