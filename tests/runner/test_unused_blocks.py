"""A config that inherits a block and does not use it is no baseline: it is refused."""

import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from lm4ve.blocks import LLMBlock
from lm4ve.errors import UserError
from lm4ve.necks import LLMBlockNeck
from lm4ve.runner.config import check_config, read_checked_config
from tests.helpers.tasks import CONFIGS
from tests.helpers.tools import run_tool_here

PIECES = CONFIGS / '_base_'
BASELINE = CONFIGS / 'pointcloud/pointbert_scanobjectnn-hardest.py'
ARCH = dict(
    model_type='llama',
    hidden_size=32,
    intermediate_size=48,
    num_attention_heads=4,
    num_hidden_layers=1,
    vocab_size=8,
)
BLOCK = dict(type='LLMBlock', pretrained=False, arch=ARCH)
NECK = dict(type='LLMBlockNeck', in_channels=384, block=BLOCK)


def pieces_with_a_block() -> list[Path]:
    """Return the inherited files whose variables hold a block or a neck."""
    found = []
    for path in sorted(PIECES.rglob('*.py')):
        if re.search(r'LLMBlock|_base_\.llm_', path.read_text()):
            found.append(path)
    return found


def write(folder, *bases, lines=()):
    """Write a config that inherits from others, and return its path."""
    path = folder / 'mine.py'
    names = [str(base) for base in bases]
    path.write_text('\n'.join([f'_base_ = {names}', *lines, '']))
    return path


def fix_of(error) -> str:
    """Return the line of a config that an error's message gives."""
    return re.search(r'Fix: write (model = .*?)[;.] ', str(error.value) + ' ')[1]


def test_a_baseline_with_a_piece_is_refused_and_the_fix_works(tmp_path):
    piece = PIECES / 'pointcloud/llama-7b.py'
    path = write(tmp_path, BASELINE, piece)
    message = f"with_block.*'{piece}'.*model = _base_.with_block"
    with pytest.raises(UserError, match=message) as caught:
        read_checked_config(path)
    assert '\n' not in str(caught.value)
    with open(path, 'a') as file:
        file.write(f'{fix_of(caught)}\n')
    assert read_checked_config(path).model.neck.block.type == 'LLMBlock'


def test_commands_stop_before_anything_is_built(tmp_path):
    path = write(tmp_path, BASELINE, PIECES / 'pointcloud/llama-7b.py')
    checkpoint = tmp_path / 'a.pth'
    torch.save(dict(state_dict=dict(a=torch.zeros(1))), checkpoint)
    for flags in (['--dry-run'], []):
        with pytest.raises(UserError, match='with_block'):
            run_tool_here('train.py', path, '--work-dir', tmp_path / 'runs', *flags)
    with pytest.raises(UserError, match='with_block'):
        run_tool_here('test.py', path, checkpoint, '--work-dir', tmp_path / 'runs')
    assert not (tmp_path / 'runs').exists()


@pytest.mark.parametrize('piece', pieces_with_a_block(), ids=lambda path: path.name)
def test_every_piece_is_named_with_its_file(piece, tmp_path):
    with pytest.raises(UserError, match=f"'{piece}'.*model = "):
        read_checked_config(write(tmp_path, BASELINE, piece))


@pytest.mark.parametrize(
    'line, fix',
    [
        (f'llm_block = {BLOCK}', r"neck=dict\(_delete_=True, type='LLMBlockNeck'"),
        (f'mine = {NECK}', r'neck=dict\(mine, _delete_=True\)'),
        (f'neck = {NECK}', r'neck=dict\(neck, _delete_=True\)'),
        (f'mine = [dict(a=[{BLOCK}])]', 'neck='),
        ("mine = dict(type='MLPBlock')", 'neck='),
        (f'mine = dict(backbone=dict(final_norm=False), neck={NECK})', 'model = mine'),
        ("mine = dict(type='LLMBlockInsert', after='a')", 'backbone='),
    ],
)
def test_variables_of_the_file_itself_are_refused(line, fix, tmp_path):
    path = write(tmp_path, BASELINE, lines=[line])
    name = line.partition(' ')[0]
    with pytest.raises(UserError, match=f"{name} .*'{path}'.*{fix}"):
        read_checked_config(path)


@pytest.mark.parametrize(
    'line', [f'mine = {NECK}', f'mine = dict(neck={dict(NECK, _delete_=True)})']
)
def test_the_line_of_the_message_works(line, tmp_path):
    path = write(tmp_path, BASELINE, lines=[line])
    with pytest.raises(UserError) as caught:
        read_checked_config(path)
    path = write(tmp_path, BASELINE, lines=[line, fix_of(caught)])
    assert read_checked_config(path).model.neck.type == 'LLMBlockNeck'


@pytest.mark.parametrize(
    'lines',
    [
        [f'llm_block = {BLOCK}', 'llm_block = None'],
        [f'llm_block = {BLOCK}', "allow_new = ['llm_block']"],
        [f'_llm_block = {BLOCK}'],
        # In another neck than ours, and where the model does not have it.
        [f'llm_block = {BLOCK}', 'model = dict(neck=dict(_delete_=True, a=llm_block))'],
        [f'llm_block = {BLOCK}', f'custom_hooks = [dict(type="Mine", neck={NECK})]'],
        # A control of the same neck has another block than the one it inherits.
        [
            f'llm_block = {BLOCK}',
            f'model = dict(neck={dict(NECK, block=dict(type="MLPBlock"), _delete_=True)})',
        ],
        ["mine = dict(type='LLMBlockHead')", 'other = [1, None]'],
    ],
)
def test_what_is_used_or_permitted_passes(lines, tmp_path):
    read_checked_config(write(tmp_path, BASELINE, lines=lines))


def test_classes_and_subclasses_count(tmp_path):
    class MyNeck(LLMBlockNeck):
        pass

    MODELS.register_module(module=MyNeck)
    try:
        for kind in (LLMBlock, MyNeck, 'MyNeck', 'lm4ve.LLMBlock', 'mmengine.MyNeck'):
            cfg = Config(dict(model=dict(type='ToyModel'), mine=dict(type=kind)))
            with pytest.raises(UserError, match='mine '):
                check_config(cfg)
            used = Config(
                dict(model=dict(type='A', b=dict(type=kind)), mine=dict(type=kind))
            )
            check_config(used)
    finally:
        del MODELS.module_dict['MyNeck']


def test_lazy_configs_are_checked(tmp_path):
    (tmp_path / 'piece.py').write_text(
        'from lm4ve.necks import LLMBlockNeck\n'
        f'llm_neck = dict(type=LLMBlockNeck, in_channels=8, block={BLOCK})\n'
    )
    (tmp_path / 'mine.py').write_text(
        'from mmengine.config import read_base\n'
        'with read_base():\n    from .piece import *\n'
        "model = dict(type='ToyModel')\n"
    )
    with pytest.raises(UserError, match='llm_neck .*model = '):
        read_checked_config(tmp_path / 'mine.py')


def test_an_override_that_removes_the_neck_names_the_way_to_say_so(tmp_path):
    config = CONFIGS / 'pointcloud/pointbert_llama_scanobjectnn-hardest.py'
    with pytest.raises(UserError, match='with_block') as caught:
        read_checked_config(config, {'model.neck': None})
    names = re.search(r'allow_new=(\[.*?\])', str(caught.value))[1]
    read_checked_config(config, {'model.neck': None, 'allow_new': eval(names)})
