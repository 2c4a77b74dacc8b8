"""Every name of the code before the redesign works or is answered with its new one.

``names.json`` lists the types, import paths, configs and commands that there were.
How a command of a moved tool runs is tested in ``tests/tools/test_moved.py``, what a
moved config is answered with in ``tests/zoo/test_moved_configs.py``.
"""

import importlib
import json
import sys

import pytest
from mmengine import registry

import lm4ve  # noqa: F401
from lm4ve.zoo.moved_configs import where_it_went
from tests.helpers.tasks import CONFIGS, ROOT

for package in ('mmpretrain', 'mmaction', 'pandas', 'matplotlib'):
    pytest.importorskip(package)

NAMES = json.loads((ROOT / 'tests/data/before_redesign/names.json').read_text())
#: What a config names without a scope.
IN_ROOT = ('LLMBlock', 'LLMBlockInsert', 'LLMBlockNeck', 'MLPBlock')


@pytest.mark.parametrize('kind', NAMES['types'])
def test_every_type_is_found_in_mmengine_s_registries(kind):
    parent = getattr(registry, kind)
    for name in NAMES['types'][kind]:
        assert parent.get(name if name in IN_ROOT else f'lm4ve.{name}'), name


@pytest.mark.parametrize('module', NAMES['modules'])
@pytest.mark.filterwarnings('ignore::DeprecationWarning')
def test_every_module_is_imported_by_its_old_path(module):
    assert importlib.import_module(module)


@pytest.mark.parametrize('package', NAMES['exports'])
@pytest.mark.filterwarnings('ignore::DeprecationWarning')
def test_every_package_offers_what_it_did(package):
    for name in NAMES['exports'][package]:
        exec(f'from {package} import {name}', {})


def test_an_old_path_names_the_new_one():
    sys.modules.pop('lm4ve.video.lists', None)
    with pytest.warns(DeprecationWarning, match=r'is now lm4ve.tasks.video.datasets.list_conv'):
        module = importlib.import_module('lm4ve.video.lists')
    assert module.read_ssv2


def test_every_config_is_there_or_answered():
    gone = [name for name in NAMES['configs'] if not (CONFIGS / name).is_file()]
    assert not [name for name in gone if not where_it_went(CONFIGS / name)]


def test_every_command_is_there():
    assert not [name for name in NAMES['tools'] if not (ROOT / 'tools' / name).is_file()]
