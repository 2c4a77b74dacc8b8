"""Products in the mapper's frame, whose gradients are taken outside of it.

Each autograd function computes with the frame and the coordinates, where no digits are
lost, and takes the gradients of matrices from the mapper and the tokens before the
decomposition, the *originals* (see the package). Where nothing trains, no original is
kept, and torch's own product is used.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from lm4ve.blocks.tokens import Queries, take_tokens


class Matrix(NamedTuple):
    """A matrix ``[..., C]`` that acts on tokens before the mapper, in two forms.

    ``frame @ coordinates`` and ``original @ tokens`` are the same product.

    Attributes:
        frame (Tensor): It acts on coordinates; the product is computed with it.
        original (Tensor | None): It acts on the tokens as they came; gradients flow
            through it. None: nothing of the matrix trains.
    """

    frame: Tensor
    original: Tensor | None

    def to(self, dtype: torch.dtype) -> 'Matrix':
        """Return both forms in another dtype."""
        if self.original is None:
            return Matrix(self.frame.to(dtype), None)
        return Matrix(self.frame.to(dtype), self.original.to(dtype))


class Tokens(NamedTuple):
    """Tokens before the mapper, ``[..., C]``, in two forms.

    Attributes:
        coordinates (Tensor): Their coordinates in the mapper's frame; products are
            computed with them, and their gradients flow through them.
        original (Tensor | None): The tokens as they came, detached; the gradients of
            matrices are computed with them. None: no matrix trains.
    """

    coordinates: Tensor
    original: Tensor | None

    def take(self, queries: Queries) -> 'Tokens':
        """Return the tokens that are queries, ``[B, Q, C]``."""
        original = self.original
        if original is not None:
            original = take_tokens(original, queries)
        return Tokens(take_tokens(self.coordinates, queries), original)

    def scaled(self, scale: Tensor) -> 'Tokens':
        """Return the tokens, each multiplied by its own factor in ``scale``, ``[..., 1]``."""
        original = self.original
        if original is not None:
            original = original * scale.detach()
        return Tokens(self.coordinates * scale, original)

    def to(self, dtype: torch.dtype) -> 'Tokens':
        """Return the tokens in the block's dtype.

        Of a float16 block the originals stay in fp32: tokens that are large in a
        direction which the mapper cancels could exceed float16's range.
        """
        original = self.original
        if original is not None and dtype != torch.float16:
            original = original.to(dtype)
        return Tokens(self.coordinates.to(dtype), original)


# ------------------------------------------------------------------------- products
def projection_of(matrix: Matrix) -> Tensor:
    """Return a matrix's frame as a tensor for :func:`project`.

    The gradient of that tensor becomes the gradient of the original matrix.
    """
    if matrix.original is None:
        return matrix.frame
    return _apply(_Frame, matrix.original, matrix.frame)


def fold(left: Tensor, matrix: Matrix) -> Tensor:
    """Multiply two matrices, ``[..., D] @ [D, C]``, into one that acts on coordinates."""
    if matrix.original is None:
        return left @ matrix.frame
    return _apply(_Product, left, matrix.original, matrix.frame)


def project(tokens: Tokens, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    """Project tokens by a matrix that acts on coordinates.

    Args:
        tokens (Tokens): ``[..., C]``.
        matrix (Tensor): ``[rows, C]``, from :func:`projection_of` or :func:`fold`.
        bias (Tensor, optional): ``[rows]``.

    Returns:
        Tensor: ``[..., rows]``.
    """
    if tokens.original is None:
        return F.linear(tokens.coordinates, matrix, bias)
    out = _apply(_Projection, tokens.coordinates, tokens.original, matrix)
    if bias is None:
        return out
    return out + bias


def score(queries: Tensor, matrix: Matrix | None, tokens: Tokens) -> Tensor:
    """Multiply queries, a matrix and tokens: ``queries @ matrix @ tokens'``.

    Args:
        queries (Tensor): ``[B, Q, D]``, or ``[B, Q, C]`` where the matrix is None.
        matrix (Matrix, optional): ``[D, C]``; None where ``lm4ve.fuse`` has multiplied
            the weights that made the queries by it.
        tokens (Tokens): ``[B, N, C]``.

    Returns:
        Tensor: ``[B, Q, N]``.
    """
    if matrix is None:
        return queries @ tokens.coordinates.mT
    if tokens.original is None:
        return _times(queries, matrix.frame) @ tokens.coordinates.mT
    return _apply(
        _Scores,
        queries,
        matrix.original,
        matrix.frame,
        tokens.coordinates,
        tokens.original,
    )


def squared_norm(tokens: Tokens, mapper: Matrix) -> Tensor:
    """Return ``|W x|^2`` for each token x and the mapper W, ``[..., 1]``.

    The frame's columns are orthonormal, so it is the squared norm of the coordinates.
    """
    if tokens.original is None:
        return tokens.coordinates.square().sum(dim=-1, keepdim=True)
    return _apply(
        _Square, tokens.coordinates, tokens.original, mapper.original, mapper.frame
    )


def _apply(function: Any, *tensors: Tensor | None) -> Tensor:
    """Run one of the autograd functions below, whose ``apply`` has no types in torch."""
    out: Tensor = function.apply(*tensors)
    return out


def _rows(x: Tensor) -> Tensor:
    """Flatten all dimensions but the last: ``[..., C] -> [R, C]``."""
    return x.flatten(0, -2)


def _times(x: Tensor, matrix: Tensor) -> Tensor:
    """Multiply ``[..., m] @ [m, n]`` as one product of two matrices.

    For an ``x`` that is not contiguous, torch would copy the matrix for each entry of
    the batch.
    """
    out: Tensor = (_rows(x) @ matrix).unflatten(0, x.shape[:-1])
    return out


# --------------------------------------------------------------- autograd functions
class _Frame(Function):
    """Returns the frame; the gradient of it goes to the original matrix."""

    @staticmethod
    def forward(ctx: Any, original: Tensor, frame: Tensor) -> Tensor:
        """Return the frame as a new tensor ``[rows, C]``; the original is not read."""
        # A view, since autograd allows no function to return its input as it is.
        return frame.view_as(frame)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """Pass the gradient of the frame, ``[rows, C]``, on to the original."""
        return gradient, None


class _Product(Function):
    """``left @ frame``; gradients are those of ``left @ original``."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, original: Tensor, frame: Tensor) -> Tensor:
        """Multiply ``[..., D] @ [D, C]``; the original ``[D, C]`` is for the gradients."""
        ctx.save_for_backward(left, original)
        return left @ frame

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """Return the gradients of left and original, each None if it needs none."""
        left, original = ctx.saved_tensors
        left_needs_grad, original_needs_grad, _ = ctx.needs_input_grad
        grad_left = None
        grad_original = None
        if left_needs_grad:
            grad_left = _times(gradient, original.mT)
        if original_needs_grad:
            grad_original = _rows(left).mT @ _rows(gradient)
        return grad_left, grad_original, None


class _Projection(Function):
    """``coordinates @ matrix.mT``; the matrix's gradient is that of ``original @ matrix.mT``."""

    @staticmethod
    def forward(
        ctx: Any, coordinates: Tensor, original: Tensor, matrix: Tensor
    ) -> Tensor:
        """Return ``[..., rows]`` from coordinates ``[..., C]`` and a matrix ``[rows, C]``.

        The original tokens, ``[..., C]``, are for the matrix's gradient.
        """
        ctx.save_for_backward(original, matrix)
        return F.linear(coordinates, matrix)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """Return the gradients of coordinates and matrix, each None if it needs none.

        That of the matrix is summed over all tokens, in the type of the originals: of a
        float16 block they are in fp32, whose range the sum may need.
        """
        original, matrix = ctx.saved_tensors
        coordinates_need_grad, _, matrix_needs_grad = ctx.needs_input_grad
        grad_coordinates = None
        grad_matrix = None
        if coordinates_need_grad:
            grad_coordinates = _times(gradient, matrix)
        if matrix_needs_grad:
            grad_matrix = _rows(gradient.to(original.dtype)).mT @ _rows(original)
            grad_matrix = grad_matrix.to(matrix.dtype)
        return grad_coordinates, None, grad_matrix


class _Scores(Function):
    """``queries @ frame @ coordinates.mT``.

    The matrix's gradient is that of ``queries @ matrix @ original.mT``.
    """

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        matrix: Tensor,
        frame: Tensor,
        coordinates: Tensor,
        original: Tensor,
    ) -> Tensor:
        """Return scores ``[B, Q, N]``.

        Args:
            ctx: What torch keeps for the backward pass.
            queries (Tensor): ``[B, Q, D]``.
            matrix (Tensor): The original matrix ``[D, C]``; it only gets a gradient.
            frame (Tensor): ``[D, C]``.
            coordinates (Tensor): ``[B, N, C]``.
            original (Tensor): The original tokens ``[B, N, C]``, for the matrix's
                gradient.
        """
        queries_in_frame = _times(queries, frame)
        ctx.save_for_backward(queries, frame, queries_in_frame, coordinates, original)
        return queries_in_frame @ coordinates.mT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """Return the gradients of queries, matrix and coordinates, None where not needed.

        That of the matrix is ``queries' @ (gradient @ original)``, summed over the
        batch.
        """
        queries, frame, queries_in_frame, coordinates, original = ctx.saved_tensors
        queries_need_grad, matrix_needs_grad, _, coordinates_need_grad, _ = (
            ctx.needs_input_grad
        )
        grad_queries = None
        grad_matrix = None
        grad_coordinates = None
        if queries_need_grad:
            grad_queries = _times(gradient @ coordinates, frame.mT)
        if matrix_needs_grad:
            pooled = (gradient.to(original.dtype) @ original).to(queries.dtype)
            grad_matrix = _rows(queries).mT @ _rows(pooled)
        if coordinates_need_grad:
            grad_coordinates = gradient.mT @ queries_in_frame
        return grad_queries, grad_matrix, None, grad_coordinates, None


class _Square(Function):
    """``|W x|^2``, whose gradient with respect to W is ``2 g (W x) x'``."""

    @staticmethod
    def forward(
        ctx: Any, coordinates: Tensor, original: Tensor, mapper: Tensor, frame: Tensor
    ) -> Tensor:
        """Return the squared norm of each token's coordinates, ``[..., 1]``.

        Args:
            ctx: What torch keeps for the backward pass.
            coordinates (Tensor): Tokens in the mapper's frame, ``[..., C]``.
            original (Tensor): The original tokens ``[..., C]``, for the mapper's
                gradient.
            mapper (Tensor): W, ``[D, C]``; it only gets a gradient.
            frame (Tensor): ``[D, C]``, with orthonormal columns.
        """
        ctx.save_for_backward(coordinates, original, frame)
        return coordinates.square().sum(dim=-1, keepdim=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """Return the gradients of coordinates and mapper.

        With ``W x = frame @ coordinates``, W's gradient is the sum over tokens of
        ``frame @ (2 g coordinates) x'``.
        """
        coordinates, original, frame = ctx.saved_tensors
        _, _, mapper_needs_grad, _ = ctx.needs_input_grad
        grad_coordinates = 2 * gradient * coordinates
        grad_mapper = None
        if mapper_needs_grad:
            grad_mapper = frame @ (_rows(grad_coordinates).mT @ _rows(original))
        return grad_coordinates, None, grad_mapper, None
