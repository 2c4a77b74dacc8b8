"""The README is the site's first page: a hook of MkDocs (mkdocs.yml)."""

import re
from pathlib import Path
from typing import Any

PLACE = '<!-- README.md stands here on the site -->'


def on_page_markdown(markdown: str, *, config: Any, **_: Any) -> str:
    """Put the README in its place, its links led to pages or to the repository."""
    if PLACE not in markdown:
        return markdown
    readme = (Path(config.config_file_path).parent / 'README.md').read_text('utf-8')
    _, _, below_title = readme.partition('\n')
    readme, _, _ = below_title.partition('## Documentation')

    def link(match: re.Match[str]) -> str:
        text, target = match.groups()
        if target.startswith(('http', 'docs/')):
            return f'[{text}]({target.removeprefix("docs/")})'
        if config.repo_url:
            return f'[{text}]({config.repo_url}/blob/main/{target})'
        return text

    linked = re.sub(r'\[([^\]]*)\]\(([^)\s]+)\)', link, readme)
    return markdown.replace(PLACE, linked)
