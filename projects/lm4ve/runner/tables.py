"""Tables on the screen."""

from collections.abc import Collection, Mapping, Sequence

from rich.console import JustifyMethod
from rich.markup import escape
from rich.table import Table

from lm4ve.runner.rich_console import Console

#: Columns of text that a table may take where there is no terminal, or a narrow one, so
#: that nothing is cut.
_WIDTH = 170


def print_table(
    title: str,
    rows: Sequence[Mapping[str, str]],
    caption: str | None = None,
    console: Console | None = None,
    texts: Collection[str] = (),
    width: int | None = None,
) -> None:
    """Print rows under the names of the first row's columns, numbers to the right.

    Args:
        title (str): What stands above.
        rows (Sequence[Mapping[str, str]]): Cells by column; the first cell is a name.
        caption (str, optional): What stands below.
        console (Console, optional): Where to print. Default: the standard output.
        texts (Collection[str]): Columns of texts, to the left.
        width (int, optional): Columns of text that the table keeps to, by wrapping long
            cells. Default: the console's, or more where that is narrow.
    """
    if console is None:
        console = Console()
    table = Table(title=escape(title))
    if caption is not None:
        table.caption = escape(caption)
    name, *others = rows[0]
    table.add_column(escape(name), overflow='fold')  # a name is not cut
    for column in others:
        justify: JustifyMethod = 'left' if column in texts else 'right'
        table.add_column(escape(column), justify=justify)
    for row in rows:
        table.add_row(*[escape(cell) for cell in row.values()])
    if width is None:
        width = max(console.width, _WIDTH)
    Console(file=console.file, width=width).print(table)
