"""``LLMBlockInsert``: a block at any place inside an encoder.

The paper compares head, middle and tail (appendix). The neck is attached to the
output of a named submodule by a forward hook, so that the encoder stays the
class it is: its weights keep their names, ``out_indices`` and layer-wise
learning rate decay work as before.
"""

import copy
from collections.abc import Mapping
from functools import partial
from typing import Any

from mmengine.registry import MODELS
from torch import Tensor, nn

from lm4ve.errors import UserError, check, did_you_mean, listing
from lm4ve.necks.llm_block_neck import LLMBlockNeck


def _through_neck(
    neck: nn.Module, index: int | str, module: nn.Module, args: Any, output: Any
) -> Any:
    """A forward hook that replaces a module's output, or its entry ``index``, by the neck's."""
    if isinstance(output, Tensor):
        return _features(neck(output))
    # Patch embeddings and Swin's stages return (tokens, grid size).
    try:
        features = output.get(index) if isinstance(output, Mapping) else output[index]
    except (LookupError, TypeError):
        features = None
    if not isinstance(features, Tensor):
        named = output.items() if isinstance(output, Mapping) else enumerate(output)
        kinds = {k: list(getattr(v, 'shape', ())) or type(v).__name__ for k, v in named}
        raise UserError(
            f'backbone.index={index!r} names no features: {type(module).__name__} returns {kinds}. '
            'Fix: the index (of a dict the key) of the entry that the encoder uses.'
        )
    # A copy: what the module keeps of its output stays as it is.
    entries: Any = copy.copy(output) if isinstance(output, Mapping) else list(output)
    entries[index] = _features(neck(features))
    return tuple(entries) if isinstance(output, tuple) else entries


def _features(out: Any) -> Any:
    """Return the features of a neck's output, in mmaction2's protocol ``(x, losses)``."""
    return out[0] if isinstance(out, tuple) and isinstance(out[-1], dict) else out


@MODELS.register_module()  # type: ignore[untyped-decorator]
def LLMBlockInsert(
    backbone: dict[str, Any] | nn.Module,
    after: str,
    neck: dict[str, Any] | nn.Module,
    index: int | str = 0,
) -> nn.Module:
    """Build a backbone whose named submodule's output goes through a neck.

    Args:
        backbone (dict | nn.Module): The encoder.
        after (str): Name of a submodule whose output is tokens or a map, for
            example 'layers.5', or 'drop_after_pos' for before the first block
            of mmpretrain's ViT.
        neck (dict | nn.Module): Config of :class:`lm4ve.necks.LLMBlockNeck`
            with ``out_type='raw'``. Its ``norm_cfg`` is None unless given,
            since what follows in the encoder norms its own input.
        index (int | str): Which entry goes through the neck where the submodule returns
            several, the key where it returns a dict. The others stay.

    Returns:
        nn.Module: The backbone itself, with the neck as ``llm_neck``.

    Raises:
        UserError: ``after`` names no submodule or one that is never called, the backbone has
            a neck already, or the neck changes the layout.
    """
    encoder: nn.Module = backbone if isinstance(backbone, nn.Module) else MODELS.build(backbone)
    place = find_place(encoder, after)
    built: Any = neck
    if not isinstance(neck, nn.Module):
        cfg = {'norm_cfg': None, **neck}
        if str(cfg.get('type')).rpartition('.')[2] == 'LLMBlockNeck':
            cfg['type'] = LLMBlockNeck  # in mmaction2's scope the name means one of its protocol
        built = MODELS.build(cfg)
    # Inside an encoder the neck must give all tokens.
    check('backbone.neck.out_type', getattr(built, 'out_type', 'raw'), choices=('raw',))
    encoder.llm_neck = built
    # A deep copy of the model (EMA) copies a partial's reference to the neck along with the neck.
    place.register_forward_hook(partial(_through_neck, built, index))
    return encoder


def find_place(encoder: nn.Module, after: str) -> nn.Module:
    """Return the submodule of a name, in an encoder that has no block yet.

    Raises:
        UserError: There is none, it only holds others, or the encoder has a block.
    """
    kind = type(encoder).__name__
    if hasattr(encoder, 'llm_neck'):
        raise UserError(
            f'{kind} has a block already (llm_neck). Fix: give that one several layers '
            '(block.layers).'
        )
    modules = {n: m for n, m in encoder.named_modules() if n}
    place: nn.Module | None = modules.get(after)
    if place is None or type(place).forward is nn.Module.forward:
        what = 'no submodule' if place is None else 'only a container, which is never called,'
        near = [f'{after}.{n}' for n, _ in place.named_children()] if place else [*modules]
        raise UserError(
            f"after='{after}' is {what} of {kind}.{did_you_mean(after, modules)} Fix: name one of "
            f'{listing(near, 12)}.'
        )
    return place
