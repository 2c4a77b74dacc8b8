"""``LLMBlockInsert``: blocks at any places inside an encoder.

The paper compares head, middle and tail (appendix). The neck is attached to the
output or input of a named submodule by a hook, so that the encoder stays the
class it is: its weights keep their names, ``out_indices`` and layer-wise
learning rate decay work as before.
"""

import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from mmengine.model import ModuleList
from mmengine.registry import MODELS
from torch import nn

from lm4ve.compat.transformers_capture import capture_afterwards
from lm4ve.errors import UserError, check, require
from lm4ve.necks.neck import LLMBlockNeck
from lm4ve.necks.neck_hook import ThroughNeck
from lm4ve.necks.places import Place, default_fields, find_places, has_one_place


# A function with the name of a class: configs build it by ``type='LLMBlockInsert'``, and
# what it returns is the backbone, not a wrapper.
@MODELS.register_module()  # type: ignore[untyped-decorator]
def LLMBlockInsert(
    backbone: dict[str, Any] | nn.Module,
    after: str | Sequence[str] | None = None,
    neck: Any = None,
    index: int | str = 0,
    before: str | Sequence[str] | None = None,
    share_block: bool = False,
    mask: Mapping[str, str] | None = None,
) -> nn.Module:
    """Build a backbone, and send the output or input of named submodules through a neck.

    Args:
        backbone (dict | nn.Module): The encoder.
        after (str | Sequence[str], optional): Name of a submodule whose output is
            tokens or a map, for example 'layers.5', or 'drop_after_pos' for before the
            first block of mmpretrain's ViT. A list of names for a neck at each.
        neck (dict | nn.Module | Sequence): Config of :class:`lm4ve.necks.LLMBlockNeck`
            with ``out_type='raw'``. Its ``norm_cfg`` is None unless given,
            since the next layer of the encoder normalizes its own input. A list has one
            for each place, those of ``after`` first. Several places share a neck's
            config, each with weights of its own; a neck itself is that of one place.
        index (int | str): Which entry passes through the neck if the submodule returns
            a sequence, or the key if it returns a dict. The others stay. With
            ``before`` the argument's number, or its name if the encoder passes it by
            name.
        before (str | Sequence[str], optional): Name of a submodule whose input goes
            through the neck (MedVisionLlama: before the first layer).
        share_block (bool): Necks at several places have mappers of their own and one
            block.
        mask (dict, optional): How the host's arguments mark padding, where their names
            do not show it (``lm4ve/necks/host_masks.py`` lists those that do): name ->
            'keep' (1 is kept), 'padding' (True is padding), 'additive' (-inf is
            padding), each of tokens ``[B, N]`` or pairs ``[B, heads, Q, N]``; 'pixels'
            (1 is kept, ``[B, H, W]``); or 'ignore' (it does not mark padding). For
            example ``dict(valid='keep')``.

    Returns:
        nn.Module: The backbone itself, with the neck as ``llm_neck``; a list of necks
        if ``after`` or ``before`` is a list.

    Raises:
        UserError: A name is no submodule's or that of one that is never called, the
            backbone has a neck already, a neck changes the layout, or ``mask`` names
            what nobody takes. In a forward pass: a mask is unknown, or not of as many
            tokens as the place has.
    """
    if isinstance(backbone, nn.Module):
        encoder = backbone
    else:
        encoder = MODELS.build(backbone)
    places = find_places(encoder, after, before)
    configs = _list_configs(neck, places)
    if share_block:
        _check_one_block(configs)
    necks = build_necks(configs, share_block, _build_registered)
    is_single = has_one_place(after, before)
    attach(encoder, places, necks, index, mask, is_single)
    return encoder


def attach(
    encoder: nn.Module,
    places: Sequence[Place],
    necks: Sequence[Any],
    index: int | str,
    mask: Mapping[str, str] | None,
    is_single: bool,
) -> None:
    """Attach a neck to each place of an encoder, as ``llm_neck``.

    Args:
        encoder (nn.Module): The encoder; it is changed in place.
        places (Sequence[Place]): Its places.
        necks (Sequence[nn.Module]): A neck for each place.
        index, mask: See :func:`LLMBlockInsert`.
        is_single (bool): Whether the encoder has the only neck itself, not a list.

    Raises:
        UserError: A neck does not give all tokens, or ``mask`` names what nobody takes.
    """
    hooks = []
    for number, (place, neck) in enumerate(zip(places, necks, strict=True)):
        _check_inserted(neck)
        if isinstance(neck, LLMBlockNeck):
            neck.place = _describe_place(place, index, mask)
        hook = ThroughNeck(
            encoder,
            after=place.path,
            index=index,
            certain_layout=place.layout,
            number=None if is_single else number,
            mask=mask,
        )
        hooks.append(hook)
    inserted: Any = necks[0] if is_single else ModuleList(necks)
    encoder.llm_neck = inserted.train(encoder.training)
    for hook, place in zip(hooks, places, strict=True):
        hook.attach(place.at_input)
        if not place.at_input:
            # output_hidden_states of transformers records the neck's output then.
            capture_afterwards(place.module)
    forget_compiled_code()


def _list_configs(neck: Any, places: Sequence[Place]) -> list[Any]:
    """Return the config of the neck of each place, or the neck itself.

    Args:
        neck: A config for all places, or a sequence with one for each. A neck itself is
            that of a single place.
        places (Sequence[Place]): The places.

    Raises:
        UserError: There are more or fewer necks than places, or one is neither.
    """
    if isinstance(neck, (Sequence, nn.ModuleList)):
        given = list(neck)
    elif isinstance(neck, nn.Module):
        given = [neck]
    else:
        given = [neck] * len(places)
    require(
        len(given) == len(places),
        f'backbone.neck: {len(given)} necks for {len(places)} places. Fix: a config for '
        'all of them, or one for each.',
    )
    configs = []
    for place, config in zip(places, given, strict=True):
        if not isinstance(config, nn.Module):
            check('backbone.neck', config, kind=dict)
            config = {**default_fields(place), **config}
        configs.append(config)
    return configs


def _check_one_block(configs: Sequence[Any]) -> None:
    """Check that necks which shall share a block name one.

    Raises:
        UserError: The configs name several blocks, or one of them is no config.
    """
    for config in configs:
        check('backbone.neck', config, kind=dict)
        if config.get('block') != configs[0].get('block'):
            raise UserError('backbone.neck: with share_block all necks name one block.')


def build_necks(
    configs: Sequence[Any], share_block: bool, build: Callable[[Any], Any]
) -> list[Any]:
    """Build necks, each with a block of its own or all with the first one's.

    Args:
        configs (Sequence): The fields of each neck, or a neck, which stays as it is. A
            ``block`` that is a module becomes that of the first neck that names it;
            others get a copy.
        share_block (bool): Let all necks have the first one's block.
        build (Callable): Builds a neck of its fields.
    """
    necks: list[Any] = []
    taken: list[nn.Module] = []
    for config in configs:
        if isinstance(config, nn.Module):
            necks.append(config)
            continue
        block = config.get('block')
        if necks and share_block:
            config = {**config, 'block': necks[0].block}
        elif isinstance(block, nn.Module):
            is_taken = any(block is other for other in taken)
            if is_taken:
                config = {**config, 'block': copy.deepcopy(block)}
            taken.append(block)
        necks.append(build(config))
    return necks


def _build_registered(fields: dict[str, Any]) -> Any:
    """Build a neck of its fields, with ``type``, by MMEngine's registry."""
    registered_name = fields.get('type')
    # The video task registers another class under this name, for the neck of a whole
    # recognizer. Inside an encoder the plain neck is meant in every scope, so the class
    # itself is given.
    if isinstance(registered_name, str):
        name_without_scope = registered_name.rpartition('.')[2]
        if name_without_scope == 'LLMBlockNeck':
            fields = {**fields, 'type': LLMBlockNeck}
    return MODELS.build(fields)


def _check_inserted(neck: Any) -> None:
    """Check that a neck can stand inside an encoder.

    Raises:
        UserError: It does not give all tokens.
    """
    out_type = getattr(neck, 'out_type', 'raw')
    require(
        out_type == 'raw',
        f"out_type='{out_type}' of a neck within an encoder gives a vector, but the "
        "layers after it read all tokens. Fix: out_type='raw', the default.",
    )


def _describe_place(
    place: Place, index: int | str, mask: Mapping[str, str] | None
) -> str:
    """Describe a place as a checkpoint records it, by the user's arguments.

    Args:
        place (Place): The place.
        index, mask: See :func:`LLMBlockInsert`.
    """
    where = 'after'
    if place.at_input:
        where = 'before'
    text = f"{where}='{place.name}', index={index!r}"
    if mask:
        text += f', mask={dict(mask)!r}'
    return text


def forget_compiled_code() -> None:
    """Drop all code that ``torch.compile`` has made, so that it is compiled anew.

    Compiled code does not look for hooks that were added later, so that a neck in a
    model which has run compiled would have no effect. Nothing happens if nothing was
    compiled.
    """
    if 'torch._dynamo' in sys.modules:
        torch.compiler.reset()
