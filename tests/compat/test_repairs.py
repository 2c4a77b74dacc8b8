"""Every repair of another package says when it is no longer needed."""

import importlib
import re
from pathlib import Path

import pytest

from lm4ve import compat

pytest.importorskip('mmpretrain')
pytest.importorskip('mmaction')


TABLES = [*compat.REPAIRS.items(), *compat.OVERRIDES.items()]


@pytest.mark.parametrize('module, repair', [(m, r) for m, repairs in TABLES for r in repairs])
def test_the_installed_release_still_needs_the_repair(module, repair):
    pytest.importorskip(module.partition('.')[0])
    file = importlib.import_module(f'lm4ve.compat.{repair}')
    assert file.is_needed(importlib.import_module(module)), (
        f'{module} was mended upstream: raise the lower bound of its version and '
        f'delete lm4ve/compat/{repair}.py'
    )


@pytest.mark.parametrize('module, repairs', TABLES)
def test_a_repair_says_what_it_repairs_and_when_it_may_go(module, repairs):
    for repair in repairs:
        text = importlib.import_module(f'lm4ve.compat.{repair}').__doc__
        assert re.search(r'\d+\.\d+\.\d+', text) and 'ay go' in text, repair


def test_every_file_of_the_folder_is_in_a_table():
    files = {p.stem for p in Path(compat.__file__).parent.glob('*.py')}
    repairs = {r for _, repairs in TABLES for r in repairs}
    assert files - {'__init__'} == repairs


def test_private_members_of_mmengine_are_named_in_compat_only():
    private = re.compile(
        r'_save_checkpoint_with_step|_save_best_checkpoint|_swap_ema_\w+|\._locations'
        r'|\._models_dict|\b_load_checkpoint\(|runner\._(?!_)\w+'
    )
    package = Path(compat.__file__).parents[1]
    found = [
        f'{path.relative_to(package)}: {name}'
        for path in package.rglob('*.py')
        if path.parent.name != 'compat'
        for name in private.findall(path.read_text(encoding='utf-8'))
    ]
    assert not found
