"""Try a layer that nobody here has read, before a block is made of it.

Some layers of language models depend on positions in ways that no argument switches
off: a bias by distance, a convolution, a recurrent state. Others mask tokens
themselves, or read what image tokens do not have. Each would be wrong in silence. So a
layer gets random weights and a batch of random tokens, and :func:`find_defect` compares
what it makes of them.
"""

import inspect
import math
from typing import Any

import torch
from torch import Tensor, nn

from lm4ve.blocks.host_layer import (
    GIVEN_ARGUMENTS,
    HostLayer,
    use_fused_attention,
)
from lm4ve.errors import listing

#: The number of tokens. Windows of the layer must be shorter: see :data:`TRIED_WINDOW`.
TRIED_TOKENS = 12
TRIED_WINDOW = 4
#: Arguments of a layer that keep their default: caches, what else is returned, and the
#: tokens of another sequence.
_LEFT_OUT = (
    'cache',
    'cache_position',
    'encoder_attention_mask',
    'encoder_hidden_states',
    'head_mask',
    'layer_past',
    'output_attentions',
    'output_router_logits',
    'past_key_value',
    'past_key_values',
    'use_cache',
)
#: Two outputs are equal below the first difference and differ above the second, relative
#: to the largest value: rounding in fp32 gives about 1e-6, a term of positions 0.1.
_LARGEST_ROUNDING = 1e-4
_LEAST_EFFECT = 1e-5
#: Weights with more values than this share the memory of their random values.
_MOST_VALUES = 2**22


def find_unusable_parts(layer: nn.Module, model_arguments: dict[str, Any]) -> str:
    """Describe the arguments and buffers of a layer that a block has no values for.

    Args:
        layer (nn.Module): The library's layer.
        model_arguments (dict): What its model calls it with, by name, as far as that is
            known.

    Returns:
        str: The rest of a sentence about the layer; '' if there is nothing.
    """
    tokens, *parameters = inspect.signature(layer.forward).parameters.values()
    taken = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    for name, value in model_arguments.items():
        if value is not None:
            taken.append(name)
    known = {tokens.name, *GIVEN_ARGUMENTS, *_LEFT_OUT}
    unknown = sorted(set(taken) - known)
    if unknown:
        return f'also takes {listing(unknown)}, which image tokens do not have'
    buffers = {name for name, _ in layer.named_buffers()}
    unsaved = sorted(buffers - set(layer.state_dict()))
    if unsaved:
        return f'holds {listing(unsaved)}, which no checkpoint has'
    return ''


def fill_with_noise(layer: nn.Module) -> None:
    """Give all tensors of a layer random values of a generator of their own, in place.

    Args:
        layer (nn.Module): It may be on the meta device. Its tensors get no gradients.
    """
    generator = torch.Generator().manual_seed(0)
    for module in layer.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            values = _draw(parameter.shape, generator)
            frozen = nn.Parameter(values, requires_grad=False)
            module.register_parameter(name, frozen)
        for name, buffer in list(module.named_buffers(recurse=False)):
            values = _draw(buffer.shape, generator)
            module.register_buffer(name, values)


def _draw(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Draw the values of a parameter.

    A matrix makes its output about half as large as its input, so that softmax chooses
    no single token. The rows of a large matrix overlap in memory, each a few values
    behind the one before, so that it takes next to no memory.
    """
    is_gain_or_bias = len(shape) < 2
    if is_gain_or_bias:
        return torch.randn(shape, generator=generator) * 0.3 + 1
    scale = 0.5 / math.sqrt(shape[-1])
    if shape.numel() <= _MOST_VALUES:
        return torch.randn(shape, generator=generator) * scale
    strides = [19, 17, 13, 7, 1][-len(shape) :]
    last = 0
    for stride, size in zip(strides, shape, strict=True):
        last += stride * (size - 1)
    values = torch.randn(last + 1, generator=generator) * scale
    return values.as_strided(shape, strides)


@torch.no_grad()
def find_defect(layer: HostLayer, width: int) -> str:
    """Describe how a layer differs from one without positions that obeys its mask.

    Args:
        layer (HostLayer): In fp32, on the CPU.
        width (int): D.

    Returns:
        str: The rest of a sentence about the layer; '' if nothing is wrong with it.
    """
    half = TRIED_TOKENS // 2
    trials, order = _build_trials(width)
    # One batch, so that samples that mix, and experts that take a limited number of
    # tokens, are found too.
    tokens = torch.stack([tokens for tokens, _ in trials.values()])
    masks = torch.stack([mask for _, mask in trials.values()])
    outputs: Any = layer(tokens, masks[:, None])
    if not isinstance(outputs, Tensor) or outputs.shape != tokens.shape:
        return 'does not return a vector for each token'
    if not outputs.isfinite().all():
        return 'returns values that are not finite'

    out = dict(zip(trials, outputs, strict=True))
    plain = out['plain']
    if not _equal(out['permuted'], plain[order]):
        return 'depends on the order of the tokens'
    if not _all_differ(out['other first'][1:], plain[1:]):
        return 'does not let all tokens read the first one'
    if not _all_differ(out['other last'][:-1], plain[:-1]):
        return 'does not let all tokens read the last one'
    if not _equal(out['other padding'][:half], out['padded'][:half]):
        return 'reads padding'
    if not _equal(out['other end'][:half], out['causal'][:half]):
        return 'reads later tokens in spite of a causal mask'
    if not _equal(out['causal'][-1], plain[-1]):
        return 'does not let the last token read all others through a causal mask'
    return ''


@torch.no_grad()
def fuses_attention(layer: HostLayer, width: int) -> bool:
    """Return whether torch's fused attention gives what the library's eager one does.

    It does not where scores are capped, or have a bias or a sink that it is not given.

    Args:
        layer (HostLayer): In fp32, on the CPU, with eager attention. Afterwards it has
            the fused one.
        width (int): D.
    """
    trials, _ = _build_trials(width)
    samples = [trials['padded'], trials['causal']]
    tokens = torch.stack([tokens for tokens, _ in samples])
    masks = torch.stack([mask for _, mask in samples])
    eager = layer(tokens, masks[:, None])
    use_fused_attention(layer.layer)
    try:
        fused = layer(tokens, masks[:, None])
    except Exception:  # of many kinds: it is foreign code
        return False
    return _equal(fused, eager)


def _build_trials(width: int) -> tuple[dict[str, tuple[Tensor, Tensor]], Tensor]:
    """Build samples whose outputs show how a layer treats positions and masks.

    Args:
        width (int): D.

    Returns:
        tuple: Name of a sample -> its tokens ``[N, D]``, and its mask, bool ``[N, N]``;
        and the order of the tokens of 'permuted', int64 ``[N]``.
    """
    generator = torch.Generator().manual_seed(1)
    count = TRIED_TOKENS
    half = count // 2
    x = torch.randn(count, width, generator=generator)
    others = torch.randn(count, width, generator=generator)
    order = torch.randperm(count, generator=generator)
    other_second_half = torch.cat((x[:half], others[half:]))
    open_mask = torch.ones(count, count, dtype=torch.bool)
    causal_mask = open_mask.tril()
    padding_mask = (torch.arange(count) < half).expand(count, count)
    trials = {
        'plain': (x, open_mask),
        'permuted': (x[order], open_mask),
        'other first': (torch.cat((others[:1], x[1:])), open_mask),
        'other last': (torch.cat((x[:-1], others[-1:])), open_mask),
        'padded': (x, padding_mask),
        'other padding': (other_second_half, padding_mask),
        'causal': (x, causal_mask),
        'other end': (other_second_half, causal_mask),
    }
    return trials, order


def _equal(a: Tensor, b: Tensor) -> bool:
    """Return whether two outputs are equal up to rounding."""
    difference = (a - b).abs().max()
    return bool(difference <= _LARGEST_ROUNDING * b.abs().max())


def _all_differ(a: Tensor, b: Tensor) -> bool:
    """Return whether two outputs ``[N, D]`` differ at each token."""
    differences = (a - b).abs().amax(dim=-1)
    return bool((differences > _LEAST_EFFECT * b.abs().max()).all())
