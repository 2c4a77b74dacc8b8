"""Write the tables of the documentation that are made from Python tables.

    python tools/dev/write_tables.py            # write them
    python tools/dev/write_tables.py --check    # name the pages that differ

A test fails while a page and the Python table differ.
"""

import argparse
import sys
from pathlib import Path

import family_table as families
from backbones import IMAGE_TABLES, VIDEO_TABLES

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    'docs/guides/language_models.md': families.TABLES,
    'docs/guides/backbones.md': IMAGE_TABLES,
    'docs/guides/action_recognition.md': VIDEO_TABLES,
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description='Write tables of the documentation.')
    parser.add_argument('--check', action='store_true', help='write nothing')
    check = parser.parse_args(argv).check
    differ = []
    for name, tables in PAGES.items():
        page = ROOT / name
        before = page.read_text(encoding='utf-8')
        after = families.with_tables(before, tables)
        if after != before:
            differ.append(name)
            if not check:
                page.write_text(after, encoding='utf-8')
    if check and differ:
        sys.exit(f'{", ".join(differ)}: run python tools/dev/write_tables.py')


if __name__ == '__main__':
    main()
