"""Every picture of the documentation is on a page, which names the command that drew it."""

import re

import pytest

from lm4ve.commands import COMMANDS
from tests.helpers.tasks import ROOT

IMAGES = ROOT / 'docs/images'
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md'))]
_PICTURE = re.compile(r'!\[[^\]]*\]\(([^)]*images/[^)]+)\)')
_DRAWN = re.compile(r'\b[Dd]rawn by `([^`]+)`')


def pictures_of(page):
    """Yield each picture of a page, and the text behind it."""
    text = page.read_text(encoding='utf-8')
    for found in _PICTURE.finditer(text):
        yield (page.parent / found[1]).resolve(), text[found.end() :]


def test_every_picture_is_on_a_page_and_every_page_has_its_pictures():
    shown = {picture for page in PAGES for picture, _ in pictures_of(page)}
    assert {path.resolve() for path in IMAGES.iterdir()} == shown


@pytest.mark.parametrize(
    'page', [p for p in PAGES if any(pictures_of(p))], ids=lambda p: p.stem
)
def test_a_page_names_the_command_of_each_picture(page):
    for picture, behind in pictures_of(page):
        if picture.suffix == '.svg':
            continue  # written by hand
        # The picture may stand in a table or above another one of the same command.
        paragraphs = [p for p in behind.split('\n\n') if p.strip()]
        drawn = _DRAWN.search('\n\n'.join(paragraphs[:3]))
        assert drawn, f'{picture.name}: no "Drawn by `COMMAND`" follows'
        words = drawn[1].split()
        if words[0] == 'lm4ve':
            assert words[1] in COMMANDS, drawn[1]
        else:
            assert words[0] == 'python', drawn[1]
            assert (ROOT / words[1]).is_file(), drawn[1]
        for word in words:
            if word.startswith(('configs/', 'projects/')):
                assert (ROOT / word).is_file(), word
