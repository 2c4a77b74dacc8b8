"""The site's search shows pages for beginners first: a hook of MkDocs (mkdocs.yml).

Generated pages hold every word many times, so that they would come before the page that
explains it.
"""

from typing import Any

#: Folder of pages, or a page -> the factor of their scores in the search.
BOOSTS = {
    'get_started': 2.0,
    'guides/wishes.md': 4.0,
    'results': 0.5,
    'reference': 0.01,
}


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Set the boost of a page as its front matter could, which GitHub would show."""
    path = page.file.src_uri
    folder, _, _ = path.partition('/')
    boost = BOOSTS.get(path, BOOSTS.get(folder))
    if boost is not None:
        page.meta['search'] = dict(boost=boost)
    return markdown
