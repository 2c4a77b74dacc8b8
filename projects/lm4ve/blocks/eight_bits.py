"""Frozen products in 8 bits: ``dtype='int8'`` and ``'float8'`` of a block (experimental).

The weight of a frozen linear layer has one scale per output channel, its input one per
row, both by the largest magnitude. The forward product and the gradient of the input
run in 8 bits; the weight has no gradient. It pays where a device multiplies 8 bits
faster than 16.

The output projection and the MLP are such layers. Queries, keys and values stay in
bfloat16: the low rank of the block's input makes their products small
(``low_rank/``).
"""

from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lm4ve.blocks.frozen import linear_of

#: Name of a block's dtype -> that of the codes.
EIGHT_BITS = dict(int8=torch.int8, float8=torch.float8_e4m3fn)
#: CUDA's integer product needs more rows than this.
_ROWS = 16


def quantize_rows(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Write ``[R, C]`` as codes ``[R, C]`` times scales ``[R, 1]`` in fp32."""
    largest = (torch.finfo if dtype.is_floating_point else torch.iinfo)(dtype).max
    x = x.float()
    # Clamped last: a denormal scale may be flushed to zero, and a row of zeros be 0 /
    # 0.
    scale = (x.abs().amax(dim=-1, keepdim=True) / largest).clamp_min(
        torch.finfo(x.dtype).tiny
    )
    x = x / scale
    return (x if dtype.is_floating_point else x.round()).to(dtype), scale


def _product(x: Tensor, codes: Tensor, columns: Tensor | None) -> Tensor:
    """Return ``x @ codes`` in fp32 for codes ``[C, O]``, times scales of the columns ``[O]``."""
    xs, rows = quantize_rows(x, codes.dtype)
    if codes.dtype.is_floating_point:
        ones = (
            torch.ones(codes.shape[1], device=x.device) if columns is None else columns
        )
        if codes.stride(0) != 1:  # the product needs contiguous columns
            codes = codes.t().contiguous().t()
        out = torch._scaled_mm(
            xs, codes, rows, ones[None].contiguous(), out_dtype=torch.bfloat16
        )
        return out.float()
    missing = max(0, _ROWS + 1 - len(xs)) if x.is_cuda else 0
    sums = torch._int_mm(nn.functional.pad(xs, (0, 0, 0, missing)), codes)[: len(xs)]
    out = sums.float() * rows
    return out if columns is None else out * columns


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, codes: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(codes, scale)
        return _product(x, codes.t(), scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (g,), (codes, scale) = gradients, ctx.saved_tensors
        # The sum is over output channels, so their scales go to the gradient's side.
        return _product(g.float() * scale, codes, None).to(g.dtype), None, None


class EightBitLinear(nn.Module):
    """A linear layer ``[..., C] -> [..., O]`` with codes of 8 bits for a weight.

    Args:
        linear (nn.Linear): Its weight is rounded to codes, its bias kept.
        kind (str): A key of :data:`EIGHT_BITS`.
    """

    def __init__(self, linear: nn.Linear, kind: str) -> None:
        super().__init__()
        codes, scale = quantize_rows(linear.weight.detach(), EIGHT_BITS[kind])
        for name, tensor in dict(codes=codes, scale=scale[:, 0]).items():
            self.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
        self.bias: nn.Parameter | None = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, -2)
        out: Tensor = _Product.apply(rows, self.codes, self.scale)  # type: ignore[no-untyped-call]
        out = out.unflatten(0, x.shape[:-1])
        return out if self.bias is None else out + self.bias

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        # A cast of the whole model moves these tensors and leaves their types.
        kept = {name: getattr(self, name).detach() for name in ('codes', 'scale')}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, before in kept.items():
            tensor = before.to(getattr(self, name).device)
            setattr(self, name, nn.Parameter(tensor, requires_grad=False))
        return self


def quantize_products(layer: Any, kind: str) -> None:
    """Put 8-bit layers into the place of a layer's output projection and of its MLP's layers.

    A layer with a width that is no multiple of 16, which the products require, stays as
    it is.

    Args:
        layer (LLMLayer): Before its parts are frozen; changed in place.
        kind (str): A key of :data:`EIGHT_BITS`.
    """
    for parent in (layer, *layer.mlp.modules()):
        for name, part in [*parent.named_children()]:
            if isinstance(part, Conv1D):
                part = linear_of(part.weight.t().contiguous(), part.bias)
            if type(part) is nn.Linear and (
                parent is not layer or name in ('o_proj', 'mlp')
            ):
                if all(width % 16 == 0 for width in part.weight.shape):
                    setattr(parent, name, EightBitLinear(part, kind))
