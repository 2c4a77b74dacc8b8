"""Whether modules compute what their weights say, so that the weights may be used instead.

Folding and absorbing read the weights of the mapper, the norm and the projections, and
do not call these modules. That is right only if nothing else acts on them: no hook,
adapter, parametrization or quantization, no patched class, no mode of torch's functions.
"""

import inspect
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as torch_module
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext
from torch.utils.module_tracker import ModuleTracker

from lm4ve.blocks.frozen import Frozen
from lm4ve.blocks.layer import LLMLayer


def can_fold(block: Any, block_kind: type[nn.Module], mapper: nn.Module) -> bool:
    """Return whether a block and the mapper before it compute what their classes define.

    Args:
        block (LLMBlock): The block.
        block_kind (type): Its class; a subclass may compute something else.
        mapper (nn.Module): The mapper, which must have no bias either.
    """
    layer = block.layers[0]
    if not isinstance(layer, LLMLayer):
        return False
    norm_kind: type[nn.Module] = nn.Identity
    if layer.norm_form is not None:
        norm_kind = layer.norm_form[0]
    if acts_on_modules((block_kind, LLMLayer, Frozen, nn.Linear, norm_kind)):
        return False
    if not is_plain(block, block_kind) or not is_plain(layer, LLMLayer):
        return False
    if not is_plain(layer.attention_norm, norm_kind):
        return False
    for projection in (mapper, layer.q_proj, layer.k_proj, layer.v_proj):
        if not is_plain(projection, nn.Linear):
            return False
    return mapper.bias is None


def can_absorb(layer: nn.Module, has_rotary: bool, has_soft_mask: bool) -> bool:
    """Return whether 'absorb' computes the same as a layer's attention.

    Its keys and values must be linear functions of the tokens, softmax the last step
    before the values, and each head of keys and values read by equally many queries
    that are neighbors.

    Args:
        layer (nn.Module): The block's first layer. The answer for the library's own
            layer is no, since its parts are not known.
        has_rotary (bool): Whether its queries and keys get rotary embedding.
        has_soft_mask (bool): Whether weights are multiplied by factors after softmax.
    """
    if has_rotary or has_soft_mask or not isinstance(layer, LLMLayer):
        return False
    if layer.tiled:
        return False
    return is_plain(layer.k_norm, nn.Identity) and is_plain(layer.v_norm, nn.Identity)


def is_plain(part: nn.Module, kind: type[nn.Module]) -> bool:
    """Return whether a module computes what its class defines from its weights, and no more.

    Hooks, adapters, parametrizations and quantization make it something else. They add
    hooks or a ``forward`` to the instance, or put another class in its place.

    Args:
        part (nn.Module): The module, which may be frozen.
        kind (type): Its class.
    """
    module = part
    if type(part) is Frozen:
        if _is_changed(part):
            return False
        module = part.wrapped
    return type(module) is kind and not _is_changed(module)


def _is_changed(module: nn.Module) -> bool:
    """Return whether an instance has hooks or a ``forward`` of its own."""
    if module._forward_hooks or module._forward_pre_hooks:
        return True
    if module._backward_hooks or module._backward_pre_hooks:
        return True
    return 'forward' in vars(module)


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
            owner = getattr(hook, '__self__', None)
            if not isinstance(owner, ModuleTracker):
                return True
    for mode in _get_current_function_mode_stack():
        if not isinstance(mode, DeviceContext):
            return True
    return any(_is_patched(kind) for kind in kinds)


def _is_patched(kind: type[nn.Module]) -> bool:
    """Return whether a class's ``forward`` comes from another file than the class."""
    owner: Any = next(c for c in kind.__mro__ if 'forward' in vars(c))
    code = getattr(owner.forward, '__code__', None)
    return code is None or code.co_filename != inspect.getfile(owner)
