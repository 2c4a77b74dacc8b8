"""The places of an encoder at which a neck can act: its submodules, by name."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from torch import nn

from lm4ve.errors import UserError, check, closest, did_you_mean, suggest

#: A norm of tokens, by the name of its class.
_NORM = re.compile('LayerNorm|RMSNorm')
#: Modules of torch whose tokens come before samples unless ``batch_first`` is set.
_SEQUENCES = (
    nn.TransformerEncoder,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoder,
    nn.TransformerDecoderLayer,
    nn.MultiheadAttention,
    nn.RNNBase,
)


class Place(NamedTuple):
    """A place.

    Attributes:
        module (nn.Module): The submodule.
        path (str): Its name in the encoder.
        name (str): The name that the user gave. The submodule may lie within the one of
            this name, see :func:`_find_place`.
        at_input (bool): Whether its input goes through the neck, not its output.
        layout (str, optional): 'NBC' in torch's own transformer and recurrent layers
            without ``batch_first``. Elsewhere the features' layout is not known.
    """

    module: nn.Module
    path: str
    name: str
    at_input: bool
    layout: str | None


def has_one_place(after: Any, before: Any) -> bool:
    """Return whether ``after`` or ``before`` is a single name, and the other is None.

    Then the encoder gets one neck; otherwise a list of necks, if only of one.
    """
    if after is None:
        return isinstance(before, str)
    return isinstance(after, str) and before is None


def find_places(
    encoder: nn.Module,
    after: str | Sequence[str] | None,
    before: str | Sequence[str] | None,
) -> list[Place]:
    """Find all places that a user names.

    Args:
        encoder (nn.Module): The encoder.
        after (str | Sequence[str], optional): Submodules whose output is meant.
        before (str | Sequence[str], optional): Submodules whose input is meant.

    Raises:
        UserError: There is none, a name is no submodule's or that of a container that
            is never called, or the encoder has a block already.
    """
    places = []
    for name in _as_list(after, 'after'):
        places.append(_find_place(encoder, name, at_input=False))
    for name in _as_list(before, 'before'):
        places.append(_find_place(encoder, name, at_input=True))
    if not places:
        raise UserError(
            'A block needs a place. Fix: name a submodule in after= or before=.'
        )
    return places


def _as_list(names: str | Sequence[str] | None, argument: str) -> list[str]:
    """Return the names of an argument that may be one name, several or None.

    Raises:
        UserError: It is something else.
    """
    if names is None:
        return []
    check(argument, names, kind=(str, list, tuple))
    if isinstance(names, str):
        return [names]
    return list(names)


def _find_place(encoder: nn.Module, name: str, at_input: bool) -> Place:
    """Find a place in an encoder without a block.

    For an ``nn.Sequential`` it is the last module in it, or the first one for its
    input: hosts may call these one by one, and never the sequence itself (timm's
    gradient checkpointing).

    Args:
        encoder (nn.Module): The encoder.
        name (str): The submodule's name in it.
        at_input (bool): Whether the submodule's input is meant, not its output.

    Raises:
        UserError: See :func:`find_places`.
    """
    _check_encoder(encoder)
    module = _find_named(encoder, name, at_input)
    path = name
    modules = [m for _, m in encoder.named_modules(remove_duplicate=False)]
    end = -1
    if at_input:
        end = 0
    while type(module).forward is nn.Sequential.forward and len(module) > 0:
        is_used_elsewhere = modules.count(module[end]) > 1
        if is_used_elsewhere:
            break
        path = f'{path}.{list(module._modules)[end]}'
        module = module[end]
    layout = None
    if _has_tokens_first(encoder, path):
        layout = 'NBC'
    return Place(module, path, name, at_input, layout)


def _find_named(encoder: nn.Module, name: str, at_input: bool) -> Any:
    """Return the submodule of a name.

    Args:
        encoder (nn.Module): The encoder.
        name (str): The name.
        at_input (bool): Whether the user gave it as ``before``, for messages.

    Raises:
        UserError: There is none, or it is a container that is never called.
    """
    modules = {n: m for n, m in encoder.named_modules() if n}
    place = modules.get(name)
    argument = 'after'
    if at_input:
        argument = 'before'
    kind = type(encoder).__name__
    if place is None:
        advice = suggest(_of_same_number(name, modules))
        if not advice:
            close = did_you_mean(name, modules)
            advice = f'{close} Fix: name one of {closest(name, modules, 4)}.'
        raise UserError(f"{argument}='{name}' is no submodule of {kind}.{advice}")
    if type(place).forward is nn.Module.forward:
        children = [f'{name}.{child}' for child, _ in place.named_children()]
        raise UserError(
            f"{argument}='{name}' is only a container, which is never called, of "
            f'{kind}. Fix: name one of {closest(name, children or modules)}.'
        )
    return place


def _of_same_number(name: str, modules: Iterable[str]) -> list[str]:
    """Return up to three of the outermost modules that are numbered as a name is.

    There are none for a name without a number. Libraries call the same list of layers
    ``blocks``, ``layers`` or ``encoder.layer``.
    """
    number = name.rpartition('.')[2]
    if not number.isdecimal():
        return []
    numbered = [other for other in modules if other.rpartition('.')[2] == number]
    if not numbered:
        return []
    depth = min(other.count('.') for other in numbered)
    outermost = [other for other in numbered if other.count('.') == depth]
    return outermost[:3]


def _check_encoder(encoder: nn.Module) -> None:
    """Refuse an encoder that has a block already, or would run its neck as a layer."""
    kind = type(encoder).__name__
    if hasattr(encoder, 'llm_neck'):
        raise UserError(
            f'{kind} has a block already (llm_neck). Fix: give that one several layers '
            '(block.layers), or all places at once (a list as after=).'
        )
    if type(encoder).forward is nn.Sequential.forward:
        raise UserError(
            f'A {kind} would run its llm_neck as a last layer. Fix: wrap what holds it.'
        )


def final_norm_among(encoder: nn.Module, places: Sequence[Place]) -> str | None:
    """Return the name of an encoder's final norm if its output is a place, else None."""
    norm = _find_final_norm(encoder)
    for place in places:
        if place.name == norm and not place.at_input:
            return norm
    return None


def _find_final_norm(encoder: nn.Module) -> str | None:
    """Return the name of the norm of tokens after an encoder's last layer, or None.

    It is the first one that follows the last list of layers, and lies in no list itself.
    """
    lists: list[str] = []
    norm: str | None = None
    for name, module in encoder.named_modules():
        if any(f'{name}.'.startswith(f'{outer}.') for outer in lists):
            continue
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and len(module) > 1:
            lists.append(name)
            norm = None
        elif lists and norm is None and _NORM.search(type(module).__name__):
            norm = name
    return norm


def default_fields(place: Place) -> dict[str, Any]:
    """Return the arguments that a neck inside an encoder has unless the user gives others.

    Args:
        place (Place): The place of the neck.

    Returns:
        dict[str, Any]: ``norm_cfg=None``, since the encoder goes on after the neck and
        norms its features itself; and the layout, where it is known.
    """
    fields: dict[str, Any] = dict(norm_cfg=None)
    if place.layout is not None:
        fields['layout'] = place.layout
    return fields


def _has_tokens_first(encoder: nn.Module, place: str) -> bool:
    """Return whether features at a place have tokens before samples, ``[N, B, C]``.

    They do if the place is in a sequence module of torch, or is one, that was built
    without ``batch_first``.
    """
    for name, module in encoder.named_modules():
        is_around = name == '' or f'{place}.'.startswith(f'{name}.')
        if not is_around or not isinstance(module, _SEQUENCES):
            continue
        for part in module.modules():
            if not getattr(part, 'batch_first', True):
                return True
    return False
