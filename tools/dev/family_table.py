"""The tables of language model families in docs/guides/language_models.md, made from the specs.

``python tools/dev/write_tables.py`` writes them between their markers; a test compares.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from lm4ve.blocks.families import FAMILIES, REFUSED, WRAPPERS
from lm4ve.blocks.families.decoders import DECODERS
from lm4ve.blocks.families.encoders import ENCODERS
from lm4ve.blocks.families.hybrids import HYBRIDS

START = '<!-- made by tools/dev/write_tables.py: {} -->'
END = '<!-- end of {} -->'


def supported_table() -> str:
    """Return the Markdown table of families that blocks can be made of."""
    kinds = [('decoders', DECODERS), ('encoders', ENCODERS), ('hybrids and mixtures', HYBRIDS)]
    rows = [f'| {name} ({len(table)}) | {_names(table)} |' for name, table in kinds]
    wrapped = defaultdict(list)
    for wrapper, family in WRAPPERS.items():
        wrapped[family].append(wrapper)
    inside = '; '.join(f'{_names(w)} ({family})' for family, w in sorted(wrapped.items()))
    head = f'| kind | `model_type`: {len(FAMILIES)} families and {len(WRAPPERS)} wrappers |'
    return '\n'.join([head, '|---|---|', *rows, f'| text part of ({len(WRAPPERS)}) | {inside} |'])


def refused_table() -> str:
    """Return the Markdown table of families that are refused by name, with the reason."""
    reasons = defaultdict(list)
    for kind, reason in REFUSED.items():
        reasons[reason].append(kind)
    rows = [f'| {_names(kinds)} | {reason} |' for reason, kinds in reasons.items()]
    return '\n'.join(['| `model_type` | why |', '|---|---|', *rows])


def with_tables(page: str, tables: Mapping[str, Callable[[], str]] | None = None) -> str:
    """Return a Markdown page with the tables between their markers made anew.

    Args:
        page (str): The page.
        tables (Mapping, optional): What makes the table of a name. Default: the families'.
    """
    for name, make in (TABLES if tables is None else tables).items():
        start, end = START.format(name), END.format(name)
        before, _, rest = page.partition(start)
        _, found, after = rest.partition(end)
        if found:
            page = f'{before}{start}\n\n{make()}\n\n{end}{after}'
    return page


#: What stands between the markers of a name.
TABLES = {'supported families': supported_table, 'refused families': refused_table}


def _names(kinds: Iterable[str]) -> str:
    return ', '.join(sorted(kinds))
