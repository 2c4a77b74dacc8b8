"""Whether the weights may be used instead of the modules, and which way of it pays.

Folding and absorbing read the weights of the mapper, the norm and the projections, and
do not call these modules. That is right only if nothing else acts on them: no hook,
adapter, parametrization or quantization.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.utils.module_tracker import ModuleTracker

from lm4ve.blocks.frozen import Frozen, unwrap
from lm4ve.blocks.layer import LLMLayer
from lm4ve.blocks.tokens import Queries

#: The batch for which compiled code decides.
_COMPILED_BATCH = 32


def choose_method(
    layer: LLMLayer, x: Tensor, queries: Queries, may_absorb: bool
) -> str:
    """Return the method that pays for a batch: 'absorb', 'fold' or 'off'.

    'absorb' maps each query once for each head, where the plain way maps each token. So
    it pays if there are fewer of those. 'fold' multiplies weights in every forward pass,
    which pays from about 2 C tokens on: with C = 384 the step of Point-BERT took 4 %
    less at 520 tokens and 6 % less at 1,040 (docs/results/performance.md).

    Args:
        layer (LLMLayer): The block's first layer.
        x (Tensor): Tokens before the mapper, ``[B, N, C]``.
        queries: The tokens that this layer computes.
        may_absorb (bool): See :func:`can_absorb`.
    """
    batch, tokens, channels = x.shape
    heads = unwrap(layer.q_proj).out_features // layer.head_dim
    if may_absorb and heads * _count_queries(queries, tokens) <= tokens:
        return 'absorb'
    if torch.compiler.is_compiling():
        # The compiler has a symbol for the batch, and would bind its code to it.
        batch = _COMPILED_BATCH
    if batch * tokens > 2 * channels:
        return 'fold'
    return 'off'


def _count_queries(queries: Queries, n: int) -> int:
    """Return how many of n tokens the queries select."""
    if queries is None:
        return n
    if isinstance(queries, Tensor):
        return queries.shape[1]
    return len(range(n)[queries])


def can_fold(layer: Any, mapper: nn.Module) -> bool:
    """Return whether a layer and the mapper before it compute what their classes define.

    Args:
        layer (nn.Module): The block's first layer.
        mapper (nn.Module): The mapper, which must have no bias either.
    """
    if not is_plain(layer, LLMLayer):
        return False
    norm_kind: type[nn.Module] = nn.Identity
    if layer.norm_form is not None:
        norm_kind = layer.norm_form[0]
    if not is_plain(layer.attention_norm, norm_kind):
        return False
    for projection in (mapper, layer.q_proj, layer.k_proj, layer.v_proj):
        if not is_plain(projection, nn.Linear):
            return False
    return mapper.bias is None and not are_all_modules_hooked()


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

    Adapters, parametrizations and quantization put another class in its place; others
    add hooks or a ``forward`` of the instance.

    Args:
        part (nn.Module): The module, which may be frozen.
        kind (type): Its class.
    """
    if type(part) is Frozen and _is_changed(part):
        return False
    module = unwrap(part)
    return type(module) is kind and not _is_changed(module)


def _is_changed(module: nn.Module) -> bool:
    """Return whether an instance has hooks or a ``forward`` of its own."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or 'forward' in vars(module)
    )


# Compiled code is that of the time when it is compiled. (torch's decorator has no
# types.)
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def are_all_modules_hooked() -> bool:
    """Return whether a hook of all modules is registered.

    Those by which torch counts operations only keep names, and do not count.
    """
    hooks = [
        *torch_module._global_forward_pre_hooks.values(),
        *torch_module._global_forward_hooks.values(),
        *torch_module._global_backward_pre_hooks.values(),
        *torch_module._global_backward_hooks.values(),
    ]
    owners = [getattr(hook, '__self__', None) for hook in hooks]
    return not all(isinstance(owner, ModuleTracker) for owner in owners)
