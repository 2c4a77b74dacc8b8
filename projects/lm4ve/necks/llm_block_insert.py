"""``LLMBlockInsert``: blocks at any places inside an encoder.

The paper compares head, middle and tail (appendix). The neck is attached to the
output or input of a named submodule by a hook, so that the encoder stays the
class it is: its weights keep their names, ``out_indices`` and layer-wise
learning rate decay work as before.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import ModuleList
from mmengine.registry import MODELS
from torch import nn

from lm4ve.compat.transformers_capture import capture_afterwards
from lm4ve.errors import UserError, check, closest, did_you_mean, listing, require
from lm4ve.necks.neck import LLMBlockNeck
from lm4ve.necks.record import write_records

#: Modules of torch whose tokens come before samples unless ``batch_first`` is set.
_SEQUENCES = (
    *(nn.TransformerEncoder, nn.TransformerEncoderLayer, nn.TransformerDecoder),
    *(nn.TransformerDecoderLayer, nn.MultiheadAttention, nn.RNNBase),
)
#: Names of parameters that are tokens before the patches.
_FIRST = re.compile(r'(^|[._])(cls|class|dist[a-z]*|reg[a-z]*)_(tokens?|embedding)$')


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
    """Build a backbone in which named submodules' outputs or inputs go through a neck.

    Args:
        backbone (dict | nn.Module): The encoder.
        after (str | Sequence[str], optional): Name of a submodule whose output is
            tokens or a map, for example 'layers.5', or 'drop_after_pos' for before the
            first block of mmpretrain's ViT. A list of names for a neck at each.
        neck (dict | nn.Module | Sequence): Config of :class:`lm4ve.necks.LLMBlockNeck`
            with ``out_type='raw'``. Its ``norm_cfg`` is None unless given,
            since the next layer of the encoder normalizes its own input. A list has one
            for each place, those of ``after`` first.
        index (int | str): Which entry passes through the neck if the submodule returns
            a sequence, or the key if it returns a dict. The others stay. With
            ``before`` the argument's number, or its name if the encoder passes it by
            name.
        before (str | Sequence[str], optional): Name of a submodule whose input goes
            through the neck (MedVisionLlama: before the first layer).
        share_block (bool): Necks at several places have mappers of their own and one
            block.
        mask (dict, optional): How the host's arguments mark padding, where their names
            do not show it (``lm4ve/necks/mask_names.py`` lists those that do): name ->
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
    encoder: nn.Module = (
        backbone if isinstance(backbone, nn.Module) else MODELS.build(backbone)
    )
    places = find_places(encoder, after, before)
    given = (
        [*neck] if isinstance(neck, (Sequence, nn.ModuleList)) else [neck] * len(places)
    )
    require(
        len(given) == len(places),
        f'backbone.neck: {len(given)} necks for {len(places)} places. Fix: one for all of them, or '
        'one for each.',
    )
    necks: list[Any] = []
    for (_, name, at_input), fields in zip(places, given, strict=True):
        built: Any = fields
        if share_block or not isinstance(fields, nn.Module):
            check('backbone.neck', fields, kind=dict)
            cfg = {**defaults_of(encoder, name), **fields}
            if str(cfg.get('type')).rpartition('.')[2] == 'LLMBlockNeck':
                cfg['type'] = (
                    LLMBlockNeck  # in mmaction2's scope the name means one of its own
                )
            if necks and share_block:
                if cfg.get('block') != given[0].get('block'):
                    raise UserError(
                        'backbone.neck: with share_block all necks name one block.'
                    )
                cfg['block'] = necks[0].block
            built = MODELS.build(cfg)
        # Inside an encoder the neck must give all tokens.
        out_type = getattr(built, 'out_type', 'raw')
        require(
            out_type == 'raw',
            f"backbone.neck.out_type='{out_type}' gives a vector, but the layers after the neck "
            "read all tokens. Fix: backbone.neck.out_type='raw'.",
        )
        if isinstance(built, LLMBlockNeck):
            where = 'before' if at_input else 'after'
            built.record.place = f"{where}='{name}', index={index!r}"
            if mask:
                built.record.place += f', mask={dict(mask)!r}'
            _check_drawn(encoder, built)
        necks.append(built)
    write_records([neck for neck in necks if isinstance(neck, LLMBlockNeck)])
    several = not has_one_place(after, before)
    neck = ModuleList(necks) if several else necks[0]
    from lm4ve.necks.neck_hook import ThroughNeck

    names = {m: n for n, m in encoder.named_modules()}
    hooks = []
    for i, (place, name, _) in enumerate(places):
        layout = defaults_of(encoder, name).get('layout')
        number = i if several else None
        hooks.append(ThroughNeck(encoder, names[place], index, layout, number, mask))
    encoder.llm_neck = neck.train(encoder.training)
    for hook, (place, _, at_input) in zip(hooks, places, strict=True):
        hook.attach(at_input)
        if not at_input:
            capture_afterwards(place)
    forget_compiled_code()
    return encoder


def forget_compiled_code() -> None:
    """Let models that were compiled and have run be compiled anew, with hooks that came later.

    What ``torch.compile`` has made of a model does not look at its hooks again, so that
    a block would have no effect. Nothing happens where nothing was compiled.
    """
    if 'torch._dynamo' in sys.modules:
        torch.compiler.reset()


def _check_drawn(encoder: nn.Module, neck: LLMBlockNeck) -> None:
    """Refuse to draw from class, distillation and register tokens, which the encoder reads first.

    Raises:
        UserError: The encoder has some, and the neck would draw from them.
    """
    tokens = [n for n, _ in encoder.named_parameters() if _FIRST.search(n)]
    if neck.draws_tokens and tokens and not neck.num_extra_tokens:
        raise UserError(
            f'backbone.neck.train_queries draws from {listing(tokens)} too, which '
            f'{type(encoder).__name__} reads first. Fix: num_extra_tokens, their number.'
        )


def has_one_place(after: Any, before: Any) -> bool:
    """Whether a single name is given."""
    return isinstance(after or before, str) and (after is None or before is None)


def find_places(
    encoder: nn.Module,
    after: str | Sequence[str] | None,
    before: str | Sequence[str] | None,
) -> list[tuple[nn.Module, str, bool]]:
    """Return each place: the submodule, its name as given, and whether its input is meant.

    Raises:
        UserError: There is none; see :func:`find_place`.
    """
    places = [
        (find_place(encoder, name, at_input), name, at_input)
        for names, at_input in ((after, False), (before, True))
        for name in ([names] if isinstance(names, str) else names or ())
    ]
    if not places:
        raise UserError(
            'A block needs a place. Fix: name a submodule in after= or before=.'
        )
    return places


def defaults_of(encoder: nn.Module, after: str) -> dict[str, Any]:
    """Return a neck's default arguments: no norm, and the layout of torch's own modules."""
    within = [
        m
        for n, m in encoder.named_modules()
        if f'{after}.'.startswith(f'{n}.' if n else '')
    ]
    parts = (part for m in within if isinstance(m, _SEQUENCES) for part in m.modules())
    tokens_first = not all(getattr(part, 'batch_first', True) for part in parts)
    return dict(norm_cfg=None, **(dict(layout='NBC') if tokens_first else {}))


def find_place(encoder: nn.Module, after: str, at_input: bool = False) -> nn.Module:
    """Return the submodule of a name, in an encoder that has no block yet.

    Of a sequence it is the last module, which runs also where a host calls one after
    the other (timm's gradient checkpointing); the first for its input.

    Raises:
        UserError: There is none, it only holds others, or the encoder has a block.
    """
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
    modules = {n: m for n, m in encoder.named_modules() if n}
    place: Any = modules.get(after)
    if place is None or type(place).forward is nn.Module.forward:
        what = (
            'no submodule'
            if place is None
            else 'only a container, which is never called,'
        )
        near = (
            [f'{after}.{n}' for n, _ in place.named_children()] if place else [*modules]
        )
        close = did_you_mean(after, modules) if place is None else ''
        raise UserError(
            f"{'before' if at_input else 'after'}='{after}' is {what} of {kind}."
            f'{close} Fix: name one of {closest(after, near)}.'
        )
    every = [m for _, m in encoder.named_modules(remove_duplicate=False)]
    end = 0 if at_input else -1
    # Unless that one is used elsewhere too.
    while (
        type(place).forward is nn.Sequential.forward
        and len(place)
        and every.count(place[end]) == 1
    ):
        place = place[end]
    found: nn.Module = place
    return found
