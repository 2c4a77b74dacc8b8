"""``LLMBlockInsert``: a block at any place inside an encoder.

The paper compares head, middle and tail (appendix). The neck is attached to the
output of a named submodule by a forward hook, so that the encoder stays the
class it is: its weights keep their names, ``out_indices`` and layer-wise
learning rate decay work as before.
"""

import copy
from collections.abc import Mapping
from typing import Any

from mmengine.registry import MODELS
from torch import Tensor, nn

from lm4ve.errors import UserError
from lm4ve.necks.first_batch import FirstBatch, callable_names
from lm4ve.necks.llm_block_neck import LLMBlockNeck


class _ThroughNeck:
    """A forward hook that replaces a module's output by the neck's.

    An object rather than a closure: a deep copy of the model (EMA) then copies
    its reference to the neck along with the neck.
    """

    def __init__(self, neck: Any, index: int | str, first_batch: FirstBatch) -> None:
        self.neck = neck
        self.index = index
        self.first_batch = first_batch

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        # Patch embeddings and Swin's stages return (tokens, grid size).
        several = isinstance(output, (tuple, list, Mapping))
        x = self._entry(output) if several else output
        if not self.first_batch.sees(x):
            return output
        out = self.neck(x)
        if isinstance(out, tuple) and isinstance(out[-1], dict):  # mmaction2's (x, losses)
            out = out[0]
        if not several:
            return out
        # A copy: what the module keeps of its output stays as it is.
        entries: Any = copy.copy(output) if isinstance(output, Mapping) else list(output)
        entries[self.index] = out
        return tuple(entries) if isinstance(output, tuple) else entries

    def _entry(self, output: Any) -> Any:
        named = dict(output) if isinstance(output, Mapping) else dict(enumerate(output))
        index: Any = self.index
        if isinstance(index, int) and index < 0:
            index += len(named)
        if isinstance(named.get(index), Tensor):
            return named[index]
        kinds = {
            k: list(o.shape) if isinstance(o, Tensor) else type(o).__name__
            for k, o in named.items()
        }
        raise UserError(
            f'backbone.index={self.index!r} of {self.neck.use.place} names no features: that '
            f'module returns {kinds}. Fix: the index (of a dict the key) of the entry that the '
            'encoder uses.'
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
            a neck already, or the neck changes the layout. The first batch raises it too: if
            the submodule did not run, or if its output has the samples in another dimension.
    """
    encoder: nn.Module = backbone if isinstance(backbone, nn.Module) else MODELS.build(backbone)
    built = neck if isinstance(neck, nn.Module) else _build_neck(neck)
    if getattr(built, 'out_type', 'raw') != 'raw':
        raise UserError(
            f"backbone.neck.out_type='{built.out_type}': inside an encoder the neck must give all "
            "tokens. Fix: set it to 'raw'."
        )
    place = _place(encoder, after)
    if hasattr(encoder, 'llm_neck'):
        raise UserError(
            f'{type(encoder).__name__} has a block already (llm_neck). Fix: give that one several '
            'layers (block.layers).'
        )
    if isinstance(built, LLMBlockNeck):
        built.use.place = f"after='{after}' of {type(encoder).__name__}"
    encoder.llm_neck = built
    first_batch = FirstBatch(after, built)
    encoder.register_forward_pre_hook(first_batch.before, with_kwargs=True)
    encoder.register_forward_hook(first_batch.after, with_kwargs=True)
    place.register_forward_hook(_ThroughNeck(built, index, first_batch))
    return encoder


def _build_neck(cfg: dict[str, Any]) -> nn.Module:
    """Build a neck that takes and gives tensors, whatever the host's necks do."""
    cfg = {'norm_cfg': None, **cfg}
    if str(cfg.get('type')).rpartition('.')[2] == 'LLMBlockNeck':
        cfg['type'] = LLMBlockNeck  # in mmaction2's scope the name means a class of its protocol
    neck: nn.Module = MODELS.build(cfg)
    return neck


def _place(encoder: nn.Module, after: str) -> nn.Module:
    """Return the submodule of a name.

    Raises:
        UserError: There is none, or it only holds others.
    """
    modules = dict(encoder.named_modules())
    kind = type(encoder).__name__
    if not after or after not in modules:
        parent = after.rpartition('.')[0] if after else ''
        near = [n for n in modules if n and n.rpartition('.')[0] == parent]
        near = near or [n for n, _ in encoder.named_children()]
        raise UserError(
            f"backbone.after='{after}' is no submodule of {kind}. There are: {', '.join(near)}."
        )
    if not callable_names({after: modules[after]}):
        near = callable_names({n: m for n, m in modules.items() if n.startswith(f'{after}.')})
        depth = min((n.count('.') for n in near), default=0)
        near = [n for n in near if n.count('.') == depth]
        raise UserError(
            f"backbone.after='{after}' of {kind} is a {type(modules[after]).__name__}, which only "
            f'holds modules and is never called. Fix: name one of {", ".join(near)}.'
        )
    found: nn.Module = modules[after]
    return found
