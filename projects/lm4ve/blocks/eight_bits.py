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
EIGHT_BITS = {
    'int8': torch.int8,
    'float8': torch.float8_e4m3fn,
}
#: CUDA's integer product needs at least so many rows.
_LEAST_ROWS = 17


def quantize_rows(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Round each row of a matrix to codes of 8 bits.

    Args:
        x (Tensor): ``[R, C]``.
        dtype (torch.dtype): The type of the codes.

    Returns:
        tuple[Tensor, Tensor]: Codes ``[R, C]`` and scales ``[R, 1]`` in fp32, whose
        product is near to ``x``.
    """
    x = x.float()
    scale = x.abs().amax(dim=-1, keepdim=True) / _largest(dtype)
    # Clamped last: a denormal scale may be flushed to zero, and a row of zeros would be
    # 0 / 0.
    scale = scale.clamp_min(torch.finfo(x.dtype).tiny)
    codes = x / scale
    if not dtype.is_floating_point:
        codes = codes.round()
    return codes.to(dtype), scale


def _largest(dtype: torch.dtype) -> float:
    """Return the largest code of a type."""
    if dtype.is_floating_point:
        return torch.finfo(dtype).max
    return torch.iinfo(dtype).max


def _product(x: Tensor, codes: Tensor, column_scales: Tensor | None) -> Tensor:
    """Multiply ``x @ (codes * column_scales)`` in 8 bits.

    Args:
        x (Tensor): ``[R, C]``; its rows are rounded to codes for the product.
        codes (Tensor): ``[C, O]``, of 8 bits.
        column_scales (Tensor, optional): ``[O]``; None: all of them are 1.

    Returns:
        Tensor: ``[R, O]`` in fp32.
    """
    x_codes, row_scales = quantize_rows(x, codes.dtype)
    if codes.dtype.is_floating_point:
        return _float_product(x_codes, row_scales, codes, column_scales)
    return _integer_product(x_codes, row_scales, codes, column_scales)


def _float_product(
    x_codes: Tensor, row_scales: Tensor, codes: Tensor, column_scales: Tensor | None
) -> Tensor:
    """Multiply float8 codes: ``(x_codes * row_scales) @ (codes * column_scales)``.

    Args:
        x_codes (Tensor): ``[R, C]``.
        row_scales (Tensor): ``[R, 1]``.
        codes (Tensor): ``[C, O]``.
        column_scales (Tensor, optional): ``[O]``; None: all of them are 1.

    Returns:
        Tensor: ``[R, O]`` in fp32.
    """
    if column_scales is None:
        column_scales = torch.ones(codes.shape[1], device=codes.device)
    if codes.stride(0) != 1:  # the product needs contiguous columns
        codes = codes.t().contiguous().t()
    out = torch._scaled_mm(
        x_codes,
        codes,
        row_scales,
        column_scales[None].contiguous(),
        out_dtype=torch.bfloat16,
    )
    return out.float()


def _integer_product(
    x_codes: Tensor, row_scales: Tensor, codes: Tensor, column_scales: Tensor | None
) -> Tensor:
    """Multiply int8 codes: ``(x_codes * row_scales) @ (codes * column_scales)``.

    Args:
        x_codes (Tensor): ``[R, C]``.
        row_scales (Tensor): ``[R, 1]``.
        codes (Tensor): ``[C, O]``.
        column_scales (Tensor, optional): ``[O]``; None: all of them are 1.

    Returns:
        Tensor: ``[R, O]`` in fp32.
    """
    count = len(x_codes)
    missing_rows = 0
    if x_codes.is_cuda:
        missing_rows = max(0, _LEAST_ROWS - count)
    padded = nn.functional.pad(x_codes, (0, 0, 0, missing_rows))
    sums = torch._int_mm(padded, codes)[:count]
    out = sums.float() * row_scales
    if column_scales is None:
        return out
    return out * column_scales


class _Product(torch.autograd.Function):
    """``x @ weight'`` with a frozen weight of 8-bit codes and a scale for each row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, codes: Tensor, scale: Tensor) -> Tensor:
        """Return ``x @ (codes * scale)'``, ``[R, O]``, in the type of ``x``.

        Args:
            ctx: What torch keeps for the backward pass.
            x (Tensor): ``[R, C]``.
            codes (Tensor): ``[O, C]``.
            scale (Tensor): ``[O]``.
        """
        ctx.save_for_backward(codes, scale)
        return _product(x, codes.t(), column_scales=scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient of ``x``, ``[R, C]``, and None for codes and scale.

        It is ``gradient @ (codes * scale)``. That sum is over output channels, each of
        which has its own scale, so the scales multiply the gradient beforehand.

        Args:
            ctx: What :meth:`forward` has saved.
            *gradients (Tensor): That of the one output, ``[R, O]``; torch passes one
                for each output.
        """
        gradient = gradients[0]
        codes, scale = ctx.saved_tensors
        scaled_gradient = gradient.float() * scale
        gradient_of_x = _product(scaled_gradient, codes, column_scales=None)
        return gradient_of_x.to(gradient.dtype), None, None


class EightBitLinear(nn.Module):
    """A linear layer ``[..., C] -> [..., O]`` with codes of 8 bits for a weight.

    Args:
        linear (nn.Linear): Its weight is rounded to codes, its bias kept.
        kind (str): A key of :data:`EIGHT_BITS`.

    Attributes:
        codes (nn.Parameter): ``[O, C]``, frozen.
        scale (nn.Parameter): A factor for each row of the codes, ``[O]``, frozen.
    """

    codes: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear, kind: str) -> None:
        super().__init__()
        codes, scale = quantize_rows(linear.weight.detach(), EIGHT_BITS[kind])
        self.register_parameter('codes', _fixed(codes))
        self.register_parameter('scale', _fixed(scale[:, 0]))
        self.bias: nn.Parameter | None = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[..., C]`` to ``[..., O]``, in the type of ``x``."""
        rows = x.flatten(0, -2)
        out: Tensor = _Product.apply(rows, self.codes, self.scale)  # type: ignore[no-untyped-call]
        out = out.unflatten(0, x.shape[:-1])
        if self.bias is None:
            return out
        return out + self.bias

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Apply what moves or casts a model; codes and scale are moved, never cast.

        torch calls it for ``.to()``, ``.cuda()``, ``.half()`` and so on.
        """
        codes = self.codes.detach()
        scale = self.scale.detach()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.codes = _fixed(codes.to(self.codes.device))
        self.scale = _fixed(scale.to(self.scale.device))
        return self


def _fixed(tensor: Tensor) -> nn.Parameter:
    """Return a parameter that does not train."""
    return nn.Parameter(tensor, requires_grad=False)


def quantize_products(layer: Any, kind: str) -> None:
    """Put 8-bit layers into the place of a layer's output projection and of its MLP's layers.

    A layer with a width that is no multiple of 16, which the products require, stays as
    it is.

    Args:
        layer (LLMLayer): Before its parts are frozen; changed in place.
        kind (str): A key of :data:`EIGHT_BITS`.
    """
    _quantize_child(layer, 'o_proj', kind)
    _quantize_child(layer, 'mlp', kind)
    for parent in list(layer.mlp.modules()):
        for name, _ in list(parent.named_children()):
            _quantize_child(parent, name, kind)


def _quantize_child(parent: nn.Module, name: str, kind: str) -> None:
    """Replace a child by an 8-bit layer, if it is linear with widths of multiples of 16.

    Args:
        parent (nn.Module): It is changed in place.
        name (str): The child's name.
        kind (str): A key of :data:`EIGHT_BITS`.
    """
    part = getattr(parent, name)
    if isinstance(part, Conv1D):
        part = linear_of(part.weight.t().contiguous(), part.bias)
    if type(part) is not nn.Linear:
        return
    if all(width % 16 == 0 for width in part.weight.shape):
        setattr(parent, name, EightBitLinear(part, kind))
