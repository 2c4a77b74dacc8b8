"""Write the tables of the documentation that are made from Python tables.

    python tools/dev/write_tables.py            # write them
    python tools/dev/write_tables.py --check    # name the pages that differ

A test fails while a page and the Python table differ.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import family_table as families
from backbones import IMAGE_TABLES, VIDEO_TABLES

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    'docs/guides/language_models.md': families.TABLES,
    'docs/guides/backbones.md': IMAGE_TABLES,
    'docs/guides/action_recognition.md': VIDEO_TABLES,
}


def write_pages(
    pages: Mapping[str, Mapping[str, Callable[[], str]]], tool: str, args: list[str] | None
) -> None:
    """Write the tables of some pages, or with ``--check`` end with the names of those that differ.

    Args:
        pages (Mapping): Page, from the root of the project -> name of a table -> what makes it.
        tool (str): The file whose command this is.
        args (list[str], optional): The command's arguments. Default: those of the process.
    """
    parser = argparse.ArgumentParser(description='Write tables of the documentation.')
    parser.add_argument('--check', action='store_true', help='write nothing')
    check = parser.parse_args(args).check
    differ = []
    for name, tables in pages.items():
        page = ROOT / name
        before = page.read_text(encoding='utf-8')
        after = families.with_tables(before, tables)
        if after != before:
            differ.append(name)
            if not check:
                page.write_text(after, encoding='utf-8')
    if check and differ:
        sys.exit(f'{", ".join(differ)}: run python {Path(tool).resolve().relative_to(ROOT)}')


def main(args: list[str] | None = None) -> None:
    write_pages(PAGES, __file__, args)


if __name__ == '__main__':
    main()
