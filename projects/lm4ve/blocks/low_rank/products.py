"""Products in the mapper's frame, whose gradients are taken outside of it.

Each autograd function computes with the frame and the coordinates, where no digits are
lost, and takes the gradients of matrices from the mapper and the tokens themselves (see
the package). Where nothing trains, there is no mapper or no token to take them from
(``own`` is None), and torch's own product is used.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from lm4ve.blocks.tokens import Queries, take_tokens


class Matrix(NamedTuple):
    """A matrix ``[..., C]`` that acts on tokens before the mapper.

    Attributes:
        frame (Tensor): It acts on coordinates.
        own (Tensor | None): The same matrix, acting on the tokens themselves, for the
            gradient. None: nothing of it trains.
    """

    frame: Tensor
    own: Tensor | None

    def to(self, dtype: torch.dtype) -> 'Matrix':
        """Return it in another dtype."""
        if self.own is None:
            return Matrix(self.frame.to(dtype), None)
        return Matrix(self.frame.to(dtype), self.own.to(dtype))


class Tokens(NamedTuple):
    """Tokens before the mapper, ``[..., C]``.

    Attributes:
        coordinates (Tensor): In the mapper's frame.
        own (Tensor | None): The same tokens as they came, without a gradient of their
            own, for the gradient of matrices. None: no matrix trains.
    """

    coordinates: Tensor
    own: Tensor | None

    def take(self, queries: Queries) -> 'Tokens':
        """Select tokens."""
        own = self.own
        if own is not None:
            own = take_tokens(own, queries)
        return Tokens(take_tokens(self.coordinates, queries), own)

    def scaled(self, scale: Tensor) -> 'Tokens':
        """Return them times a scale of each token, ``[..., 1]``."""
        own = self.own
        if own is not None:
            own = own * scale.detach()
        return Tokens(self.coordinates * scale, own)

    def to(self, dtype: torch.dtype) -> 'Tokens':
        """Return them in the block's dtype; those for gradients could leave float16's range."""
        own = self.own
        if own is not None and dtype != torch.float16:
            own = own.to(dtype)
        return Tokens(self.coordinates.to(dtype), own)


# ------------------------------------------------------------------------- products
def projection_of(matrix: Matrix) -> Tensor:
    """Return a matrix as :func:`project` takes it."""
    if matrix.own is None:
        return matrix.frame
    return _apply(_Frame, matrix.own, matrix.frame)


def fold(left: Tensor, matrix: Matrix) -> Tensor:
    """Return ``left @ matrix``, ``[..., D] x [D, C]``, which acts on coordinates."""
    if matrix.own is None:
        return left @ matrix.frame
    return _apply(_Product, left, matrix.own, matrix.frame)


def project(tokens: Tokens, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the projection ``[..., rows]`` of tokens by a matrix ``[rows, C]``."""
    if tokens.own is None:
        return F.linear(tokens.coordinates, matrix, bias)
    out = _apply(_Projection, tokens.coordinates, tokens.own, matrix)
    if bias is None:
        return out
    return out + bias


def score(left: Tensor, matrix: Matrix | None, tokens: Tokens) -> Tensor:
    """Return the scores of queries with tokens.

    Args:
        left (Tensor): ``[B, Q, D]``, or ``[B, Q, C]`` where the matrix is None.
        matrix (Matrix, optional): ``[D, C]``; None where ``lm4ve.fuse`` has folded it
            into what is left of it.
        tokens (Tokens): ``[B, N, C]``.

    Returns:
        Tensor: ``[B, Q, N]``.
    """
    if matrix is None:
        return left @ tokens.coordinates.mT
    if tokens.own is None:
        return _times(left, matrix.frame) @ tokens.coordinates.mT
    return _apply(
        _Scores, left, matrix.own, matrix.frame, tokens.coordinates, tokens.own
    )


def squared_norm(tokens: Tokens, mapper: Matrix) -> Tensor:
    """Return ``|W x|^2`` of tokens, ``[..., 1]``."""
    if tokens.own is None:
        return tokens.coordinates.square().sum(dim=-1, keepdim=True)
    return _apply(_Square, tokens.coordinates, tokens.own, mapper.own, mapper.frame)


def _apply(function: Any, *tensors: Tensor | None) -> Tensor:
    out: Tensor = function.apply(*tensors)
    return out


def _rows(x: Tensor) -> Tensor:
    return x.flatten(0, -2)


def _times(x: Tensor, matrix: Tensor) -> Tensor:
    """Return ``[..., m] @ [m, n]``; torch would copy the matrix for each entry of a strided x."""
    out: Tensor = (_rows(x) @ matrix).unflatten(0, x.shape[:-1])
    return out


# --------------------------------------------------------------- autograd functions
class _Frame(Function):
    """The frame, whose gradient is the mapper's."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, frame: Tensor) -> Tensor:
        return frame.view_as(frame)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return gradient, None


class _Product(Function):
    """``left @ frame``; gradients are those of ``left @ own``."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, own: Tensor, frame: Tensor) -> Tensor:
        ctx.save_for_backward(left, own)
        return left @ frame

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        left, own = ctx.saved_tensors
        of_left = None
        of_own = None
        if ctx.needs_input_grad[0]:
            of_left = _times(gradient, own.mT)
        if ctx.needs_input_grad[1]:
            of_own = _rows(left).mT @ _rows(gradient)
        return of_left, of_own, None


class _Projection(Function):
    """``coordinates @ matrix.mT``; the matrix's gradient is that of ``own @ matrix.mT``."""

    @staticmethod
    def forward(ctx: Any, coordinates: Tensor, own: Tensor, matrix: Tensor) -> Tensor:
        ctx.save_for_backward(own, matrix)
        return F.linear(coordinates, matrix)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        own, matrix = ctx.saved_tensors
        of_coordinates = None
        of_matrix = None
        if ctx.needs_input_grad[0]:
            of_coordinates = _times(gradient, matrix)
        if ctx.needs_input_grad[2]:
            of_matrix = _rows(gradient.to(own.dtype)).mT @ _rows(own)
            of_matrix = of_matrix.to(matrix.dtype)
        return of_coordinates, None, of_matrix


class _Scores(Function):
    """``left @ frame @ coordinates.mT``; the mapper's gradient is that with mapper and tokens."""

    @staticmethod
    def forward(
        ctx: Any,
        left: Tensor,
        mapper: Tensor,
        frame: Tensor,
        coordinates: Tensor,
        own: Tensor,
    ) -> Tensor:
        moved = _times(left, frame)
        ctx.save_for_backward(left, frame, moved, coordinates, own)
        return moved @ coordinates.mT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        left, frame, moved, coordinates, own = ctx.saved_tensors
        of_left = None
        of_mapper = None
        of_coordinates = None
        if ctx.needs_input_grad[0]:
            of_left = _times(gradient @ coordinates, frame.mT)
        if ctx.needs_input_grad[1]:
            pooled = (gradient.to(own.dtype) @ own).to(left.dtype)
            of_mapper = _rows(left).mT @ _rows(pooled)
        if ctx.needs_input_grad[3]:
            of_coordinates = gradient.mT @ moved
        return of_left, of_mapper, None, of_coordinates, None


class _Square(Function):
    """``|W x|^2``, of which W's gradient is ``2 g (W x) x'``."""

    @staticmethod
    def forward(
        ctx: Any, coordinates: Tensor, own: Tensor, mapper: Tensor, frame: Tensor
    ) -> Tensor:
        ctx.save_for_backward(coordinates, own, frame)
        return coordinates.square().sum(dim=-1, keepdim=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        coordinates, own, frame = ctx.saved_tensors
        of_coordinates = 2 * gradient * coordinates
        of_mapper = None
        if ctx.needs_input_grad[2]:
            of_mapper = frame @ (_rows(of_coordinates).mT @ _rows(own))
        return of_coordinates, None, of_mapper, None
