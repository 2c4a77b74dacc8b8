"""The forward hook by which an inserted neck gets a module's output.

A module of its own, so that a model whose host calls the neck never imports it.
"""

import copy
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lm4ve.errors import UserError
from lm4ve.necks import host_masks
from lm4ve.necks.host_masks import Call, Signature
from lm4ve.necks.layouts import DEFAULTS

#: Libraries whose modules have samples first, and those parts of them that may not.
_SAMPLES_FIRST = ('transformers.models.', 'timm.')
_TOKENS_FIRST = (
    'bridgetower',
    'clipseg',
    'conditional_detr',
    'dab_detr',
    'edgetam_video',
    'esmfold',
    'esmfold2',
    'fsmt',
    'led',
    'longformer',
    'mask2former',
    'maskformer',
    'ml_decoder',
    'omdet_turbo',
    'oneformer',
    'prophetnet',
    'sam2_video',
    'sam3_tracker_video',
    'xlnet',
)


class ThroughNeck:
    """A forward hook that sends a module's output, or its entry ``index``, through the neck.

    The neck is looked up in the encoder in each call, since others may put another in
    its place.

    Args:
        encoder (nn.Module): It has the neck as ``llm_neck``.
        after (str): The module's name in the encoder.
        index (int | str): See :func:`lm4ve.necks.LLMBlockInsert`.
        known_layout (str, optional): The layout of the module's output, where its class
            shows it.
        number (int, optional): Which of several necks of the encoder.
        mask (Mapping, optional): See :func:`lm4ve.necks.LLMBlockInsert`.
    """

    def __init__(
        self,
        encoder: Any,
        after: str,
        index: int | str,
        known_layout: str | None,
        number: int | None = None,
        mask: Mapping[str, str] | None = None,
    ) -> None:
        self.encoder, self.after, self.index = encoder, after, index
        self.number = number
        place = encoder.get_submodule(after)
        #: Tells the calls that this hook has noted from those of other hooks.
        self.key = object()
        modules = {name: encoder.get_submodule(name) for name in _names_around(after)}
        self.known_layout = known_layout
        if known_layout is None and _are_batch_first([*modules.values(), place]):
            self.known_layout = 'BNC'
        modules = {
            n: m for n, m in modules.items() if type(m).forward is not nn.Module.forward
        }
        given = host_masks.check_mask(
            mask, [Signature(module, {}) for module in (*modules.values(), place)]
        )
        self.signature = Signature(place, given)
        #: Of the encoder and of the modules between it and the place that may be told
        #: of padding.
        self.around = {
            name: Signature(module, given) for name, module in modules.items()
        }
        #: Whether padding was ever found in a call around the place, not in its own.
        self.reads_around = False

    def __deepcopy__(self, memo: dict[int, Any]) -> 'ThroughNeck':
        hook = copy.copy(self)
        # Of a module alone that is copied (by peft), the encoder stays the same.
        if id(self.encoder) in memo:
            hook.encoder = memo[id(self.encoder)]
            hook.key = object()
        return hook

    def attach(self, at_input: bool) -> None:
        """Add the hook to its place, and to the modules around it.

        Args:
            at_input (bool): The place's input goes through the neck, not its output.
        """
        self.encoder.register_forward_pre_hook(self.enter, with_kwargs=True)
        self.encoder.register_forward_hook(self.leave, always_call=True)
        for name, signature in self.around.items():
            if name and signature.may_be_told:
                around = Around(self, signature)
                module = self.encoder.get_submodule(name)
                module.register_forward_pre_hook(around.enter, with_kwargs=True)
                module.register_forward_hook(around.leave, always_call=True)
        place = self.encoder.get_submodule(self.after)
        if at_input:
            place.register_forward_pre_hook(self.replace_input, with_kwargs=True)
        else:
            place.register_forward_hook(self, with_kwargs=True)

    def enter(
        self, encoder: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Before the encoder runs: note its call; give a replica of DataParallel its own hook."""
        if getattr(encoder, '_is_replica', False):
            self._replicate(encoder)
        elif not torch.compiler.is_compiling():
            check_place(self)
        signature = self.around['']
        host_masks.open_call(Call(self.key, signature, signature.bind(args, kwargs)))

    def leave(self, encoder: Any, args: Any, output: Any) -> None:
        """After the encoder has run, or has raised."""
        host_masks.close_call(self.key, self.around[''])

    def _replicate(self, encoder: nn.Module) -> None:
        """Let the hooks in a replica of the encoder look for the neck there."""
        hook = copy.copy(self)
        hook.encoder = encoder
        for module in encoder.modules():
            if any(h is self for h in module._forward_hooks.values()):
                hooks = module._forward_hooks.items()
                module._forward_hooks = OrderedDict(
                    (k, hook if h is self else h) for k, h in hooks
                )
            if any(h == self.replace_input for h in module._forward_pre_hooks.values()):
                hooks = module._forward_pre_hooks.items()
                own = hook.replace_input
                module._forward_pre_hooks = OrderedDict(
                    (k, own if h == self.replace_input else h) for k, h in hooks
                )

    def replace_input(
        self, module: nn.Module, args: Any, kwargs: dict[str, Any]
    ) -> Any:
        """Before the module runs: replace an argument."""
        if isinstance(self.index, str):
            return args, self._replace(module, kwargs, args, kwargs)
        return self._replace(module, args, args, kwargs), kwargs

    def __call__(
        self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any
    ) -> Any:
        """After the module has run: replace its output."""
        return self._replace(module, output, args, kwargs)

    def _replace(
        self, module: nn.Module, values: Any, args: Any, kwargs: dict[str, Any]
    ) -> Any:
        """Send features through the neck, alone or as an entry of a sequence or of a dict."""
        call = Call(self.key, self.signature, self.signature.bind(args, kwargs))
        if isinstance(values, Tensor):
            return self._run(values, call)
        # Patch embeddings and Swin's stages return (tokens, grid size).
        index = self.index
        try:
            features = (
                values.get(index) if isinstance(values, Mapping) else values[index]
            )
        except (LookupError, TypeError):
            features = None
        if not isinstance(features, Tensor):
            named = values.items() if isinstance(values, Mapping) else enumerate(values)
            kinds = {
                k: list(getattr(v, 'shape', ())) or type(v).__name__ for k, v in named
            }
            raise UserError(
                f'index={index!r} names no features: {type(module).__name__} returns {kinds}. '
                'Fix: the index (of a dict the key) of the entry that the encoder uses.'
            )
        # A copy: what the module keeps of its output stays as it is.
        entries: Any = (
            copy.copy(values) if isinstance(values, Mapping) else list(values)
        )
        entries[index] = self._run(features, call)
        return tuple(entries) if isinstance(values, tuple) else entries

    def _run(self, x: Tensor, call: Call) -> Any:
        """Run the neck on the features of a call of the place."""
        neck = self.encoder.llm_neck
        neck = neck if self.number is None else neck[self.number]
        if x.is_nested:
            padded, padding, lengths = host_masks.pad_nested(x)
            return host_masks.nest(_output_of(neck, padded, padding), lengths, x.layout)
        calls = [call, *host_masks.running_calls(self.key)]
        layout = getattr(neck, 'layout', None) or DEFAULTS.get(x.dim(), '')
        if x.dim() == len(layout) == 3 and neck.guard and not torch.jit.is_tracing():
            self._check_layout(
                x, layout, calls[-1], is_named=getattr(neck, 'layout', None)
            )
        found = host_masks.find_mask(calls)
        if found is None:
            self._refuse_lost_mask(calls)
            return _output_of(neck, x, None)
        told, name = found
        if name is None:
            return _output_of(neck, x, None)
        if len(layout) != x.dim():
            return _output_of(neck, x, None)  # which the neck refuses
        if told is not call and not self.reads_around:
            self.reads_around = True
        extra = getattr(neck, 'num_extra_tokens', 0)
        return _output_of(neck, x, host_masks.padding_of(told, name, x, layout, extra))

    def _refuse_lost_mask(self, calls: list[Call]) -> None:
        """Refuse a recomputation in the backward pass that lacks the calls around it.

        Raises:
            UserError: One of them gave the mask in the forward pass.
        """
        is_whole = calls[-1].signature is self.around['']
        if not self.reads_around or is_whole or torch.compiler.is_compiling():
            return
        if torch._C._current_graph_task_id() != -1:
            raise UserError(
                f"'{self.after}' is recomputed in the backward pass (gradient checkpointing), out "
                'of reach of the padding mask of the forward pass. Fix: a place that is itself '
                'given the mask, or no checkpointing around it (with_cp=True of the neck is fine).'
            )

    def _check_layout(self, x: Tensor, layout: str, outer: Call, is_named: Any) -> None:
        """Refuse sequence-first features that would be read as batch-first, and the reverse.

        Raises:
            UserError: The dimension of samples has another size than the encoder's
                input, and another dimension has that size.
        """
        if layout == self.known_layout or outer.signature is not self.around['']:
            return
        samples = _samples_of(outer)
        batch = layout.index('B')
        tokens = 3 - batch - layout.index('C')
        if samples is None or x.shape[batch] == samples or x.shape[tokens] != samples:
            return
        # Frames and windows are folded into samples: a multiple of them.
        if is_named and x.shape[batch] % samples == 0:
            return
        raise UserError(
            f"after='{self.after}' gives {list(x.shape)} of {samples} samples, which "
            f"layout={layout!r} has in dimension {batch}. Fix: another layout (CLIP's is "
            "'NBC'), or layout='BNC' if frames or windows are folded into the samples."
        )


class Around:
    """Notes the calls of a module between the encoder and a hook's place.

    Args:
        hook (ThroughNeck): The hook.
        signature (Signature): The signature of the module.
    """

    def __init__(self, hook: ThroughNeck, signature: Signature) -> None:
        self.hook, self.signature = hook, signature

    def enter(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Before the module runs."""
        host_masks.open_call(
            Call(self.hook.key, self.signature, self.signature.bind(args, kwargs))
        )

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        """After the module has run, or has raised."""
        host_masks.close_call(self.hook.key, self.signature)


def _output_of(neck: nn.Module, x: Tensor, padding_mask: Tensor | None) -> Any:
    """Run a neck; of its output in mmaction2's protocol ``(x, losses)`` return x."""
    out = neck(x) if padding_mask is None else neck(x, padding_mask=padding_mask)
    return out[0] if isinstance(out, tuple) and isinstance(out[-1], dict) else out


def _samples_of(call: Call) -> int | None:
    """Return how many samples the encoder was called with, by its first tensor."""
    for value in call.given.values():
        if isinstance(value, Tensor) and value.dim() > 1:
            return value.shape[0]
    return None


def _are_batch_first(modules: list[nn.Module]) -> bool:
    """Whether a place is within a library in which samples come first.

    Args:
        modules (list[nn.Module]): The place, after the modules around it.
    """
    for module in reversed(modules):
        name = type(module).__module__
        if not name.startswith('torch.'):
            return name.startswith(_SAMPLES_FIRST) and not {*name.split('.')} & {
                *_TOKENS_FIRST
            }
    return False


def _names_around(name: str) -> Iterator[str]:
    """Return the names of the modules around one, the encoder's ('') first."""
    parts = name.split('.')
    for i in range(len(parts)):
        yield '.'.join(parts[:i])


def check_place(hook: ThroughNeck) -> None:
    """Check that a hook is still where it was put.

    Raises:
        UserError: Its place was deleted or replaced, or got an adapter.
    """
    name = hook.after
    found = _find(hook.encoder, name)
    if found is None:
        raise UserError(
            f"'{name}' was replaced by another module, or removed, after it got its block, which "
            'does not run. Fix: convert the model (SyncBatchNorm, quantization, pruning), then '
            'wrap it.'
        )
    if found.rpartition('.')[2] == 'base_layer':
        raise UserError(
            f"'{name}' has got an adapter (peft), which acts after the block, but before it once "
            'merged. Fix: leave it out of target_modules (exclude_modules), or get_peft_model '
            'first and lm4ve.wrap then.'
        )


def _find(encoder: nn.Module, name: str) -> str | None:
    """Return where a hook of ours is that was put on a submodule: its name now."""
    try:
        place = encoder.get_submodule(name)
    except AttributeError:  # renamed, or a wrapper around what holds it
        place = None
    if place is not None and _has_hook(place, name):
        return name
    for now, module in encoder.named_modules():
        if _has_hook(module, name):
            return str(now)
    return None


def _has_hook(module: nn.Module, name: str) -> bool:
    """Whether the hook that a place was given is on a module."""
    for hooks in (module._forward_hooks, module._forward_pre_hooks):
        for hook in hooks.values():
            owner = getattr(hook, '__self__', hook)
            acts = hook is owner or getattr(hook, '__name__', '') == 'replace_input'
            if acts and isinstance(owner, ThroughNeck) and owner.after == name:
                return True
    return False
