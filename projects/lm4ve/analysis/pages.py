"""Pages of a run's sheets and numbers: one HTML file that can be sent.

Pictures are embedded and nothing is fetched, neither scripts nor style sheets nor
fonts.
"""

import base64
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader

from lm4ve.analysis.samples import Sample
from lm4ve.files import write_text


class PageEntry(NamedTuple):
    """A sample on the page, the PNG of its sheet, and the MP4 of a clip."""

    sample: Sample
    sheet: Path
    movie: Path | None = None


def write_page(
    path: str | Path, title: str, facts: dict[str, str], entries: list[PageEntry]
) -> None:
    """Write a page of samples.

    Args:
        path (str | Path): The HTML file.
        title (str): Its heading.
        facts (dict[str, str]): Facts of the run: its command, its config, ...
        entries (list[PageEntry]): The samples. Names and facts are escaped.
    """
    template = Path(__file__).with_name('activations.html')
    render_page(template, path, title=title, facts=facts, entries=entries)


def render_page(template: Path, path: str | Path, **values: Any) -> None:
    """Write a page from a template that extends this folder's ``page.html``.

    Texts are escaped where the template inserts them. Its filter ``base64`` turns the
    path of a file into the file's content, which embeds a picture in the page.

    Args:
        template (Path): A Jinja template, in any folder.
        path (str | Path): The HTML file to write.
        **values: The template's variables.
    """
    loader = FileSystemLoader([template.parent, Path(__file__).parent])
    environment = Environment(autoescape=True, loader=loader)
    environment.filters['base64'] = _encode_file
    text = environment.get_template(template.name).render(values)
    write_text(text, path)


def _encode_file(file: Path) -> str:
    """Return a file's content in base64, as an HTML page embeds it."""
    return base64.b64encode(file.read_bytes()).decode()
