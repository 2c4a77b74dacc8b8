"""Write docs/results/recipes.md: our recipes beside the released ones.

    python tools/dev/recipes.py           # write the page
    python tools/dev/recipes.py --check   # say whether it differs

Each section is a file ``docs/results/recipes/*.toml``. It has the released values, each
with the line that gives it and words of that line. A release stays at its commit, so these
are fixed texts. Beside each of them is a template of ours
(``tools/dev/recipe_values.py``), which is filled from the shipped config. Where the two
texts are not equal, the row has to say why.
"""

import argparse
import re
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from mmengine.logging import MMLogger
from recipe_values import Recipe, fill, places_in

from lm4ve.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / 'docs/results/recipes.md'
DATA = ROOT / 'docs/results/recipes'
START = '<!-- made by tools/dev/recipes.py -->'
END = '<!-- end of it -->'
_SOURCE = re.compile(
    r'(?:(?P<release>[\w-]+): )?(?P<path>[^\s:]+):(?P<line>\d+) (?P<quote>.+)'
)
#: The files of the sections, in the order of the page.
SECTIONS = (
    'images',
    'video',
    'clouds',
    'motion',
    'vqa',
    'retrieval',
    'sqa3d',
    'llm4seg',
    'llmboostmedical-2d',
    'llmboostmedical-3d',
    'medvisionllama',
    'luvit',
    'pangumotion',
)


@dataclass(frozen=True)
class Release:
    """A repository at a commit.

    Attributes:
        repository (str): 'owner/name' at GitHub.
        commit (str): Its full name; '' where it is not known.
        root (str): The folder that the section's files lie in, with a final '/'.
        checked (bool): Whether its files can be had. Otherwise quotes are descriptions,
            without a link.
    """

    repository: str
    commit: str = ''
    root: str = ''
    checked: bool = True

    def link(self, file: str, line: int) -> str:
        """Return the address of a line."""
        return f'https://github.com/{self.repository}/blob/{self.commit}/{file}#L{line}'


@dataclass(frozen=True)
class Source:
    """Where a released value stands.

    Attributes:
        text (str): A place without a file, as 'the paper, C.2'; '' for a line of code.
        release (str): The key of a release.
        file (str): Of that release, from its root.
        line (int): From 1.
        quote (str): Words of that line.
    """

    text: str = ''
    release: str = ''
    file: str = ''
    line: int = 0
    quote: str = ''


@dataclass(frozen=True)
class Row:
    """A value of a recipe.

    Attributes:
        what (str): Its name.
        released (str): The released value.
        ours (str): The template of ours.
        at (list[Source]): Where the released value stands.
        why (str): Why ours differs; '' where it does not.
        note (str): What else a reader has to know.
        synonyms (dict[str, str]): Our values that mean the same as the released words.
        config (str): The config of ours; '' for the section's.
    """

    what: str
    released: str
    ours: str
    at: list[Source]
    why: str = ''
    note: str = ''
    synonyms: dict[str, str] = field(default_factory=dict)
    config: str = ''


@dataclass(frozen=True)
class Section:
    """The recipe of a task.

    Attributes:
        name (str): Of its file.
        title (str): Its heading.
        config (str): Our config, from the root.
        intro (str): Sentences before the table.
        releases (dict[str, Release]): By a short key.
        rows (list[Row]): The table.
    """

    name: str
    title: str
    config: str
    intro: str
    releases: dict[str, Release]
    rows: list[Row] = field(default_factory=list)


# ----------------------------------------------------------------------------------
# reading
def read_section(name: str) -> Section:
    """Read a section's file.

    Raises:
        UserError: A field is unknown or missing, or a source names an unknown release.
    """
    path = DATA / f'{name}.toml'
    content = tomllib.loads(path.read_text(encoding='utf-8'))
    releases = {key: Release(**each) for key, each in content['releases'].items()}
    rows = [_read_row(each, releases, path.name) for each in content['row']]
    return Section(
        name=name,
        title=content['title'],
        config=content['config'],
        intro=content.get('intro', ''),
        releases=releases,
        rows=rows,
    )


def _read_row(content: dict[str, Any], releases: dict[str, Release], file: str) -> Row:
    """Build a row.

    Raises:
        UserError: A field is unknown or missing.
    """
    what = content.get('what')
    sources = [_read_source(text, releases, file) for text in content.pop('at', [])]
    try:
        row = Row(at=sources, **content)
    except TypeError as e:
        raise UserError(f"{file}, row '{what}': {e}.") from None
    if not sources or not places_in(row.ours):
        raise UserError(
            f"{file}, row '{what}': no source in 'at', or no value in 'ours'."
        )
    return row


def _read_source(text: str, releases: dict[str, Release], file: str) -> Source:
    """Read '[release:] path:line quote'; without a release it is of the first one.

    Raises:
        UserError: The text is no such place, and does not begin with 'the paper'.
    """
    if text.startswith('the paper'):
        return Source(text=text)
    match = _SOURCE.fullmatch(text)
    if match is None:
        raise UserError(f"{file}: '{text}' is not '[release:] path:line quote'.")
    key = match['release'] or next(iter(releases))
    if key not in releases:
        raise UserError(f"{file}: '{text}' names no release of the file.")
    path = releases[key].root + match['path']
    line = int(match['line'])
    return Source('', key, path, line, match['quote'])


def read_sections() -> list[Section]:
    """Read the sections in the order of the page.

    Raises:
        UserError: A file of :data:`DATA` is not listed in :data:`SECTIONS`.
    """
    unlisted = {path.stem for path in DATA.glob('*.toml')} - set(SECTIONS)
    if unlisted:
        raise UserError(f'Not in SECTIONS of tools/dev/recipes.py: {sorted(unlisted)}.')
    return [read_section(name) for name in SECTIONS]


# ----------------------------------------------------------------------------------
# the page
@cache
def recipe_of(config: str) -> Recipe:
    """Return a config's recipe; what it builds is built once."""
    return Recipe(config)


def our_value(section: Section, row: Row) -> str:
    """Return our value of a row.

    Raises:
        UserError: It differs from the released one, and the row does not say why; or it
            does not, and the row says why all the same.
    """
    recipe = recipe_of(row.config or section.config)
    try:
        value = fill(recipe, row.ours, row.synonyms)
    except UserError as e:
        raise UserError(f"{section.name}.toml, row '{row.what}': {e}") from e
    if (value == row.released) == bool(row.why):
        raise UserError(
            f"{section.name}.toml, row '{row.what}': released '{row.released}', ours "
            f"'{value}'. A row has a 'why' where these differ, and nowhere else."
        )
    return value


def table_of(section: Section) -> str:
    """Return a section as Markdown: heading, intro, table."""
    lines = [f'## {section.title}', '']
    lines.append(f'Ours: `{section.config}`. Released: {_releases(section)}.')
    if section.intro:
        lines += ['', section.intro.strip()]
    lines += ['', '| | released | ours |', '|---|---|---|']
    for row in section.rows:
        ours = our_value(section, row)
        if row.why:
            ours = f'**{ours}**<br>{row.why}'
        if row.note:
            ours = f'{ours}<br>{row.note}'
        sources = '<br>'.join(_source(section, each) for each in row.at)
        cells = [row.what, f'{row.released}<br>{sources}', ours]
        lines.append(f'| {" | ".join(_cell(text) for text in cells)} |')
    return '\n'.join(lines)


def faults_of(section: Section) -> list[str]:
    """Return what is wrong with the rows of a section; see :func:`our_value`."""
    faults = []
    for row in section.rows:
        try:
            our_value(section, row)
        except UserError as e:
            faults.append(str(e))
    return faults


def _releases(section: Section) -> str:
    """Name the releases with their commits, as links."""
    names = []
    for release in section.releases.values():
        if not release.checked:
            names.append(f'{release.repository}, described, since it cannot be had')
            continue
        address = f'https://github.com/{release.repository}/tree/{release.commit}'
        names.append(f'[{release.repository}]({address}) at `{release.commit[:8]}`')
    return ', '.join(names)


def _source(section: Section, source: Source) -> str:
    """Return a source as a link to its line, with the quote."""
    if source.text:
        return source.text
    release = section.releases[source.release]
    place = f'{Path(source.file).name}:{source.line}'
    if not release.checked:
        return f'{release.repository} {place}: {source.quote}'
    link = release.link(source.file, source.line)
    return f'[{place}]({link}) `{source.quote}`'


def _cell(text: str) -> str:
    """Keep a text within its cell."""
    return text.strip().replace('|', '\\|')


def page_text(sections: Sequence[Section]) -> str:
    """Return the page with the sections between its two marks."""
    text = PAGE.read_text(encoding='utf-8')
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    tables = '\n\n'.join(table_of(section) for section in sections)
    return f'{before}{START}\n\n{tables}\n\n{END}{after}'


def main(arguments: Sequence[str] | None = None) -> None:
    try:
        run(arguments)
    except UserError as e:
        sys.exit(str(e))


def run(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line asks for; exit with what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--check', action='store_true', help='write nothing')
    args = parser.parse_args(arguments)
    MMLogger.get_instance('mmengine', log_level='ERROR')
    sections = read_sections()
    faults = []
    for section in sections:
        faults += faults_of(section)
    if faults:
        sys.exit('\n'.join(faults))
    text = page_text(sections)
    if not args.check:
        PAGE.write_text(text, encoding='utf-8')
    elif PAGE.read_text(encoding='utf-8') != text:
        sys.exit(f'{PAGE.name} differs. Fix: python tools/dev/recipes.py')


if __name__ == '__main__':
    main()
