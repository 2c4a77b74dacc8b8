"""The tables by which converters rename the tensors of published checkpoints.

Every key of a file is either renamed by the table or dropped for a stated reason. A key
that is neither stops the conversion, since a tensor that is silently left behind is a
model that silently differs.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from lm4ve.errors import CheckpointError, listing

#: What the paper's released models call the mappers around the block, and the norm
#: after.
RELEASED_MAPPERS = (
    (r'llama_dim_mapper1\.weight', 'neck.mapper_in.weight'),
    (r'llama_dim_mapper2\.weight', 'neck.mapper_out.weight'),
)
RELEASED_NECK = ((r'norm\.(weight|bias)', r'neck.norm.\1'), *RELEASED_MAPPERS)
RELEASED_NECK_REQUIRED = (
    'neck.norm.weight',
    'neck.mapper_in.weight',
    'neck.mapper_out.weight',
)


@dataclass(frozen=True)
class Rules:
    """What becomes of a file's keys. Patterns match whole keys; the first match counts.

    Attributes:
        renames (Sequence[tuple[str, str]]): Pattern and replacement, as of
            ``re.Match.expand``.
        dropped (Sequence[tuple[str, str]]): Pattern and the reason why such a
            key is left out.
        required (Sequence[str]): New names that must come out.
    """

    renames: Sequence[tuple[str, str]]
    dropped: Sequence[tuple[str, str]] = ()
    required: Sequence[str] = ()


#: Placeholder of a template -> the pattern of what it stands for.
_PLACEHOLDERS = {
    'p': '(?P<p>weight|bias)',
    'i': r'(?P<i>\d+)',
    'j': r'(?P<j>\d+)',
    'rest': '(?P<rest>.+)',
}


def template_rules(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Turn pairs of templates into the patterns and replacements of :class:`Rules`.

    Args:
        pairs (Iterable[tuple[str, str]]): Old and new name. ``{p}`` is weight or bias,
            ``{i}`` and ``{j}`` are numbers, ``{rest}`` is anything. Each is at most once
            in a name.
    """
    rules = []
    for old, new in pairs:
        # All of the old name is taken literally, except for its placeholders.
        pattern = re.escape(old)
        for placeholder, stands_for in _PLACEHOLDERS.items():
            escaped_placeholder = re.escape(f'{{{placeholder}}}')
            pattern = pattern.replace(escaped_placeholder, stands_for)
        # '{i}' becomes '\g<i>', which re.Match.expand fills in.
        replacement = re.sub(r'\{(\w+)\}', r'\\g<\1>', new)
        rules.append((pattern, replacement))
    return rules


def rename(
    state: dict[str, Tensor], rules: Rules, origin: str = 'The checkpoint'
) -> dict[str, Tensor]:
    """Rename the tensors of a state by a table that accounts for every key.

    Args:
        state (dict[str, Tensor]): Tensors by the file's names.
        rules (Rules): The table.
        origin (str): Name of the file in messages.

    Returns:
        dict[str, Tensor]: The tensors by their new names, without the dropped ones.

    Raises:
        CheckpointError: A key is neither renamed nor dropped, two keys get the same
            name, or a required one is missing.
    """
    renamed: dict[str, Tensor] = {}
    sources: dict[str, str] = {}
    unknown: list[str] = []
    for key, tensor in state.items():
        name = _new_name(key, rules)
        if name is None:
            if not _is_dropped(key, rules):
                unknown.append(key)
            continue
        if name in renamed:
            raise CheckpointError(
                f"{origin}: '{sources[name]}', '{key}' become '{name}'."
            )
        renamed[name] = tensor
        sources[name] = key
    if unknown:
        raise CheckpointError(f'{origin} has unknown keys: {listing(unknown, 20)}.')
    missing = [name for name in rules.required if name not in renamed]
    if missing:
        raise CheckpointError(f'{origin} has nothing that becomes {listing(missing)}.')
    return renamed


def _new_name(key: str, rules: Rules) -> str | None:
    """Return the new name of a key, or None if no pattern matches it."""
    for pattern, replacement in rules.renames:
        match = re.fullmatch(pattern, key)
        if match:
            return match.expand(replacement)
    return None


def _is_dropped(key: str, rules: Rules) -> bool:
    """Return whether a key is left out for a stated reason."""
    return any(re.fullmatch(pattern, key) for pattern, _ in rules.dropped)
