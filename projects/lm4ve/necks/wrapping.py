"""``lm4ve.wrap``: the neck after a submodule of any model.

``llm_block_insert.py`` attaches it; this file starts from what a user of a library
without configs has: a model, a name and a checkpoint.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import initialize
from torch import Tensor, nn

from lm4ve.compat.transformers_trainer_names import keep_names
from lm4ve.errors import UserError, brief, refuse_unknown, require
from lm4ve.necks.llm_block_insert import attach, build_necks
from lm4ve.necks.neck import LLMBlockNeck, build_block
from lm4ve.necks.places import (
    Place,
    default_fields,
    final_norm_among,
    find_places,
    has_one_place,
)

#: Attributes with the number of channels of a norm, which gives as many as it reads.
_NORM_WIDTHS = ('num_features', 'num_channels', 'normalized_shape')
#: Attributes with the number of channels that a layer gives, or that it reads.
_OUTPUT_WIDTHS = ('out_features', 'out_channels', *_NORM_WIDTHS)
_INPUT_WIDTHS = ('in_features', 'in_channels', *_NORM_WIDTHS)


def wrap(
    model: nn.Module,
    after: str | Sequence[str] | None = None,
    block: str | Mapping[str, Any] | nn.Module | None = None,
    in_channels: int | None = None,
    index: int | str = 0,
    before: str | Sequence[str] | None = None,
    share_block: bool = False,
    mask: Mapping[str, str] | None = None,
    **neck: Any,
) -> nn.Module:
    """Send the output of a submodule through a frozen block between two trained mappers.

    Nothing of the model changes but that output: its class, the names of its weights
    and its ``forward`` stay. The mappers take the device and the dtype of the
    submodule.

    Args:
        model (nn.Module): Any model; it is changed in place.
        after (str | Sequence[str], optional): Name of a submodule, as
            ``model.named_modules()`` has it. Its output is tokens ``[B, N, C]``, an
            image map ``[B, C, H, W]``, a clip map ``[B, C, T, H, W]``, or in
            ``layout``. A list of names: a neck at each.
        block (str | dict | nn.Module): The ``checkpoint`` of a
            :class:`lm4ve.blocks.LLMBlock`, all of its arguments, or a module with its
            interface. Without ``share_block``, each place after the first gets a copy
            of a module.
        in_channels (int, optional): C. Default: the width of the submodule's last
            layer, or with ``before`` what its first layer reads; a wrong width raises
            an error in the first batch.
        index (int | str): Which entry passes through the neck if the submodule returns
            a sequence, or the key if it returns a dict. The others stay.
        before (str | Sequence[str], optional): A submodule whose input goes through the
            neck.
        share_block (bool): Necks at several places have mappers of their own and one
            block.
        mask (dict, optional): How the model's own arguments mark padding; see
            :func:`lm4ve.necks.LLMBlockInsert`.
        **neck: Further arguments of :class:`lm4ve.necks.LLMBlockNeck`, such as
            ``residual`` or ``layout``.

    Returns:
        nn.Module: ``model``, with the neck as ``model.llm_neck``; a list of necks if
        ``after`` or ``before`` is a list.

    Raises:
        UserError: There is no such submodule, the model has a block already or is on
            the device 'meta', or an argument is none of the neck's.
    """
    refuse_unknown(LLMBlockNeck, neck, '')
    places = find_places(model, after, before)
    _warn_after_final_norm(model, places)
    options: list[dict[str, Any]] = []
    for place in places:
        width = in_channels
        if width is None:
            width = _width_of(model, place)
        defaults = default_fields(place)
        options.append({**defaults, 'in_channels': width, **neck})
    arguments: dict[str, Any] = dict(after=after, index=index, neck=options[0])
    # A single place is recorded as it was before there could be several.
    if before is not None or share_block or not has_one_place(after, before):
        arguments.update(before=before, share_block=share_block, neck=options)
    if mask is not None:
        arguments['mask'] = dict(mask)
    arguments['block'] = block_config(block)
    necks = build_necks_at(model, places, arguments, arguments['block'] or block)
    for built in necks:
        _init_mappers(built)
    return insert(model, places, necks, arguments)


def _warn_after_final_norm(model: nn.Module, places: Sequence[Place]) -> None:
    """Warn if a block is to come after the encoder's final norm; the paper's is before it."""
    norm = final_norm_among(model, places)
    if norm is None:
        return
    print_log(
        f"after='{norm}' is the final norm of {type(model).__name__}, and nothing norms the "
        f"output of the block there. Fix: the last layer, or before='{norm}', as in the paper.",
        logger='current',
        level=logging.WARNING,
    )


def build_necks_at(
    model: nn.Module,
    places: Sequence[Place],
    arguments: dict[str, Any],
    block: Any,
) -> list[LLMBlockNeck]:
    """Build the necks for places of a model, which stays as it is.

    Args:
        model (nn.Module): The model.
        places (Sequence[Place]): Its places.
        arguments (dict): ``neck`` (a neck's arguments but the block, or a list for
            several), and perhaps ``share_block``, see :func:`wrap`.
        block (dict | nn.Module): The block, or its config.

    Returns:
        list[LLMBlockNeck]: A neck for each place.

    Raises:
        UserError: See :func:`wrap`.
    """
    is_meta = _reference(model, places[0].module).is_meta
    if is_meta or torch.get_default_device().type == 'meta':
        raise UserError(
            "A model on the device 'meta' cannot be wrapped. Fix: to_empty() first."
        )
    options = arguments['neck']
    if not isinstance(options, list):
        options = [options]
    configs = [{**fields, 'block': block} for fields in options]
    return build_necks(configs, arguments.get('share_block', False), _build_plain)


def _build_plain(fields: dict[str, Any]) -> LLMBlockNeck:
    """Build a neck of its fields, and its block first.

    A neck that gets a block's config takes it for that of a model of MMEngine, and
    repairs MMEngine's hosts.
    """
    others = dict(fields)
    block = others.pop('block')
    if not isinstance(block, nn.Module):
        block = build_block(block)
    return LLMBlockNeck(block=block, **others)


def block_config(block: Any) -> dict[str, Any] | None:
    """Return the config of a block that a caller gives as :func:`wrap` takes it.

    It may have any registered ``type``, so it never comes from a file. None for a block
    that is given as a module, which has no config.

    Raises:
        UserError: It is none of these.
    """
    if isinstance(block, nn.Module):
        return None
    require(
        isinstance(block, (str, Mapping)),
        f'block={brief(repr(block))} must be a checkpoint, a dict of the arguments of '
        "LLMBlock, or a module. Fix: for example block='package:all-MiniLM-L6-v2'.",
    )
    if isinstance(block, str):
        return dict(type='LLMBlock', checkpoint=block)
    return {'type': 'LLMBlock', **block}


def _init_mappers(neck: LLMBlockNeck) -> None:
    """Initialize the mappers of a new neck, as ``init_weights()`` of MMEngine would.

    A runner calls that method for the whole model, but a wrapped model may never meet a
    runner. The order is MMEngine's: first the neck's ``init_cfg``, then what a mapper
    prescribes for itself. Without ``init_cfg`` the mappers keep torch's initial values.
    """
    if not neck.init_cfg:
        return
    for mapper in (neck.mapper_in, neck.mapper_out, neck.skip):
        if mapper is None:
            continue
        initialize(mapper, neck.init_cfg)
        if hasattr(mapper, 'init_weights'):
            mapper.init_weights()


def insert(
    model: nn.Module,
    places: Sequence[Place],
    necks: Sequence[LLMBlockNeck],
    arguments: dict[str, Any],
) -> nn.Module:
    """Attach necks to a model.

    They get the device and, except for their blocks, the dtype of their places.

    Args:
        model (nn.Module): The model; it is changed in place.
        places (Sequence[Place]): Its places.
        necks (Sequence[LLMBlockNeck]): A neck for each place, as :func:`build_necks_at`
            builds them.
        arguments (dict): The arguments of :func:`wrap` as
            :func:`lm4ve.save_pretrained` writes them, ``block`` as the block's config
            (None if a module was given).
    """
    references = [_reference(model, place.module) for place in places]
    is_single = has_one_place(arguments['after'], arguments.get('before'))
    mask = arguments.get('mask')
    attach(model, places, necks, arguments['index'], mask, is_single)
    for neck, reference in zip(necks, references, strict=True):
        neck.to(reference.device)
        for name, part in neck.named_children():
            if name != 'block':
                part.to(reference.dtype)
        if neck.gate is not None:
            neck.gate.data = neck.gate.data.to(reference.dtype)
    model.llm_inserted = arguments  # type: ignore[assignment]
    keep_names(model)
    return model


def _reference(model: nn.Module, place: nn.Module) -> Tensor:
    """Return a tensor whose device and dtype the mappers at a place get.

    It is the first floating-point tensor of the place, else of the model; without any a
    tensor on the CPU in torch's default dtype.
    """
    for tensor in (*place.parameters(), *place.buffers(), *model.parameters()):
        if tensor.is_floating_point():
            return tensor
    return torch.empty(0)


def _width_of(model: nn.Module, place: Place) -> int:
    """Return how many channels the features at a place have.

    Args:
        model (nn.Module): The model.
        place (Place): The place, which may lie within the module of its name.

    Raises:
        UserError: No layer within it shows that. Where one before it does, its width is
            named: what comes after it, such as an activation, may change the width.
    """
    kind = type(place.module).__name__
    if place.at_input:
        read = _first_input_width(place.module)
        if read is not None:
            return read
        raise UserError(
            f"'{place.name}' ({kind}) does not show the width of its input. Fix: give "
            'in_channels=, the number of its channels.'
        )
    own = _last_width(place.module)
    if own is not None:
        return own[1]
    text = f"'{place.name}' ({kind}) does not show the width of its output."
    before = _last_width(model.get_submodule(place.name))
    if before is None:
        raise UserError(f'{text} Fix: give in_channels=, the number of its channels.')
    layer, width = before
    raise UserError(
        f'{text} Fix: in_channels={width}, if it keeps the width of the '
        f'{type(layer).__name__} before it.'
    )


def _first_input_width(place: nn.Module) -> int | None:
    """Return how many channels the first layer within a module reads that shows it."""
    for module in place.modules():
        width = _read_width(module, _INPUT_WIDTHS)
        if width is not None:
            return width
    return None


def _last_width(place: nn.Module) -> tuple[nn.Module, int] | None:
    """Return the last layer within a module that shows how many channels it gives.

    Returns:
        tuple[nn.Module, int] | None: The layer, and the number of channels.
    """
    for module in reversed(list(place.modules())):
        width = _read_width(module, _OUTPUT_WIDTHS)
        if width is not None:
            return module, width
    return None


def _read_width(module: nn.Module, names: Sequence[str]) -> int | None:
    """Return a number of channels that a layer has as one of some attributes, or None."""
    for name in names:
        width = getattr(module, name, None)
        if isinstance(width, (tuple, list)) and width:
            width = width[-1]
        if isinstance(width, int) and width > 0:
            return width
    return None
