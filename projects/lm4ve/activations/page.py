"""One HTML page a run: sheets, videos and numbers, in one file that can be sent.

Pictures are embedded and nothing is fetched: no scripts, no style sheets, no fonts.
"""

import base64
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment

from lm4ve.activations.samples import Number
from lm4ve.activations.sheets import number
from lm4ve.engine.files import write_text

_TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font: 14px/1.45 system-ui, sans-serif; color: #222; margin: 2em auto;
       max-width: 1240px; padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin: 2.2em 0 .4em;
     border-top: 1px solid #ccc; padding-top: 1em; }
img, video { max-width: 100%; display: block; margin: .6em 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums;
        margin: .6em 0; }
th, td { padding: .15em .8em .15em 0; text-align: left; white-space: nowrap; }
th { border-bottom: 1px solid #999; } td.n { text-align: right; }
code { font-size: .92em; overflow-wrap: anywhere; }
nav a { margin-right: 1em; } dt { float: left; clear: left; width: 8em;
        color: #666; } dd { margin-left: 8.5em; }
figure { margin: 0; } figcaption { color: #666; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<dl>
{%- for key, value in facts.items() %}
<dt>{{ key }}</dt><dd><code>{{ value }}</code></dd>
{%- endfor %}
</dl>
<p>Magnitude: distance of a token from the mean token (L2 over channels). Frequency:
distance of the phases of its spectrum over channels from their mean over tokens (L2,
radians). Attention: of the row that its heading names. Colours run from a panel's
smallest to its largest value; the numbers are not normalised and compare points of
one width only.</p>
{%- if entries|length > 1 %}
<nav>
{%- for entry in entries %}
<a href="#s{{ loop.index }}">{{ entry.name }}</a>
{%- endfor %}
</nav>
{%- endif %}
{%- for entry in entries %}
<h2 id="s{{ loop.index }}">{{ entry.name }}</h2>
<p>
{%- for key, value in entry.facts.items() %}
{{ key }}: <b>{{ value }}</b>{% if not loop.last %},{% endif %}
{%- endfor %}
</p>
<img src="data:image/png;base64,{{ entry.picture }}" alt="sheet of {{ entry.name }}">
{%- if entry.movie %}
<figure><video src="data:video/mp4;base64,{{ entry.movie }}" controls loop muted
></video><figcaption>All frames, scales of the whole clip</figcaption></figure>
{%- endif %}
<table>
<tr><th>quantity</th><th>point</th><th>module</th><th>mean</th><th>largest</th></tr>
{%- for row in entry.numbers %}
<tr><td>{{ row.quantity }}</td><td>{{ row.label }}</td>
<td><code>{{ row.module }}</code></td><td class="n">{{ row.mean|number }}</td>
<td class="n">{{ row.largest|number }}</td></tr>
{%- endfor %}
</table>
{%- endfor %}
</body>
</html>
"""


@dataclass
class Entry:
    """A sample on the page.

    Attributes:
        name (str): Its heading.
        sheet (Path): PNG.
        movie_file (Path, optional): MP4.
        facts (dict[str, str]): Prediction, truth.
        numbers (list[Number]): The table; of attention, over heads.
    """

    name: str
    sheet: Path
    movie_file: Path | None = None
    facts: dict[str, str] = field(default_factory=dict)
    numbers: list[Number] = field(default_factory=list)

    @property
    def picture(self) -> str:
        """The PNG in base64."""
        return _base64(self.sheet)

    @property
    def movie(self) -> str:
        """The MP4 in base64, empty if there is none."""
        return '' if self.movie_file is None else _base64(self.movie_file)


def write_page(path: str | Path, title: str, facts: dict[str, str], entries: list[Entry]) -> None:
    """Write a page.

    Args:
        path (str | Path): The HTML file.
        title (str): Its heading.
        facts (dict[str, str]): What is said of the run: command, config, ...
        entries (list[Entry]): The samples. Names and facts may hold anything: they
            are escaped.
    """
    environment = Environment(autoescape=True)
    environment.filters['number'] = number
    text = environment.from_string(_TEMPLATE).render(title=title, facts=facts, entries=entries)
    write_text(text, path)


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
