"""``LLMBlockInsert``: a block at any place inside an encoder.

The paper compares head, middle and tail (appendix). The neck is attached to the
output of a named submodule by a forward hook, so that the encoder stays the
class it is: its weights keep their names, ``out_indices`` and layer-wise
learning rate decay work as before.
"""

from typing import Any

from mmengine.registry import MODELS
from torch import nn

from lm4ve.errors import UserError, check, did_you_mean, listing
from lm4ve.necks.llm_block_neck import LLMBlockNeck

#: Modules of torch whose tokens come before samples unless ``batch_first`` is set.
_SEQUENCES = (
    *(nn.TransformerEncoder, nn.TransformerEncoderLayer, nn.TransformerDecoder),
    *(nn.TransformerDecoderLayer, nn.MultiheadAttention, nn.RNNBase),
)


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
        cfg = {**defaults_of(encoder, after), **neck}
        if str(cfg.get('type')).rpartition('.')[2] == 'LLMBlockNeck':
            cfg['type'] = LLMBlockNeck  # in mmaction2's scope the name means one of its protocol
        built = MODELS.build(cfg)
    # Inside an encoder the neck must give all tokens.
    check('backbone.neck.out_type', getattr(built, 'out_type', 'raw'), choices=('raw',))
    encoder.llm_neck = built
    from lm4ve.necks.neck_hook import ThroughNeck

    name = next(n for n, m in encoder.named_modules() if m is place)
    hook = ThroughNeck(encoder, name, index, defaults_of(encoder, after).get('layout'))
    encoder.register_forward_pre_hook(hook.enter, with_kwargs=True)
    place.register_forward_hook(hook)
    return encoder


def defaults_of(encoder: nn.Module, after: str) -> dict[str, Any]:
    """Return the neck's arguments where nothing is said: no norm, and torch's own layout."""
    within = [m for n, m in encoder.named_modules() if f'{after}.'.startswith(f'{n}.' if n else '')]
    parts = (part for m in within if isinstance(m, _SEQUENCES) for part in m.modules())
    tokens_first = not all(getattr(part, 'batch_first', True) for part in parts)
    return dict(norm_cfg=None, **(dict(layout='NBC') if tokens_first else {}))


def find_place(encoder: nn.Module, after: str) -> nn.Module:
    """Return the submodule of a name, in an encoder that has no block yet.

    Of a sequence it is the last module, which runs also where a host calls one after the other
    (timm's gradient checkpointing).

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
    place: Any = modules.get(after)
    if place is None or type(place).forward is nn.Module.forward:
        what = 'no submodule' if place is None else 'only a container, which is never called,'
        near = [f'{after}.{n}' for n, _ in place.named_children()] if place else [*modules]
        raise UserError(
            f"after='{after}' is {what} of {kind}.{did_you_mean(after, modules)} Fix: name one of "
            f'{listing(near, 12)}.'
        )
    every = [m for _, m in encoder.named_modules(remove_duplicate=False)]
    # Unless the last one is used elsewhere too.
    while type(place).forward is nn.Sequential.forward and [*map(every.count, place)][-1:] == [1]:
        place = place[-1]
    found: nn.Module = place
    return found
