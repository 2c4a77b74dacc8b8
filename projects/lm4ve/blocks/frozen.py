"""Keep a module's tensors out of reach of everything that would change or store them.

Host models re-initialize every ``Linear`` after construction, EMA deep-copies
the model, checkpoints save its ``state_dict()`` and optimizers take its
``parameters()``. ``requires_grad=False`` stops only the optimizers. A
:class:`Frozen` module hides what it wraps from all four, yet computes with it,
moves with ``.to()`` and can be found (and hooked) by its name.
"""

import inspect
from collections.abc import Callable
from copy import deepcopy
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext
from torch.utils.module_tracker import ModuleTracker


class Frozen(nn.Module):
    """Wraps a module whose tensors are read-only, unsaved and shared by copies.

    Args:
        module (nn.Module): Any module without persistent state of its own
            besides its parameters. It is set to eval mode for good.
    """

    wrapped: nn.Module

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        for (
            part
        ) in module.modules():  # a router's bias, which copies share as they do weights
            if (bias := part._buffers.pop('e_score_correction_bias', None)) is not None:
                part.e_score_correction_bias = nn.Parameter(bias)
        # An assignment would register it as a submodule, which is what it must not be.
        self.__dict__['wrapped'] = module.requires_grad_(False).eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.wrapped(*args, **kwargs)

    @property
    def in_proj_weight(self) -> Tensor | None:
        """A tensor, for its device. ``peft`` looks for it under this name too.

        ``weight`` would be found, and overwritten, by initializers.
        """
        return next(self.wrapped.parameters(), None)

    def follow(self, device: torch.device) -> None:
        """Replace the wrapped module by a copy on a device, if its values are elsewhere.

        For FSDP and DataParallel, which move only registered parameters. A replica of
        DataParallel shares the wrapped module with its original, which must stay in
        place.
        """
        if any(t.device != device for t in self.wrapped.parameters()):
            self.__dict__['wrapped'] = deepcopy(self).to(device).wrapped

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            self.wrapped._apply(fn)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # The values are shared, the modules are not: casting or moving a copy
        # must leave the original as it is.
        for tensor in self.wrapped.parameters():
            memo[id(tensor)] = nn.Parameter(tensor.detach(), requires_grad=False)
        copy = memo[id(self)] = type(self).__new__(type(self))
        copy.__dict__.update(deepcopy(self.__dict__, memo))  # with its hooks
        return copy

    def extra_repr(self) -> str:
        return repr(self.wrapped)


def values(**tensors: Tensor) -> nn.Module:
    """Return a module that holds tensors as parameters, so that they can be frozen."""
    module = nn.Module()
    for name, tensor in tensors.items():
        module.register_parameter(name, nn.Parameter(tensor.detach()))
    return module


def linear_of(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """Return a linear layer with the given values, which are not copied."""
    linear = nn.Linear(
        weight.shape[1], weight.shape[0], bias=bias is not None, device='meta'
    )
    linear.weight = nn.Parameter(weight.detach())
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach())
    return linear


def unwrap(part: nn.Module) -> Any:
    """Return what a :class:`Frozen` hides, and any other module as it is."""
    return part.wrapped if isinstance(part, Frozen) else part


def is_plain(part: nn.Module, kind: type[nn.Module] = nn.Linear) -> bool:
    """Return whether a module computes what its class defines from its weights, and no more.

    Hooks, adapters, parametrizations and quantization make it something else. They add
    hooks or a ``forward`` to the instance, or put another class in its place.
    """
    layers = (part, part.wrapped) if type(part) is Frozen else (part,)
    return type(layers[-1]) is kind and not any(
        m._forward_hooks
        or m._forward_pre_hooks
        or m._backward_hooks
        or m._backward_pre_hooks
        or 'forward' in vars(m)
        for m in layers
    )


# Compiled code is that of the time when it is compiled. (torch's decorator has no
# types.)
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def acts_on_modules(kinds: tuple[type[nn.Module], ...]) -> bool:
    """Return whether something outside of modules changes or observes what they compute.

    That is a hook of all modules, a mode of torch's functions, or a ``forward`` that
    was replaced in one of the classes. Modes of devices only place new tensors, and the
    hooks by which torch counts operations only keep names. Modes below autograd act on
    every operation anyway.

    Args:
        kinds (tuple[type]): The classes of the modules.
    """
    for hooks in (
        torch_module._global_forward_pre_hooks,
        torch_module._global_forward_hooks,
        torch_module._global_backward_pre_hooks,
        torch_module._global_backward_hooks,
    ):
        for hook in hooks.values():
            if not isinstance(getattr(hook, '__self__', None), ModuleTracker):
                return True
    if any(
        not isinstance(mode, DeviceContext)
        for mode in _get_current_function_mode_stack()
    ):
        return True
    return any(_is_patched(kind) for kind in kinds)


def _is_patched(kind: type[nn.Module]) -> bool:
    """Return whether a class's ``forward`` comes from another file than the class."""
    owner: Any = next(c for c in kind.__mro__ if 'forward' in vars(c))
    code = getattr(owner.forward, '__code__', None)
    return code is None or code.co_filename != inspect.getfile(owner)


def frozen_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return every frozen tensor below a module, by its qualified name."""
    return {
        f'{path}.{name}' if path else name: tensor
        for path, m in module.named_modules()
        if isinstance(m, Frozen)
        for name, tensor in m.wrapped.named_parameters()
    }


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """Count a model's parameters.

    Args:
        module (nn.Module): Any model, with or without frozen blocks.

    Returns:
        tuple[int, int]: Trainable and frozen parameters. The second counts
        both :class:`Frozen` tensors and parameters without gradient.
    """
    trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
    plain = sum(p.numel() for p in module.parameters() if not p.requires_grad)
    hidden = sum(t.numel() for t in frozen_tensors(module).values())
    return trainable, plain + hidden
