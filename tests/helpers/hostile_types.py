"""Plain data with an entry in each of its dicts that a registry would build, and so run."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: What a dict gets -> by these, MMEngine's registries would import and call a function
#: that leaves the file ``{marker}`` behind.
HOSTILE = {
    'os.system': dict(type='os.system', command='touch {marker}'),
    'subprocess.getoutput': dict(type='subprocess.getoutput', cmd='touch {marker}'),
    'pathlib.Path.touch': dict(type='pathlib.Path.touch', self='{marker}'),
    'shutil.copy': dict(type='shutil.copy', src=__file__, dst='{marker}'),
    'scope': dict(type='os.system', command='touch {marker}', _scope_='mmengine'),
    'delete': dict(type='os.system', command='touch {marker}', _delete_=True),
}


def hostile(kind: str, marker: Path) -> dict[str, Any]:
    """Return the entries of :data:`HOSTILE` that would leave a file behind."""
    entries = {}
    for name, value in HOSTILE[kind].items():
        if isinstance(value, str):
            value = value.replace('{marker}', str(marker))
        entries[name] = value
    return entries


def places_of(data: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every dict in plain data: the keys and indices that lead to it."""
    if isinstance(data, dict):
        yield place
        for name, value in data.items():
            yield from places_of(value, (*place, name))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from places_of(value, (*place, index))


def with_entries(data: Any, place: tuple[Any, ...], entries: dict[str, Any]) -> Any:
    """Return plain data whose dict at a place has further entries, which replace its own."""
    changed = copy.deepcopy(data)
    found = changed
    for step in place:
        found = found[step]
    found.update(entries)
    return changed


def with_only(data: Any, place: tuple[Any, ...], entries: dict[str, Any]) -> Any:
    """Return plain data whose dict at a place has these entries and no others."""
    changed = copy.deepcopy(data)
    found = changed
    for step in place:
        found = found[step]
    found.clear()
    found.update(entries)
    return changed


def everywhere(data: Any, entries: dict[str, Any]) -> Iterator[Any]:
    """Yield the data with the entries in one of its dicts after the other, added and alone."""
    for place in places_of(data):
        yield with_entries(data, place, entries)
        yield with_only(data, place, entries)
