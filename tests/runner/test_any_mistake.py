"""Any field of a config may be wrong: a command trains, or says what is wrong in one line.

Every field of some demo configs is changed by the kind of its value. A seed draws a few
of these changes; ``MISTAKES=1000 pytest`` tries more.
"""

import contextlib
import io
import os
import random
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from lm4ve.runner.cfg_options import parse_option
from lm4ve.runner.command_line import run_tool
from lm4ve.runner.config import read_config
from tests.helpers.remembered_runs import forget_runs
from tests.helpers.tasks import CONFIGS
from tests.helpers.tools import run_lm4ve

pytest.importorskip('mmpretrain')

COUNT = int(os.environ.get('MISTAKES', '12'))
DEMOS = ('lm4ve/vit-demo_minilm_digits.py', 'lm4ve/vit-demo_none_digits.py')
#: Overrides that make a training one of a second.
FEW = """
train_cfg.max_epochs=1 train_dataloader.dataset.indices=32 val_dataloader.dataset.indices=8
log_level=ERROR
""".split()
#: What is not built in a training.
LEFT_OUT = (
    'test_',
    'tta_',
    'custom_imports',
    'work_dir',
    'vis_backends',
    'default_scope',
)
WORDS = {
    bool: ['abc', 'None'],
    int: ['abc', '-3', '(1,2)', 'None'],
    float: ['abc', '-3', 'nan', '(1,2)', 'None'],
    str: ['abcd', '7', 'None'],
    dict: ['abc', '3', 'None'],
    list: ['abc', '3', '[]', 'None'],
    tuple: ['abc', '3', '[]', 'None'],
}


def fields_of(node: Any, path: str = '') -> Iterator[tuple[str, Any]]:
    """Yield the path and the value of each field below a node."""
    if isinstance(node, dict):
        items = node.items()
    elif isinstance(node, (list, tuple)):
        items = enumerate(node)
    else:
        items = ()
    for key, value in items:
        field = f'{path}.{key}' if path else str(key)
        is_name_of_parameter = '.' in str(key)
        if not is_name_of_parameter and not field.startswith(LEFT_OUT):
            yield field, value
            yield from fields_of(value, field)


def mistakes_of(name: str) -> list[str]:
    """Return overrides of a config, each with a mistake."""
    cfg = read_config(CONFIGS / name, set_scope=False)
    rows = []
    for field, value in fields_of(cfg.to_dict()):
        rows += [f'{field}={word}' for word in WORDS.get(type(value), ())]
        if isinstance(value, dict):
            rows.append(f'{field}.misspelt_key=1')
    return rows


def train(words: list[str], monkeypatch) -> tuple[int, str]:
    """Run the command in this process; return its exit code and what it prints of an error."""
    forget_runs()
    monkeypatch.setattr(sys, 'argv', ['lm4ve train', *words])
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        try:
            run_tool(lambda: run_lm4ve('train', words))
        except SystemExit as e:
            return e.code, errors.getvalue().strip()
    return 0, ''


@pytest.mark.parametrize('name', DEMOS)
def test_any_wrong_field_trains_or_is_one_line(name, tmp_path, monkeypatch):
    rows = mistakes_of(name)
    assert len(rows) > 200
    for row in random.Random(0).sample(rows, min(COUNT, len(rows))):
        words = [str(CONFIGS / name), '--work-dir', str(tmp_path), '--cfg-options']
        code, output = train([*words, *FEW, row], monkeypatch)
        lines = [line for line in output.splitlines() if line.startswith('error: ')]
        assert 'Traceback' not in output, row
        if code == 0:
            assert not lines, row
            continue
        assert code == 2, row
        assert len(lines) == 1 and output.endswith(lines[0]), row
        field, _ = parse_option(row)
        if field.endswith('misspelt_key'):
            assert 'misspelt_key' in output, (row, output)


def test_text_for_any_number_of_the_neck_names_its_part(tmp_path, monkeypatch):
    """A line of our own names the field, and one of torch's follows the part's name."""
    name = DEMOS[0]
    rows = []
    for row in mistakes_of(name):
        field, _, word = row.partition('=')
        if field.startswith('model.neck.') and word == 'abc':
            rows.append(row)
    for row in random.Random(1).sample(rows, 4):
        words = [str(CONFIGS / name), '--work-dir', str(tmp_path), '--cfg-options', row]
        code, output = train(words, monkeypatch)
        field, _ = parse_option(row)
        part, _, _ = field.rpartition('.')
        # A part of ours names its fields as 'block.layers', wherever it is in the model.
        ours = '.'.join(field.split('.')[-2:])
        assert code == 2, row
        assert f' {part}: ' in output or ours in output, (row, output)
