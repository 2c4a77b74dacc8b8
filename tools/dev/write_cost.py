"""Write the table of docs/results/cost.md: a training step of each headline config.

python tools/dev/write_cost.py            # write it, in some minutes
python tools/dev/write_cost.py --check    # say whether it differs
"""

import argparse
import sys
from pathlib import Path

import lm4ve  # noqa: F401
from lm4ve.cost.report import page_table, page_with_table

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / 'docs/results/cost.md'


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--check', action='store_true', help='write nothing')
    check = parser.parse_args(args).check
    before = PAGE.read_text(encoding='utf-8')
    after = page_with_table(before, lambda: page_table(ROOT / 'configs'))
    if after != before and check:
        sys.exit('docs/results/cost.md: run python tools/dev/write_cost.py')
    if after != before:
        PAGE.write_text(after, encoding='utf-8')


if __name__ == '__main__':
    main()
