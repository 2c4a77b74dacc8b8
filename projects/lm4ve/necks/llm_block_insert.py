"""``LLMBlockInsert``: a block at any place inside an encoder.

The paper compares head, middle and tail (appendix). The neck is attached to the
output of a named submodule by a forward hook, so that the encoder stays the
class it is: its weights keep their names, ``out_indices`` and layer-wise
learning rate decay work as before.
"""

import copy
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from lm4ve.errors import UserError, check, did_you_mean, listing
from lm4ve.necks.llm_block_neck import LLMBlockNeck

#: Modules of torch whose tokens come before samples unless ``batch_first`` is set.
_SEQUENCES = (
    *(nn.TransformerEncoder, nn.TransformerEncoderLayer, nn.TransformerDecoder),
    *(nn.TransformerDecoderLayer, nn.MultiheadAttention, nn.RNNBase),
)


class _ThroughNeck:
    """A forward hook that sends a module's output, or its entry ``index``, through the neck.

    The neck is looked up in the encoder in each call, since others may put another in its place.

    Args:
        encoder (nn.Module): It has the neck as ``llm_neck``.
        after (str): The module's name in the encoder.
        index (int | str): See :func:`LLMBlockInsert`.
    """

    def __init__(self, encoder: Any, after: str, index: int | str) -> None:
        self.encoder, self.after, self.index = encoder, after, index
        self.known_layout = defaults_of(encoder, after).get('layout')
        self.samples: int | None = None  # of the encoder's input

    def __deepcopy__(self, memo: dict[int, Any]) -> '_ThroughNeck':
        hook = copy.copy(self)
        # Of a module alone that is copied (by peft), the encoder stays the same.
        hook.encoder = memo.get(id(self.encoder), self.encoder)
        return hook

    def enter(self, encoder: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before the encoder runs: count samples; give a replica of DataParallel its own hook."""
        hook = self
        if getattr(encoder, '_is_replica', False):
            place, hook = encoder.get_submodule(self.after), copy.copy(self)
            hook.encoder = encoder
            hooks = place._forward_hooks.items()
            place._forward_hooks = OrderedDict((k, hook if h is self else h) for k, h in hooks)
        tensors = (x for x in (*args, *kwargs.values()) if isinstance(x, Tensor) and x.dim() > 1)
        hook.samples = next((x.shape[0] for x in tensors), None)

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        """Replace the output."""
        if isinstance(output, Tensor):
            return self._run(output)
        # Patch embeddings and Swin's stages return (tokens, grid size).
        index = self.index
        try:
            features = output.get(index) if isinstance(output, Mapping) else output[index]
        except (LookupError, TypeError):
            features = None
        if not isinstance(features, Tensor):
            named = output.items() if isinstance(output, Mapping) else enumerate(output)
            kinds = {k: list(getattr(v, 'shape', ())) or type(v).__name__ for k, v in named}
            raise UserError(
                f'index={index!r} names no features: {type(module).__name__} returns {kinds}. '
                'Fix: the index (of a dict the key) of the entry that the encoder uses.'
            )
        # A copy: what the module keeps of its output stays as it is.
        entries: Any = copy.copy(output) if isinstance(output, Mapping) else list(output)
        entries[index] = self._run(features)
        return tuple(entries) if isinstance(output, tuple) else entries

    def _run(self, x: Tensor) -> Any:
        """Run the neck; of its output in mmaction2's protocol ``(x, losses)`` return x."""
        neck = self.encoder.llm_neck
        layout = getattr(neck, 'layout', None) or 'BNC'
        unsure = not torch.jit.is_tracing() and layout != self.known_layout
        if x.dim() == len(layout) == 3 and unsure and neck.guard:
            places = [layout.index('B'), layout.index('C')]
            if x.shape[places[0]] != self.samples == x.shape[3 - sum(places)]:
                raise UserError(
                    f"after='{self.after}' gives {list(x.shape)} of {self.samples} samples, which "
                    f"layout={layout!r} has in dimension {places[0]}. Fix: another layout (CLIP's "
                    "is 'NBC')."
                )
        out = neck(x)
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
        cfg = {**defaults_of(encoder, after), **neck}
        if str(cfg.get('type')).rpartition('.')[2] == 'LLMBlockNeck':
            cfg['type'] = LLMBlockNeck  # in mmaction2's scope the name means one of its protocol
        built = MODELS.build(cfg)
    # Inside an encoder the neck must give all tokens.
    check('backbone.neck.out_type', getattr(built, 'out_type', 'raw'), choices=('raw',))
    encoder.llm_neck = built
    name = next(n for n, m in encoder.named_modules() if m is place)
    hook = _ThroughNeck(encoder, name, index)
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
