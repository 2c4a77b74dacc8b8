"""The forward hook by which an inserted neck gets a module's output.

A module of its own, so that a model whose host calls the neck never imports it.
"""

import copy
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lm4ve.errors import UserError


class ThroughNeck:
    """A forward hook that sends a module's output, or its entry ``index``, through the neck.

    The neck is looked up in the encoder in each call, since others may put another in its place.

    Args:
        encoder (nn.Module): It has the neck as ``llm_neck``.
        after (str): The module's name in the encoder.
        index (int | str): See :func:`lm4ve.necks.LLMBlockInsert`.
        known_layout (str, optional): The layout of the module's output, where its class shows it.
        number (int, optional): Which of several necks of the encoder.
    """

    def __init__(
        self,
        encoder: Any,
        after: str,
        index: int | str,
        known_layout: str | None,
        number: int | None = None,
    ) -> None:
        self.encoder, self.after, self.index = encoder, after, index
        self.known_layout, self.number = known_layout, number
        self.samples: int | None = None  # of the encoder's input

    def __deepcopy__(self, memo: dict[int, Any]) -> 'ThroughNeck':
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
            own = {self: hook, self.replace_input: hook.replace_input}
            for name in ('_forward_hooks', '_forward_pre_hooks'):
                hooks = getattr(place, name).items()
                setattr(place, name, OrderedDict((k, own.get(h, h)) for k, h in hooks))
        tensors = (x for x in (*args, *kwargs.values()) if isinstance(x, Tensor) and x.dim() > 1)
        hook.samples = next((x.shape[0] for x in tensors), None)
        if not (torch.compiler.is_compiling() or _has_hook(encoder, self.after)):
            raise UserError(
                f"'{self.after}' was replaced by another module after it got its block, which does "
                'not run. Fix: convert the model (SyncBatchNorm, quantization), then wrap it.'
            )

    def replace_input(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        """Before the module runs: replace an argument."""
        if isinstance(self.index, str):
            return args, self(module, (), kwargs)
        return self(module, (), args), kwargs

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
        neck = neck if self.number is None else neck[self.number]
        layout = getattr(neck, 'layout', None) or 'BNC'
        unsure = not torch.jit.is_tracing() and layout != self.known_layout
        if x.dim() == len(layout) == 3 and unsure and neck.guard:
            batch, tokens = layout.index('B'), 3 - layout.index('B') - layout.index('C')
            if x.shape[batch] != self.samples == x.shape[tokens]:
                raise UserError(
                    f"after='{self.after}' gives {list(x.shape)} of {self.samples} samples, which "
                    f"layout={layout!r} has in dimension {batch}. Fix: another layout (CLIP's "
                    "is 'NBC')."
                )
        out = neck(x)
        return out[0] if isinstance(out, tuple) and isinstance(out[-1], dict) else out


def _has_hook(encoder: nn.Module, name: str) -> bool:
    """Whether a hook of ours is on a submodule, or on what others have wrapped there."""
    try:
        place = encoder.get_submodule(name)
    except AttributeError:  # a wrapper around what holds it
        place = encoder
    dicts = (d for m in place.modules() for d in (m._forward_hooks, m._forward_pre_hooks))
    hooks = (getattr(h, '__self__', h) for hooks in dicts for h in hooks.values())
    return any(isinstance(h, ThroughNeck) and h.after == name for h in hooks)
