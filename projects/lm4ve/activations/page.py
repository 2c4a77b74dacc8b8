"""Writes the sheets, videos and numbers of a run into one HTML file that can be sent.

Pictures are embedded and nothing is fetched: no scripts, no style sheets, no fonts.
"""

import base64
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment

from lm4ve.activations.samples import Number
from lm4ve.activations.sheets import number
from lm4ve.engine.files import write_text

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
    """

    name: str
    sheet: Path
    movie_file: Path | None = None
    facts: dict[str, str] = field(default_factory=dict)
    numbers: list[Number] = field(default_factory=list)

    @property
    def picture(self) -> str:
        """Return the PNG in base64."""
        return _base64(self.sheet)

    @property
    def movie(self) -> str:
        """Return the MP4 in base64, an empty text if there is none."""
        return '' if self.movie_file is None else _base64(self.movie_file)


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
    text = environment.from_string(_TEMPLATE.read_text()).render(
        title=title, facts=facts, entries=entries
    )
    write_text(text, path)


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
