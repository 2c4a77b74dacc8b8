"""The hook by which an inserted neck gets a module's output or input.

It stands on the place itself. Others note the calls of the modules around it
(``host_calls.py``), where a padding mask may be found (``host_masks.py``).
"""

import copy
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lm4ve.errors import UserError
from lm4ve.necks import padding
from lm4ve.necks.host_calls import Call, NotedCalls, Signature, running_calls
from lm4ve.necks.host_masks import check_told, find_mask
from lm4ve.necks.interface import features_of
from lm4ve.necks.layouts import DEFAULTS, refuse_other_order
from lm4ve.necks.reader import FeatureReader


class ThroughNeck:
    """A forward hook that sends a module's output, or its entry ``index``, through the neck.

    The neck is looked up in the encoder in each call, since others may put another in
    its place.

    Args:
        encoder (nn.Module): It has the neck as ``llm_neck``.
        after (str): The module's name in the encoder.
        index (int | str): See :func:`lm4ve.necks.LLMBlockInsert`.
        certain_layout (str, optional): The layout that torch's own modules say by
            ``batch_first``.
        number (int, optional): Which of several necks of the encoder.
        mask (Mapping, optional): See :func:`lm4ve.necks.LLMBlockInsert`.

    Attributes:
        key: Distinguishes the calls that are noted for this place from those of others.
        told (dict): How the user says that masks read, by name.
        signature (Signature): The signature of the place.
        around (dict[str, Signature]): The signatures of the modules around the place, by
            name from outside in. The first one, '', is the encoder. Containers, which
            are never called, are left out.
        read_from (set[str]): The names of modules around the place whose calls have had
            its mask. Copies of the hook for replicas share it.
    """

    def __init__(
        self,
        encoder: Any,
        after: str,
        index: int | str,
        certain_layout: str | None,
        number: int | None = None,
        mask: Mapping[str, str] | None = None,
    ) -> None:
        self.encoder = encoder
        self.after = after
        self.index = index
        self.certain_layout = certain_layout
        self.number = number
        self.key = object()
        self.read_from: set[str] = set()
        self.signature = Signature.of(encoder.get_submodule(after))
        self.around = _signatures_around(encoder, after)
        self.told = check_told(mask, [*self.around.values(), self.signature])

    def __deepcopy__(self, memo: dict[int, Any]) -> 'ThroughNeck':
        """Copy the hook for a copy of its encoder, whose neck the new hook runs."""
        hook = copy.copy(self)
        # If only a module of the encoder is copied (by peft), the encoder is not in the
        # memo, and the copy belongs to the same one.
        if id(self.encoder) in memo:
            hook.encoder = memo[id(self.encoder)]
            hook.key = object()
        return hook

    def attach(self, at_input: bool) -> None:
        """Add the hook to its place, and to the modules around it.

        Args:
            at_input (bool): The place's input goes through the neck, not its output.
        """
        self.encoder.register_forward_pre_hook(self.check_encoder)
        for name, signature in self.around.items():
            NotedCalls(self, name, signature).attach(self.encoder.get_submodule(name))
        place = self.encoder.get_submodule(self.after)
        if at_input:
            place.register_forward_pre_hook(self.replace_input, with_kwargs=True)
        else:
            place.register_forward_hook(self, with_kwargs=True)

    # --------------------------------------------------------- around the encoder
    def check_encoder(self, encoder: Any, args: Any) -> None:
        """Check that the hook is still in place; torch calls it before the encoder runs."""
        if getattr(encoder, '_is_replica', False):
            self._replicate(encoder)
        elif not torch.compiler.is_compiling():
            check_place(self)

    def _replicate(self, encoder: nn.Module) -> None:
        """Put a copy of this hook on a replica of the encoder, whose neck it looks up.

        A replica of DataParallel shares the hooks of its original, whose neck is on
        another device.

        Args:
            encoder (nn.Module): The replica.
        """
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
        """Send an argument of the place through the neck; torch calls it before the place.

        Returns:
            tuple: The positional arguments and those by name, one of them replaced.
        """
        if isinstance(self.index, str):
            return args, self._replace(module, kwargs, args, kwargs)
        return self._replace(module, args, args, kwargs), kwargs

    def __call__(
        self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any
    ) -> Any:
        """Send the place's output through the neck; torch calls it after the place."""
        return self._replace(module, output, args, kwargs)

    def _replace(
        self, module: nn.Module, values: Any, args: Any, kwargs: dict[str, Any]
    ) -> Any:
        """Send features through the neck, alone or as an entry of a sequence or of a dict.

        Args:
            module (nn.Module): The place.
            values: What has the features: its output, or its arguments.
            args (tuple): The positional arguments of its call.
            kwargs (dict): Its arguments by name.

        Returns:
            ``values``, with the features replaced.
        """
        given = self.signature.bind(args, kwargs)
        call = Call(self.key, self.after, self.signature, given)
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
        # A copy, since the module may keep its output.
        entries: Any = list(values)
        if isinstance(values, Mapping):
            entries = copy.copy(values)
        entries[self.index] = self._run(features, call)
        if isinstance(values, tuple):
            return tuple(entries)
        return entries

    def _run(self, x: Tensor, call: Call) -> Any:
        """Run the neck on features, with a mask where some of them are padding.

        Args:
            x (Tensor): The features in the neck's layout; or a nested tensor of samples
                of several lengths, ``[B, *, C]``, which the neck reads padded.
            call (Call): The call of the hooked module that ``x`` comes from. A padding
                mask is looked for in its arguments and in those of the calls around it.

        Returns:
            Tensor: The neck's output, in the layout of ``x``; nested if ``x`` is.
        """
        neck = self.encoder.llm_neck
        if self.number is not None:
            neck = neck[self.number]
        if x.is_nested:
            padded, is_padding, lengths = padding.pad_nested(x)
            out = features_of(neck(padded, padding_mask=is_padding))
            return padding.nest(out, lengths, x.layout)
        padding_mask, x = self._find_padding(neck, x, call)
        if padding_mask is None:
            return features_of(neck(x))
        return features_of(neck(x, padding_mask=padding_mask))

    def _find_padding(
        self, neck: Any, x: Tensor, call: Call
    ) -> tuple[Tensor | None, Tensor]:
        """Find the padding among the features of a call of the place.

        Args:
            neck (nn.Module): The neck that reads them.
            x (Tensor): The features.
            call (Call): The call. Its arguments, and those of the calls around it, are
                searched for a mask.

        Returns:
            tuple[Tensor | None, Tensor]: Bool ``[B, N]``, True = padding (None: nothing is
            padded), and the features; see :func:`lm4ve.necks.padding.padding_of`.

        Raises:
            UserError: A mask is unknown, lost or of another shape, or the features are
                laid out otherwise.
        """
        calls = [call, *running_calls(self.key)]
        self._check_order(neck, x, calls[-1])
        layout = getattr(neck, 'layout', None) or DEFAULTS.get(x.dim(), '')
        mask = find_mask(calls, self.told)
        if mask is None or mask.name is None:
            self._refuse_lost_mask(calls)
            return None, x
        if len(layout) != x.dim():
            return None, x  # the neck refuses such features
        if mask.call is not call and mask.call.name not in self.read_from:
            self._refuse_lost_mask(calls)
            self.read_from.add(mask.call.name)
        extra = getattr(neck, 'num_extra_tokens', 0)
        return padding.padding_of(mask, x, layout, extra)

    def _refuse_lost_mask(self, calls: list[Call]) -> None:
        """Refuse to run the place in a backward pass if its padding mask is out of reach.

        Gradient checkpointing runs a module again in the backward pass, without the
        modules around it. If one of those was given the padding mask, the block would
        attend to padding in the second run.

        Args:
            calls (list[Call]): The calls that run now. In the second run of the whole
                encoder they are those of the forward pass.

        Raises:
            UserError: The call of a module that has had the mask is missing, and a
                backward pass is running.
        """
        if torch.compiler.is_compiling():
            return
        running = {call.name for call in calls}
        if self.read_from <= running or not _is_in_backward_pass():
            return
        raise UserError(
            f"'{self.after}' is recomputed in the backward pass (gradient "
            'checkpointing), out of reach of the padding mask of the forward pass. '
            'Fix: a place that is itself given the mask, or no checkpointing '
            'around it (with_cp=True of the neck is fine).'
        )

    def _check_order(self, neck: Any, x: Tensor, outermost: Call) -> None:
        """Refuse sequence-first features that would be read as batch-first, and the reverse.

        Args:
            neck (nn.Module): The neck.
            x (Tensor): The features.
            outermost (Call): The outermost call that runs now; only the encoder's shows
                the number of samples.

        Raises:
            UserError: See :func:`lm4ve.necks.layouts.refuse_other_order`.
        """
        reader = getattr(neck, 'reader', None)
        # Any module may be a neck.
        if not isinstance(reader, FeatureReader) or torch.jit.is_tracing():
            return
        if not getattr(neck, 'guard', True):
            return
        is_certain = reader.layout is not None and reader.layout == self.certain_layout
        if is_certain or outermost.name != '':
            return
        samples = _count_samples(outermost)
        if samples is not None:
            refuse_other_order(x, samples, reader.layout, reader.ruled_out, self.after)


def remove_hooks(encoder: nn.Module) -> None:
    """Remove the hooks of all places of an encoder, which computes without its necks then."""
    for module in encoder.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key, hook in list(hooks.items()):
                # A hook is a `ThroughNeck`, or a method of one or of a `NotedCalls`.
                owner = getattr(hook, '__self__', hook)
                if isinstance(owner, (ThroughNeck, NotedCalls)):
                    del hooks[key]


def _exchange_hook(module: nn.Module, attribute: str, old: Any, new: Any) -> None:
    """Replace a hook of a replica by another, and leave the original module as it is.

    A replica shares its dicts of hooks with the original, so it gets a dict of its own.

    Args:
        module (nn.Module): The replica of a module, which may lack the hook.
        attribute (str): The name of the dict, '_forward_hooks' or
            '_forward_pre_hooks'.
        old (Callable): The hook that is replaced.
        new (Callable): The hook that stands in its place, in the same order.
    """
    hooks = getattr(module, attribute)
    if not any(hook == old for hook in hooks.values()):
        return
    own = OrderedDict()
    for key, hook in hooks.items():
        own[key] = new if hook == old else hook
    setattr(module, attribute, own)


def _entry_of(values: Any, index: int | str) -> Any:
    """Return an entry of a sequence or a dict; None if there is no such entry.

    A dict is asked by ``get``, so that one with a default factory gets no new entry.
    """
    try:
        if isinstance(values, Mapping):
            return values.get(index)
        return values[index]
    except (LookupError, TypeError):
        return None


def _describe_entries(values: Any) -> dict[Any, Any]:
    """Describe the entries of a sequence or a dict for a message.

    Returns:
        dict: Index or key -> the entry's shape, or the name of its type if it has none.
    """
    if isinstance(values, Mapping):
        entries = dict(values)
    else:
        entries = dict(enumerate(values))
    described: dict[Any, Any] = {}
    for name, value in entries.items():
        shape = list(getattr(value, 'shape', ()))
        if shape:
            described[name] = shape
        else:
            described[name] = type(value).__name__
    return described


def _is_in_backward_pass() -> bool:
    """Return whether autograd is running a backward pass in this thread.

    torch has no public function for it; -1 is its number of "no graph".
    """
    return torch._C._current_graph_task_id() != -1


def _count_samples(call: Call) -> int | None:
    """Return the number of samples in a call of the encoder.

    It is the size of the first argument that is a tensor with several dimensions; None
    if no argument is.
    """
    for value in call.given.values():
        if isinstance(value, Tensor) and value.dim() > 1:
            return value.shape[0]
    return None


def _signatures_around(encoder: nn.Module, place: str) -> dict[str, Signature]:
    """Return the signatures of the modules around a place, by name from outside in.

    Containers, which are never called, are left out.

    Args:
        encoder (nn.Module): The encoder, whose name is ''.
        place (str): The place's name in it, for example 'encoder.layers.5'. Its modules
            are '', 'encoder' and 'encoder.layers'.
    """
    parts = place.split('.')
    signatures = {}
    for depth in range(len(parts)):
        name = '.'.join(parts[:depth])
        module = encoder.get_submodule(name)
        is_container = type(module).forward is nn.Module.forward
        if not is_container:
            signatures[name] = Signature.of(module)
    return signatures


def check_place(hook: ThroughNeck) -> None:
    """Check that a hook is still where it was put.

    Raises:
        UserError: Its place was deleted or replaced, or got an adapter.
    """
    name = hook.after
    current_name = _find_place(hook.encoder, name)
    if current_name is None:
        raise UserError(
            f"'{name}' was replaced by another module, or removed, after it got its "
            'block, which does not run. Fix: convert the model (SyncBatchNorm, '
            'quantization, pruning), then wrap it.'
        )
    if current_name.rpartition('.')[2] == 'base_layer':
        raise UserError(
            f"'{name}' has got an adapter (peft), which acts after the block, but "
            'before it once merged. Fix: leave it out of target_modules '
            '(exclude_modules), or get_peft_model first and lm4ve.wrap then.'
        )


def _find_place(encoder: nn.Module, name: str) -> str | None:
    """Return the current name of the submodule that has the hook of a place.

    Wrappers and adapters can have renamed it. None: no submodule has the hook.

    Args:
        encoder (nn.Module): The encoder.
        name (str): The name that the place had when its hook was added.
    """
    try:
        place = encoder.get_submodule(name)
    except AttributeError:  # renamed, or a wrapper around what holds it
        place = None
    if place is not None and _has_hook(place, name):
        return name
    for current_name, module in encoder.named_modules():
        if _has_hook(module, name):
            return str(current_name)
    return None


def _has_hook(module: nn.Module, name: str) -> bool:
    """Return whether a module has the hook of the place ``name``, at output or input."""
    for hook in module._forward_hooks.values():
        if isinstance(hook, ThroughNeck) and hook.after == name:
            return True
    for hook in module._forward_pre_hooks.values():
        replaces_input = getattr(hook, '__name__', '') == 'replace_input'
        owner = getattr(hook, '__self__', None)
        if replaces_input and isinstance(owner, ThroughNeck) and owner.after == name:
            return True
    return False
