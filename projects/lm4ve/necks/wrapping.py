"""``lm4ve.wrap``: the neck after a submodule of any model.

:class:`lm4ve.necks.LLMBlockInsert` attaches it; this file starts from what a user of a library
without configs has: a model, a name and a checkpoint.
"""

from collections.abc import Mapping
from itertools import product
from typing import Any

import torch
from mmengine.model import initialize
from torch import Tensor, nn

from lm4ve.compat.for_transformers import keep_names
from lm4ve.errors import UserError
from lm4ve.necks.llm_block_insert import LLMBlockInsert, defaults_of, find_place
from lm4ve.necks.llm_block_neck import LLMBlockNeck

#: Attributes with the number of channels that a layer gives.
_WIDTHS = ('out_features', 'out_channels', 'num_features', 'num_channels', 'normalized_shape')


def wrap(
    model: nn.Module,
    after: str,
    block: str | Mapping[str, Any] | nn.Module,
    in_channels: int | None = None,
    index: int | str = 0,
    **neck: Any,
) -> nn.Module:
    """Send the output of a submodule through a frozen block between two trained mappers.

    Nothing of the model changes but that output: its class, the names of its weights and
    its ``forward`` stay. The mappers take the device and the dtype of the submodule.

    Args:
        model (nn.Module): Any model; it is changed in place.
        after (str): Name of a submodule, as ``model.named_modules()`` has it. Its output is
            tokens ``[B, N, C]``, an image map ``[B, C, H, W]``, a clip map
            ``[B, C, T, H, W]``, or as ``layout`` says.
        block (str | dict | nn.Module): The ``checkpoint`` of a
            :class:`lm4ve.blocks.LLMBlock`, all of its arguments, or a module with its
            interface.
        in_channels (int, optional): C. Default: the width of the submodule's last layer;
            the first batch shows if that was wrong.
        index (int | str): Which entry goes through the neck where the submodule returns
            several (the key where it returns a dict). The others stay.
        **neck: Further arguments of :class:`lm4ve.necks.LLMBlockNeck`, such as ``residual``
            or ``layout``.

    Returns:
        nn.Module: ``model``, with the neck as ``model.llm_neck``.

    Raises:
        UserError: There is no such submodule, the model has a block already or is on the
            device 'meta'.
        TypeError: An argument is none of the neck's.
    """
    place = find_place(model, after)
    width = in_channels or _width_of(place, after)
    options: dict[str, Any] = {**defaults_of(model, after), 'in_channels': width, **neck}
    arguments, built = build_neck(model, after, index, options, block)
    if built.init_cfg:  # what a runner calls init_weights() for
        initialize(built.mapper_in, built.init_cfg)
        initialize(built.mapper_out, built.init_cfg)
    return insert(model, built, arguments)


def build_neck(
    model: nn.Module, after: str, index: int | str, options: dict[str, Any], block: Any
) -> tuple[dict[str, Any], LLMBlockNeck]:
    """Build the neck for a place of a model, which stays as it is.

    Returns:
        tuple[dict, LLMBlockNeck]: The arguments ``after``, ``index``, ``neck`` (without the
        block) and ``block`` (its config; None if a module was given), and the neck.

    Raises:
        UserError: See :func:`wrap`.
    """
    tensor = _reference(model, find_place(model, after))
    if tensor.is_meta or torch.get_default_device().type == 'meta':
        raise UserError("A model on the device 'meta' cannot be wrapped. Fix: to_empty() first.")
    settings: dict[str, Any] | None = None
    if not isinstance(block, nn.Module):
        fields = dict(checkpoint=block) if isinstance(block, str) else block
        settings = {'type': 'LLMBlock', **fields}
    neck = LLMBlockNeck(block=settings or block, **options)
    return dict(after=after, index=index, neck=options, block=settings), neck


def insert(model: nn.Module, neck: LLMBlockNeck, arguments: dict[str, Any]) -> nn.Module:
    """Attach a neck, on the device and, except for the block, in the dtype of its place."""
    reference = _reference(model, find_place(model, arguments['after']))
    LLMBlockInsert(model, arguments['after'], neck, arguments['index'])
    neck.to(reference.device)
    for part in (neck.mapper_in, neck.mapper_out, neck.norm):
        if part is not None:
            part.to(reference.dtype)
    model.llm_inserted = arguments  # type: ignore[assignment]
    keep_names(model)
    return model


def _reference(model: nn.Module, place: nn.Module) -> Tensor:
    """Return a tensor whose device and dtype the mappers get."""
    tensors = (*place.parameters(), *place.buffers(), *model.parameters())
    return next((t for t in tensors if t.is_floating_point()), torch.empty(0))


def _width_of(place: nn.Module, after: str) -> int:
    """Return how many channels the last layer within a module gives."""
    for module, name in product(reversed([*place.modules()]), _WIDTHS):
        width = getattr(module, name, None)
        width = width[-1] if isinstance(width, (tuple, list)) and width else width
        if isinstance(width, int) and width > 0:
            return width
    raise UserError(
        f"after='{after}' does not show the width of its output. Fix: give in_channels="
    )
