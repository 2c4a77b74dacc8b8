"""Every repair of another package says when it is no longer needed."""

import importlib
import re
from pathlib import Path

import pytest

from lm4ve import compat

pytest.importorskip('mmpretrain')
pytest.importorskip('mmaction')  # its repairs are in the table from here on


OVERRIDES = {m: importlib.import_module(f'lm4ve.compat.{f}') for m, f in compat.OVERRIDES.items()}
NEEDED = [(r.module, r.is_needed, r.function.__name__) for r in compat.REPAIRS]
NEEDED += [(m, f.is_needed, f.__name__) for m, f in OVERRIDES.items()]


@pytest.mark.parametrize('module, is_needed, name', NEEDED)
def test_installed_release_needs_the_repair(module, is_needed, name):
    pytest.importorskip(module.partition('.')[0])
    assert is_needed(importlib.import_module(module)), (
        f'{module} was mended upstream: raise the lower bound of its version and delete {name}'
    )


@pytest.mark.parametrize('repair', [r.function for r in compat.REPAIRS] + [*OVERRIDES.values()])
def test_repair_names_versions_and_its_end(repair):
    assert re.search(r'\d+\.\d+\.\d+', repair.__doc__) and 'ay go' in repair.__doc__


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
