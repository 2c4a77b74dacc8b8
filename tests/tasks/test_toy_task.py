"""The tools serve a task of another project: one folder and one row of the table."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import lm4ve.apis
from lm4ve.errors import UserError
from lm4ve.tasks import TASKS, all_tasks, get_task, register_task
from tests.helpers.closeness import assert_equal_but_for_rounding
from tests.helpers.tasks import ROOT
from tests.helpers.tools import run_tool_here

TOY = ROOT / 'tests/helpers/toy_task'


@pytest.fixture(autouse=True)
def no_row_left_over():
    """The config's imports add the row, which other tests must not see."""
    if 'tests.helpers.toy_task' in sys.modules:  # imported once, by the first test
        register_task('toy', 'tests.helpers.toy_task')
    yield
    TASKS.pop('toy', None)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp('toy')
    run_tool_here('train.py', TOY / 'config.py', '--work-dir', folder)
    return folder / 'epoch_10.pth'


def test_toy_task_trains_and_tests(checkpoint, tmp_path):
    out = tmp_path / 'metrics.json'
    args = (TOY / 'config.py', checkpoint, '--work-dir', tmp_path)
    run_tool_here('test.py', *args, '--out', out, '--out-item', 'metrics')
    assert json.loads(out.read_text())['wave/accuracy'] > 0.9


def test_toy_task_is_visualized(checkpoint, tmp_path, monkeypatch, fails):
    # As in a new process: the config's imports add the row.
    monkeypatch.delitem(sys.modules, 'tests.helpers.toy_task', raising=False)
    TASKS.pop('toy', None)
    np.savetxt(tmp_path / 'mine.wave', np.sin(6.28 * 8 * np.arange(32) / 32))
    args = (TOY / 'config.py', checkpoint, tmp_path / 'mine.wave', '--indices', 1)
    options = ('--gain', 2, '--device', 'cpu', '--out-dir', tmp_path)
    run_tool_here('analysis/visualize_activations.py', *args, *options)
    assert np.asarray(Image.open(tmp_path / 'mine.png').convert('L')).std() > 20
    page = (tmp_path / 'index.html').read_text()
    assert 'prediction: <b>fast' in page and 'test_00001' in page
    (tmp_path / 'cat.png').touch()
    said = fails('analysis/visualize_activations.py', *args[:2], tmp_path / 'cat.png')
    assert "cat.png' does not fit: the config takes a wave" in said


def test_task_name_is_unique():
    register_task('toy', 'tests.helpers.toy_task')
    assert get_task('toy') in all_tasks()
    with pytest.raises(
        UserError, match="task 'toy' is 'tests.helpers.toy_task' already"
    ):
        register_task('toy', 'another')


def test_toy_task_is_exported(checkpoint, tmp_path):
    out = tmp_path / 'wave.pt2'
    args = (TOY / 'config.py', checkpoint, '--format', 'torch-export', '--out', out)
    run_tool_here('export.py', *args)
    waves = torch.randn(5, 32)
    program = torch.export.load(out).module()
    model = lm4ve.apis.get_model(TOY / 'config.py', checkpoint)
    assert_equal_but_for_rounding(program(waves)[0], model(waves), model)
