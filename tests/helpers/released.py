"""Parts of released models in plain torch, on states by the released names.

They draw the weights that a state lacks: a computation on an empty state leaves a
random one of every tensor that it reads.
"""

from collections import Counter

import torch
import torch.nn.functional as F
from torch import Tensor

from lm4ve.text.vocabulary import FINGERPRINT


def random(*shape: int, scale: float = 0.3, offset: float = 0.0) -> Tensor:
    return torch.randn(*shape) * scale + offset


def tensor(
    state: dict[str, Tensor], name: str, *shape: int, offset: float = 0.0
) -> Tensor:
    if name not in state:
        state[name] = random(*shape, offset=offset)
    return state[name]


def linear(
    state: dict[str, Tensor],
    name: str,
    x: Tensor,
    out: int = 0,
    bias: bool = True,
    ones: int = 0,
) -> Tensor:
    """Apply a linear layer, or a convolution over one place.

    ``out``, ``bias`` and ``ones``, the dimensions behind the inputs, are those of a new
    one.
    """
    weight = tensor(state, f'{name}.weight', out, x.shape[-1], *[1] * ones)
    if bias:
        tensor(state, f'{name}.bias', out)
    return F.linear(x, weight.flatten(1), state.get(f'{name}.bias'))


def attention(
    q: Tensor, k: Tensor, v: Tensor, heads: int, masked: Tensor | None = None
) -> Tensor:
    """Attend over ``[B, N, C]`` in plain tensors; ``masked`` keys ``[B, N]`` are hidden."""
    q = _split_heads(q, heads)
    k = _split_heads(k, heads)
    v = _split_heads(v, heads)
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if masked is not None:
        scores = scores.masked_fill(masked[..., None, None, :], -1e9)
    mixed = scores.softmax(-1) @ v
    return mixed.transpose(1, 2).flatten(2)


def _split_heads(x: Tensor, heads: int) -> Tensor:
    """``[B, N, C] -> [B, heads, N, C / heads]``."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def norm(state: dict[str, Tensor], name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
    """Apply a layer norm."""
    weight = tensor(state, f'{name}.weight', x.shape[-1], offset=1.0)
    bias = tensor(state, f'{name}.bias', x.shape[-1])
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps)


def numbered(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state of equal names and shapes that holds each tensor's own number."""
    return {
        name: torch.full_like(value, number)
        for number, (name, value) in enumerate(state.items())
    }


def sizes_by_number(state: dict[str, Tensor]) -> Counter:
    """Count how often each number stands in a state, digests of vocabularies left out.

    Of a converted :func:`numbered` state it says which tensors arrived whole.
    """
    sizes = Counter()
    for name, value in state.items():
        if not name.endswith(FINGERPRINT):
            sizes.update(value.flatten().tolist())
    return sizes
