"""What an HTML page links to and shows."""

from html.parser import HTMLParser


class Links(HTMLParser):
    """Addresses that a page would fetch, its elements and its words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links, self.tags, self.words = [], set(), ''
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [
            v for k, v in attrs if k in ('src', 'href', 'srcset', 'data', 'poster')
        ]

    def handle_data(self, data):
        self.words += data
