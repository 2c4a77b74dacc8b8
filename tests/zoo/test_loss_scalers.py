"""Recipes without a loss scaler have no float16 block, in which small gradients are zero."""

import re

import pytest

from tests.helpers.golden import Store
from tests.helpers.tasks import FOLDERS

FLOAT16 = re.compile(r"^model\..*\bblock\.dtype: 'float16'$", re.M)
SCALER = "optim_wrapper.type: 'AmpOptimWrapper'"


@pytest.mark.parametrize('task', FOLDERS)
def test_only_recipes_with_a_scaler_have_float16_blocks(task):
    """Read in the stored, resolved configs, which test_golden.py keeps true."""
    store = Store(task)
    for name in store.names():
        config = store.read(name).config
        if SCALER not in config:
            assert not FLOAT16.search('\n'.join(config)), name
