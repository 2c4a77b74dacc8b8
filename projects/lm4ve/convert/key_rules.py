"""The core that all converters share: read safely, rename by a table, write.

A converter is a table. Every key of the file is either renamed by it or dropped
for a stated reason; a key that is neither stops the conversion, since a tensor
that is silently left behind is a model that silently differs.
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
    """What becomes of a file's keys. Patterns match whole keys; first wins.

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


#: What may stand for a part of a key in a template.
_PLACES = dict(
    p='(?P<p>weight|bias)', i=r'(?P<i>\d+)', j=r'(?P<j>\d+)', rest='(?P<rest>.+)'
)


def template_rules(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Turn pairs of templates into the patterns and replacements of :class:`Rules`.

    Args:
        pairs (Iterable[tuple[str, str]]): Old and new name. ``{p}`` is weight or bias,
            ``{i}`` and ``{j}`` are numbers, ``{rest}`` is anything.
    """
    rules = []
    for old, new in pairs:
        pattern = re.sub(r'\\\{(\w+)\\\}', lambda m: _PLACES[m[1]], re.escape(old))
        rules.append((pattern, re.sub(r'\{(\w+)\}', r'\\g<\1>', new)))
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
        matches = ((re.fullmatch(pattern, key), new) for pattern, new in rules.renames)
        name = next((match.expand(new) for match, new in matches if match), None)
        if name is not None:
            if name in renamed:
                raise CheckpointError(
                    f"{origin}: '{sources[name]}', '{key}' become '{name}'."
                )
            renamed[name], sources[name] = tensor, key
        elif not any(re.fullmatch(pattern, key) for pattern, _ in rules.dropped):
            unknown.append(key)
    missing = [n for n in rules.required if n not in renamed]
    if unknown:
        raise CheckpointError(f'{origin} has unknown keys: {listing(unknown, 20)}.')
    if missing:
        raise CheckpointError(f'{origin} has nothing that becomes {listing(missing)}.')
    return renamed
