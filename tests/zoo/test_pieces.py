"""A piece below a folder ``_base_`` acts in every config that inherits it.

A variable that a config would have to assign to its model can be forgotten: the config
would train another model than its bases say.
"""

import ast
import re

import pytest
from mmengine.config import Config

from lm4ve.runner.config.fields import FIELDS
from tests.helpers.tasks import CONFIG_ROOTS

PIECES = sorted(p for root in CONFIG_ROOTS for p in (root / '_base_').rglob('*.py'))
#: For configs of one's own, as docs/guides/point_clouds.md shows it.
FOR_USERS = {'released_rates'}


@pytest.fixture(scope='module')
def inherited_names() -> set[str]:
    """The names that configs read from the files that they inherit."""
    names = set()
    for path in (path for root in CONFIG_ROOTS for path in root.rglob('*.py')):
        text = path.read_text()
        code = '\n'.join(line.partition('#')[0] for line in text.splitlines())
        names |= set(re.findall(r"""_base_(?:\.|\[['"])(\w+)""", code))
    return names


@pytest.mark.parametrize('path', PIECES, ids=lambda path: path.name)
def test_a_piece_defines_nothing_that_no_file_reads(path, inherited_names):
    read = inherited_names | FIELDS | FOR_USERS
    assigned = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Name):
            continue
        if isinstance(node.ctx, ast.Load):
            read.add(node.id)
        else:
            assigned.add(node.id)
    assert assigned - {'_base_'} <= read


@pytest.mark.parametrize('path', PIECES, ids=lambda path: path.name)
def test_a_piece_has_its_block_in_the_model(path):
    cfg = Config.fromfile(path, import_custom_modules=False)
    with_block = {name for name, value in cfg.items() if 'LLMBlock' in repr(value)}
    assert with_block <= {'model'}
