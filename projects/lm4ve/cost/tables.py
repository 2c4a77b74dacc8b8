"""Tables on the screen."""

from collections.abc import Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from lm4ve.runner.rich_console import Console


def print_table(title: str, rows: Sequence[Mapping[str, str]]) -> None:
    """Print rows under the names of the first row's columns, numbers to the right.

    Args:
        title (str): What stands above.
        rows (Sequence[Mapping[str, str]]): Cells by column; the first cell is a name.
    """
    table = Table(title=escape(title))
    for i, column in enumerate(rows[0]):
        table.add_column(escape(column), justify='right' if i else 'left')
    for row in rows:
        table.add_row(*map(escape, row.values()))
    # A fixed width, so that nothing is cut where there is no terminal.
    Console(width=120).print(table)
