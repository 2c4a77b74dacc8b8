"""The page of costs has a row for each headline config, and a row that is made anew is equal."""

from lm4ve.cost.report import TABLE, page_rows, page_table, page_with_table
from tests.helpers.tasks import CONFIGS, ROOT

PAGE = (ROOT / 'docs/results/cost.md').read_text()


def test_every_headline_config_is_there_and_in_the_page():
    rows = page_rows()
    assert all((CONFIGS / row.config).is_file() for row in rows)
    assert all(f'| `{row.config}` |' in PAGE for row in rows)
    assert page_with_table(PAGE, lambda: 'nothing').count('`vision_language/') == 0
    assert TABLE in PAGE


def test_a_row_is_what_the_tool_writes_now():
    """All rows take minutes: python tools/dev/write_cost.py --check."""
    one = [row for row in page_rows() if row.config == 'motion/vectornet_llama_argoverse1.py']
    assert page_table(CONFIGS, one).splitlines()[-1] in PAGE.splitlines()
