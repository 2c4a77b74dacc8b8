"""The site's search keeps words with digits apart: a hook of MkDocs (mkdocs.yml).

lunr, in the theme's search, merges the ends of words that have the same key. Its key writes a
letter and the number of a node behind each other, so that a digit as letter can be read as a part
of the number. Then words are merged that differ, and a search whose beginning they have finds
nothing. Here each number ends with a comma.
"""

from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

KEY = 'e=e+s+o.id}return e'


def on_post_build(*, config: Any, **_: Any) -> None:
    """Correct the key in the theme's script."""
    (script,) = Path(config.site_dir, 'assets/javascripts/workers').glob('search.*.js')
    code = script.read_text('utf-8')
    if code.count(KEY) != 1:
        raise PluginError(f"'{KEY}' is not in {script.name}: see {Path(__file__).name}")
    corrected = KEY.replace('o.id', "o.id+','")
    script.write_text(code.replace(KEY, corrected), 'utf-8')
