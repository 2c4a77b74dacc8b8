"""Writes the sheets, videos and numbers of a run into one HTML file that can be sent.

Pictures are embedded and nothing is fetched: no scripts, no style sheets, no fonts.
"""

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment
from PIL import Image

from lm4ve.analysis.points import meanings
from lm4ve.analysis.samples import Number
from lm4ve.analysis.sheets import number
from lm4ve.files import write_text

_TEMPLATE = Path(__file__).with_name('page.html')


@dataclass
class Entry:
    """A sample on the page.

    Attributes:
        name (str): Its heading.
        sheet (Path): PNG.
        movie_file (Path, optional): MP4.
        facts (dict[str, str]): Prediction, truth.
        numbers (list[Number]): The rows of its table.
        heading (int): So many rows of the sheet's pixels hold its own heading, which
            the page leaves out: it says the same in words.
    """

    name: str
    sheet: Path
    movie_file: Path | None = None
    facts: dict[str, str] = field(default_factory=dict)
    numbers: list[Number] = field(default_factory=list)
    heading: int = 0

    @property
    def picture(self) -> str:
        """Return the PNG in base64."""
        with Image.open(self.sheet) as whole, io.BytesIO() as buffer:
            whole.crop((0, self.heading, *whole.size)).save(buffer, 'PNG', optimize=True)
            return base64.b64encode(buffer.getvalue()).decode()

    @property
    def movie(self) -> str:
        """Return the MP4 in base64, an empty text if there is none."""
        if self.movie_file is None:
            return ''
        return base64.b64encode(self.movie_file.read_bytes()).decode()


def write_page(path: str | Path, title: str, facts: dict[str, str], entries: list[Entry]) -> None:
    """Write a page of samples.

    Args:
        path (str | Path): The HTML file.
        title (str): Its heading.
        facts (dict[str, str]): What is said of the run: its command, its config, ...
        entries (list[Entry]): The samples. Names and facts are escaped.
    """
    environment = Environment(autoescape=True)
    environment.filters['number'] = number
    explained = meanings({n.label: n.module for e in entries for n in e.numbers})
    text = environment.from_string(_TEMPLATE.read_text()).render(
        title=title, facts=facts, entries=entries, meanings=explained
    )
    write_text(text, path)
