"""Write the tables of docs/results/cost.md and scaling.md: a step of each headline config.

python tools/dev/write_cost.py            # write it, in some minutes
python tools/dev/write_cost.py --check    # say whether it differs
"""

from functools import partial

from write_tables import ROOT, write_pages

import lm4ve  # noqa: F401
from lm4ve.cost import report, scaling

PAGES = {
    'docs/results/cost.md': {report.TABLE: partial(report.page_table, ROOT / 'configs')},
    'docs/results/scaling.md': {scaling.TABLE: partial(scaling.page_table, ROOT / 'configs')},
}


def main(args: list[str] | None = None) -> None:
    write_pages(PAGES, __file__, args)


if __name__ == '__main__':
    main()
