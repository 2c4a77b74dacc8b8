"""Write the tables of the documentation that are made from Python tables.

    python tools/dev/write_tables.py

A test fails while a page and the Python table differ.
"""

from pathlib import Path

from lm4ve.blocks.families.table import with_tables

PAGES = ('docs/guides/language_models.md',)


def main() -> None:
    root = Path(__file__).resolve().parents[2]
    for name in PAGES:
        page = root / name
        page.write_text(with_tables(page.read_text()))


if __name__ == '__main__':
    main()
