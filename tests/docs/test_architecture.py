"""The page on the architecture is true of the tree: paths, names, records and the picture."""

import importlib
import re
import runpy

import pytest

from tests.helpers.code_blocks import ROOT
from tests.helpers.import_order import ORDER

PAGE = ROOT / 'docs/extend/architecture.md'
PACKAGE = ROOT / 'projects/lm4ve'
DRAWING = runpy.run_path(str(ROOT / 'tools/dev/draw_architecture.py'))


def words_in_code() -> set[str]:
    """Return what stands between backticks, code blocks left out."""
    text = re.sub(r'^```.*?^```', '', PAGE.read_text(), flags=re.M | re.S)
    return set(re.findall(r'`([^`]+)`', text))


def paths() -> list[str]:
    is_path = re.compile(r'[\w.<>/-]+/[\w.<>-]*|\w+\.py')
    return sorted(word for word in words_in_code() if is_path.fullmatch(word))


def dotted_names() -> list[str]:
    is_name = re.compile(r'lm4ve(\.\w+)+')
    return sorted(word for word in words_in_code() if is_name.fullmatch(word))


@pytest.mark.parametrize('path', paths())
def test_every_path_exists(path):
    # A placeholder stands for any folder.
    pattern = re.sub(r'<\w+>', '*', path).rstrip('/')
    found = [*ROOT.glob(pattern), *PACKAGE.glob(pattern)]
    assert found
    if path.endswith('/'):
        assert any(place.is_dir() for place in found)


@pytest.mark.parametrize('name', dotted_names())
def test_every_name_exists(name):
    parts = name.split('.')
    found = importlib.import_module(parts[0])
    for i, part in enumerate(parts[1:], 2):
        if not hasattr(found, part):
            importlib.import_module('.'.join(parts[:i]))
        found = getattr(found, part)


def test_the_page_names_many_places():
    assert len(paths()) > 40
    assert len(dotted_names()) > 8


def test_the_picture_is_what_its_script_draws():
    drawn = ROOT / 'docs/images/architecture.svg'
    assert drawn.read_text(encoding='utf-8') == DRAWING['picture']()


def test_the_picture_shows_every_room_in_the_order_of_imports():
    rooms = []
    for names, _ in DRAWING['ROOMS']:
        rooms += names.split(', ')
    expected = [unit for unit in reversed(ORDER) if not unit.startswith('__')]
    tasks = [unit for unit in expected if re.fullmatch('tasks/(?!base)\\w+', unit)]
    first = expected.index(tasks[0])
    expected[first : first + len(tasks)] = ['tasks/<task>']
    assert rooms == expected


def test_the_contributing_page_gives_the_same_order():
    text = (ROOT / 'CONTRIBUTING.md').read_text()
    order = re.search(r'Imports go one way: `([^`]+)`', text)[1]
    rooms = [unit for unit in ORDER if '/' not in unit and not unit.startswith('__')]
    assert re.split(r'\s*<\s*', order) == rooms
