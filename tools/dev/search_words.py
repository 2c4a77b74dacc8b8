"""The site's search keeps words with digits apart: a hook of MkDocs (mkdocs.yml).

lunr, the library of the theme's search, merges nodes of its tree of words that have the same key.
A key has, for each edge of its node, the edge's letter and the number of the node it leads to, with
nothing behind the number. So a digit that is a letter can be read as a part of a number: then
different words are merged, and a search for their beginning fails. Here a comma ends each number.
"""

from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

#: In the theme's script: a letter and a number are added to a key, which is returned.
KEY = 'e=e+s+o.id}return e'


def on_post_build(*, config: Any, **_: Any) -> None:
    """Correct the key in the theme's script."""
    (script,) = Path(config.site_dir, 'assets/javascripts/workers').glob('search.*.js')
    code = script.read_text('utf-8')
    if code.count(KEY) != 1:
        raise PluginError(f"'{KEY}' is not in {script.name}: see {Path(__file__).name}")
    corrected = KEY.replace('o.id', "o.id+','")
    script.write_text(code.replace(KEY, corrected), 'utf-8')
