"""The page of a run shows every name as text and fetches nothing."""

from html.parser import HTMLParser

from PIL import Image

from lm4ve.activations.page import Entry, write_page
from lm4ve.activations.samples import Number


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
