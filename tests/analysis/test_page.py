"""The page of a run shows every name as text and fetches nothing."""

import base64
import io
import re
from html.parser import HTMLParser

from PIL import Image

from lm4ve.analysis.page import Entry, write_page
from lm4ve.analysis.samples import Number


class Links(HTMLParser):
    """What a page would fetch, and which elements it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links, self.tags, self.words = [], set(), ''
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [v for k, v in attrs if k in ('src', 'href', 'srcset', 'data', 'poster')]

    def handle_data(self, data):
        self.words += data


def test_a_page_fetches_nothing_and_escapes_names(tmp_path):
    sheet = tmp_path / 'sheet.png'
    Image.new('RGB', (4, 4), 'red').save(sheet)
    name = '<script>alert("1")</script> & co'
    entries = [
        Entry(
            name,
            sheet,
            sheet,
            {'prediction': '<b>cat</b>'},
            [Number('magnitude', '<i>', 'neck', 12345.6, 0.00012)],
        )
    ] * 2
    write_page(tmp_path / 'index.html', 'Title', dict(command='tool <x>'), entries)
    text = (tmp_path / 'index.html').read_text()
    page = Links(text)
    assert not {'script', 'link', 'i', 'iframe'} & page.tags
    assert '://' not in text and 'url(' not in text
    assert all(
        u.startswith(('data:image/png;base64,', 'data:video/mp4;base64,', '#s')) for u in page.links
    )
    assert sum(u.startswith('data:') for u in page.links) == 4
    for words in (name, '<b>cat</b>', 'tool <x>', '1.2e4', '1.2e-4', '<i>'):
        assert words in page.words


def long_page(folder):
    sheet = folder / 'sheet.png'
    image = Image.new('RGB', (1300, 900), 'white')
    image.paste('red', (0, 0, 1300, 80))  # the sheet's own heading
    image.save(sheet)
    rows = [
        Number('attention entropy (at most 4.16 nats)', label, f'neck.{module}', 1.0, 2.0)
        for label, module in (('mapped', 'mapper_in'), ('block', 'block'))
    ]
    entry = Entry('sample', sheet, None, dict(prediction='1 (93.0 %)'), rows, heading=80)
    facts = dict(command=f'lm4ve visualize {"long/" * 60}config.py')
    write_page(folder / 'index.html', f'Activations of {"x" * 90}', facts, [entry])
    return (folder / 'index.html').read_text()


def test_a_page_crops_headings_and_explains_labels(tmp_path):
    text = long_page(tmp_path)
    packed = re.search(r'data:image/png;base64,([^"]+)', text)[1]
    shown = Image.open(io.BytesIO(base64.b64decode(packed)))
    assert shown.size == (1300, 820) and len(shown.convert('RGB').getcolors()) == 1
    assert Image.open(tmp_path / 'sheet.png').size == (1300, 900)  # it stands alone too
    assert "behind the language model's block" in Links(text).words


def test_wide_elements_scroll_by_themselves(tmp_path):
    text = long_page(tmp_path)
    assert re.search(r'\.scroll {[^}]*overflow-x: auto', text)
    assert not re.search(r'(?<!<div class="scroll">)<(img|table)\b', text)
