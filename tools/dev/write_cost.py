"""Write the tables of docs/results/cost.md and scaling.md: a step of each headline config.

python tools/dev/write_cost.py            # write it, in some minutes
python tools/dev/write_cost.py --check    # say whether it differs
"""

import argparse
import sys
from pathlib import Path

import lm4ve  # noqa: F401
from lm4ve.blocks.families.table import with_tables
from lm4ve.cost import report, scaling

ROOT = Path(__file__).resolve().parents[2]
#: Page -> the name of its table, and what makes it.
PAGES = {
    'docs/results/cost.md': (report.TABLE, report.page_table),
    'docs/results/scaling.md': (scaling.TABLE, scaling.page_table),
}


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--check', action='store_true', help='write nothing')
    check = parser.parse_args(args).check
    differ = []
    for name, (table, make) in PAGES.items():
        page = ROOT / name
        before = page.read_text(encoding='utf-8')
        after = with_tables(before, {table: lambda make=make: make(ROOT / 'configs')})
        if after != before:
            differ.append(name)
            if not check:
                page.write_text(after, encoding='utf-8')
    if differ and check:
        sys.exit(f'{", ".join(differ)}: run python tools/dev/write_cost.py')


if __name__ == '__main__':
    main()
