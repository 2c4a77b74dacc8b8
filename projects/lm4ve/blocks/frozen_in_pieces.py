"""Frozen norms and gated MLPs, computed in pieces that stay in a CPU's cache.

A norm in 16 bits is six or seven passes over all tokens in fp32, a gated activation
two more and three back; at a language model's width each pass goes to main memory,
and autograd keeps several of them. Done some tokens at a time, all passes but the first
and the last stay in the cache, and only the inputs are kept: the backward pass
computes a piece again. On a GPU, or compiled, this is the fused kernels' business.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lm4ve.blocks.frozen import Frozen

#: Values of a piece for each thread: half a megabyte in fp32.
PIECE = 2**17
#: Pieces from which it pays.
FEWEST = 4


def in_pieces(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Apply a function of single tokens, by pieces where that is faster.

    Args:
        function (callable): A function of tensors ``[M, W]`` to ``[M, W]``, row by row, with no
            trained parameter inside: their gradients would be lost.
        *inputs (Tensor): ``[..., W]`` of equal shapes.

    Returns:
        Tensor: ``function(*inputs)``, ``[..., W]``, in the first input's dtype;
        gradients flow to the inputs, once (no second derivatives by pieces).
    """
    first = inputs[0]
    if torch.compiler.is_compiling() or first.device.type != 'cpu':
        return function(*inputs)
    rows = rows_of_piece(first.shape[-1])
    if first.numel() < FEWEST * rows * first.shape[-1]:
        return function(*inputs)
    flat = [x.reshape(-1, x.shape[-1]) for x in inputs]
    out: Tensor = _InPieces.apply(function, rows, *flat)  # type: ignore[no-untyped-call]
    return out.view(first.shape)


def rows_of_piece(width: int) -> int:
    """Number of tokens of a piece, all threads together."""
    return max(1, PIECE * torch.get_num_threads() // width)


class _InPieces(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Callable[..., Tensor], rows: int, *inputs: Tensor) -> Tensor:
        ctx.function, ctx.rows = function, rows
        ctx.save_for_backward(*inputs)
        out = torch.empty_like(inputs[0])
        pieces = zip(out.split(rows), *(x.split(rows) for x in inputs), strict=True)
        for target, *parts in pieces:
            target.copy_(function(*parts))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[2:]
        inputs = ctx.saved_tensors
        grads = [torch.empty_like(x) if w else None for x, w in zip(inputs, wanted, strict=True)]
        for start in range(0, len(grad), ctx.rows):
            piece = slice(start, start + ctx.rows)
            parts = [
                x[piece].detach().requires_grad_(w) for x, w in zip(inputs, wanted, strict=True)
            ]
            with torch.enable_grad():
                out = ctx.function(*parts)
            found = torch.autograd.grad(out, [p for p in parts if p.requires_grad], grad[piece])
            for target, value in zip([g for g in grads if g is not None], found, strict=True):
                target[piece] = value
        return None, None, *grads


class FrozenNorm(Frozen):
    """A frozen norm whose plain code is several passes (RMS norms)."""

    def forward(self, x: Tensor) -> Tensor:
        return in_pieces(self.wrapped, x)


class FrozenGatedMLP(Frozen):
    """A frozen ``down(act(gate(x)) * up(x))``, the MLP of most families."""

    PARTS = ('gate_proj', 'up_proj', 'down_proj', 'act_fn')

    def forward(self, x: Tensor) -> Tensor:
        mlp: Any = self.wrapped

        def gated(gate: Tensor, up: Tensor) -> Tensor:
            out: Tensor = mlp.act_fn(gate) * up
            return out

        out: Tensor = mlp.down_proj(in_pieces(gated, mlp.gate_proj(x), mlp.up_proj(x)))
        return out


def freeze(part: nn.Module, is_norm: bool) -> Frozen:
    """Wrap a part of a layer in the kind of :class:`Frozen` that suits it."""
    # That one is fused; norms of heads with gains of their own are no functions of a row.
    one_gain = all(p.dim() == 1 for p in part.parameters()) and not list(part.children())
    if is_norm and one_gain and not isinstance(part, nn.LayerNorm):
        return FrozenNorm(part)
    if all(hasattr(part, name) for name in FrozenGatedMLP.PARTS):
        return FrozenGatedMLP(part)
    return Frozen(part)
