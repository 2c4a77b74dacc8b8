"""How messages name many things without becoming as long as the list of them."""

from collections.abc import Sequence


def listing(names: Sequence[object], limit: int = 5) -> str:
    """Join names for a message: the first ones, and how many more there are."""
    text = ', '.join(map(str, names[:limit]))
    more = len(names) - limit
    return f'{text} and {more} more' if more > 0 else text
