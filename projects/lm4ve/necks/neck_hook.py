"""The hook by which an inserted neck gets a module's output or input.

It stands on the place itself, and notes the calls of the modules around it, where a
padding mask may be found (``host_masks.py``).
"""

import copy
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lm4ve.errors import UserError
from lm4ve.necks import host_masks
from lm4ve.necks.host_calls import Call, close_call, open_call, running_calls
from lm4ve.necks.host_signature import Signature, check_mask, signature_of
from lm4ve.necks.interface import features_of
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

    Attributes:
        key: Distinguishes the calls that this hook has noted from those of other hooks.
        signature (Signature): The signature of the place.
        around (dict[str, Signature]): Those of the modules around it that may be given
            a mask, the encoder's ('') first.
        reads_around (bool): Whether padding was ever found in a call around the place,
            not in its own.
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
        self.encoder = encoder
        self.after = after
        self.index = index
        self.number = number
        self.key = object()
        self.reads_around = False
        place = encoder.get_submodule(after)
        around = {name: encoder.get_submodule(name) for name in _names_around(after)}
        self.known_layout = known_layout
        if known_layout is None and _are_batch_first([*around.values(), place]):
            self.known_layout = 'BNC'
        called = {}
        for name, module in around.items():
            is_container = type(module).forward is nn.Module.forward
            if not is_container:
                called[name] = module
        given = check_mask(mask, [*called.values(), place])
        self.signature = signature_of(place, given)
        self.around = {
            name: signature_of(module, given) for name, module in called.items()
        }

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
            is_encoder = name == ''
            if is_encoder or not signature.may_get_mask:
                continue
            around = Around(self, signature)
            module = self.encoder.get_submodule(name)
            module.register_forward_pre_hook(around.enter, with_kwargs=True)
            module.register_forward_hook(around.leave, always_call=True)
        place = self.encoder.get_submodule(self.after)
        if at_input:
            place.register_forward_pre_hook(self.replace_input, with_kwargs=True)
        else:
            place.register_forward_hook(self, with_kwargs=True)

    # --------------------------------------------------------- around the encoder
    def enter(
        self, encoder: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Before the encoder runs: note its call, and check that the hook is in place."""
        if getattr(encoder, '_is_replica', False):
            self._replicate(encoder)
        elif not torch.compiler.is_compiling():
            check_place(self)
        signature = self.around['']
        open_call(Call(self.key, signature, signature.bind(args, kwargs)))

    def leave(self, encoder: Any, args: Any, output: Any) -> None:
        """After the encoder has run, or has raised: forget its call."""
        close_call(self.key, self.around[''])

    def _replicate(self, encoder: nn.Module) -> None:
        """Give a replica of DataParallel a hook of its own, which finds its neck there."""
        hook = copy.copy(self)
        hook.encoder = encoder
        for module in encoder.modules():
            _exchange_hook(module, '_forward_hooks', self, hook)
            _exchange_hook(
                module, '_forward_pre_hooks', self.replace_input, hook.replace_input
            )

    # ---------------------------------------------------------------- at the place
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
        """Send features through the neck, alone or as an entry of a sequence or of a dict.

        Args:
            module (nn.Module): The place.
            values: Its output, or its arguments.
            args (tuple): The arguments of its call.
            kwargs (dict): Those by name.

        Returns:
            ``values``, with the features replaced.
        """
        call = Call(self.key, self.signature, self.signature.bind(args, kwargs))
        if isinstance(values, Tensor):
            return self._run(values, call)
        # Patch embeddings and Swin's stages return (tokens, grid size).
        features = _entry_of(values, self.index)
        if not isinstance(features, Tensor):
            kind = type(module).__name__
            raise UserError(
                f'index={self.index!r} names no features: {kind} returns '
                f'{_describe_entries(values)}. Fix: the index (of a dict the key) of '
                'the entry that the encoder uses.'
            )
        # A copy: what the module keeps of its output stays as it is.
        entries: Any = list(values)
        if isinstance(values, Mapping):
            entries = copy.copy(values)
        entries[self.index] = self._run(features, call)
        if isinstance(values, tuple):
            return tuple(entries)
        return entries

    def _run(self, x: Tensor, call: Call) -> Any:
        """Run the neck on the features of a call of the place."""
        neck = self.encoder.llm_neck
        if self.number is not None:
            neck = neck[self.number]
        if x.is_nested:
            padded, padding, lengths = host_masks.pad_nested(x)
            out = features_of(neck(padded, padding_mask=padding))
            return host_masks.nest(out, lengths, x.layout)
        padding_mask = self._find_padding(neck, x, call)
        if padding_mask is None:
            return features_of(neck(x))
        return features_of(neck(x, padding_mask=padding_mask))

    def _find_padding(self, neck: Any, x: Tensor, call: Call) -> Tensor | None:
        """Find the padding among the features of a call of the place.

        Returns:
            Tensor | None: Bool ``[B, N]``, True = padding; None: nothing is padded.

        Raises:
            UserError: A mask is unknown, lost or of another shape, or the features are
                laid out otherwise.
        """
        calls = [call, *running_calls(self.key)]
        named_layout = getattr(neck, 'layout', None)
        layout = named_layout or DEFAULTS.get(x.dim(), '')
        is_sequence = x.dim() == 3 and len(layout) == 3
        if is_sequence and neck.guard and not torch.jit.is_tracing():
            self._check_layout(x, layout, calls[-1], is_named=bool(named_layout))
        mask = host_masks.find_mask(calls)
        if mask is None:
            self._refuse_lost_mask(calls)
            return None
        if mask.name is None:
            return None
        if len(layout) != x.dim():
            return None  # the neck refuses such features
        if mask.call is not call and not self.reads_around:
            self.reads_around = True
        extra = getattr(neck, 'num_extra_tokens', 0)
        return host_masks.padding_of(mask.call, mask.name, x, layout, extra)

    def _refuse_lost_mask(self, calls: list[Call]) -> None:
        """Refuse a recomputation in the backward pass that lacks the calls around it.

        Raises:
            UserError: One of them gave the mask in the forward pass.
        """
        is_whole = calls[-1].signature is self.around['']
        if not self.reads_around or is_whole or torch.compiler.is_compiling():
            return
        is_backward = torch._C._current_graph_task_id() != -1
        if is_backward:
            raise UserError(
                f"'{self.after}' is recomputed in the backward pass (gradient "
                'checkpointing), out of reach of the padding mask of the forward pass. '
                'Fix: a place that is itself given the mask, or no checkpointing '
                'around it (with_cp=True of the neck is fine).'
            )

    def _check_layout(
        self, x: Tensor, layout: str, outer: Call, is_named: bool
    ) -> None:
        """Refuse sequence-first features that would be read as batch-first, and the reverse.

        Args:
            x (Tensor): Features with three dimensions.
            layout (str): The neck's layout.
            outer (Call): The outermost call.
            is_named (bool): Whether the user has named the layout.

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
            f"layout={layout!r} has in dimension {batch}. Fix: another layout (CLIP's "
            "is 'NBC'), or layout='BNC' if frames or windows are folded into the "
            'samples.'
        )


class Around:
    """Notes the calls of a module between the encoder and a hook's place.

    Args:
        hook (ThroughNeck): The hook.
        signature (Signature): The signature of the module.
    """

    def __init__(self, hook: ThroughNeck, signature: Signature) -> None:
        self.hook = hook
        self.signature = signature

    def enter(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Before the module runs: note its call."""
        given = self.signature.bind(args, kwargs)
        open_call(Call(self.hook.key, self.signature, given))

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        """After the module has run, or has raised: forget its call."""
        close_call(self.hook.key, self.signature)


def _exchange_hook(module: nn.Module, attribute: str, old: Any, new: Any) -> None:
    """Put a hook in the place of another, in a dict of a module's own.

    Args:
        module (nn.Module): A replica, which shares its dicts with the original.
        attribute (str): The dict's name.
        old (Callable): The hook that is replaced, if the module has it.
        new (Callable): The other one.
    """
    hooks = getattr(module, attribute)
    if not any(hook == old for hook in hooks.values()):
        return
    own = OrderedDict()
    for key, hook in hooks.items():
        own[key] = new if hook == old else hook
    setattr(module, attribute, own)


def _entry_of(values: Any, index: int | str) -> Any:
    """Return an entry of a sequence or of a dict; None without one."""
    try:
        if isinstance(values, Mapping):
            return values.get(index)
        return values[index]
    except (LookupError, TypeError):
        return None


def _describe_entries(values: Any) -> dict[Any, Any]:
    """Return the shapes of the tensors in a sequence or in a dict, else their types."""
    named = values.items() if isinstance(values, Mapping) else enumerate(values)
    described = {}
    for name, value in named:
        shape = list(getattr(value, 'shape', ()))
        described[name] = shape if shape else type(value).__name__
    return described


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
        path = type(module).__module__
        if path.startswith('torch.'):
            continue
        has_tokens_first = any(part in _TOKENS_FIRST for part in path.split('.'))
        return path.startswith(_SAMPLES_FIRST) and not has_tokens_first
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
            f"'{name}' was replaced by another module, or removed, after it got its "
            'block, which does not run. Fix: convert the model (SyncBatchNorm, '
            'quantization, pruning), then wrap it.'
        )
    if found.rpartition('.')[2] == 'base_layer':
        raise UserError(
            f"'{name}' has got an adapter (peft), which acts after the block, but "
            'before it once merged. Fix: leave it out of target_modules '
            '(exclude_modules), or get_peft_model first and lm4ve.wrap then.'
        )


def _find(encoder: nn.Module, name: str) -> str | None:
    """Find the submodule that has the hook of a place: its name now, or None."""
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
    for hook in module._forward_hooks.values():
        if isinstance(hook, ThroughNeck) and hook.after == name:
            return True
    for hook in module._forward_pre_hooks.values():
        replaces_input = getattr(hook, '__name__', '') == 'replace_input'
        owner = getattr(hook, '__self__', None)
        if replaces_input and isinstance(owner, ThroughNeck) and owner.after == name:
            return True
    return False
