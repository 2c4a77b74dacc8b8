"""Every repair of another package says when it is no longer needed."""

import importlib
import re

import pytest

from lm4ve import compat

pytest.importorskip('mmpretrain')
pytest.importorskip('mmaction')


@pytest.mark.parametrize(
    'module, repair', [(m, r) for m, repairs in compat.REPAIRS.items() for r in repairs]
)
def test_the_installed_release_still_needs_the_repair(module, repair):
    file = importlib.import_module(f'lm4ve.compat.{repair}')
    assert file.is_needed(importlib.import_module(module)), (
        f'{module} was mended upstream: raise the lower bound of its version and '
        f'delete lm4ve/compat/{repair}.py'
    )


@pytest.mark.parametrize('repairs', compat.REPAIRS.values())
def test_a_repair_says_what_it_repairs_and_when_it_may_go(repairs):
    for repair in repairs:
        text = importlib.import_module(f'lm4ve.compat.{repair}').__doc__
        assert re.search(r'\d+\.\d+\.\d+', text) and 'ay go' in text, repair
