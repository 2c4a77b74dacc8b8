"""A mapper, the norm after it and the projections of that, written as matrices."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lm4ve.blocks.frozen import unwrap
from lm4ve.blocks.layer import LLMLayer
from lm4ve.blocks.low_rank.products import Matrix, fold
from lm4ve.blocks.norms import affine_of

#: The shift of :func:`_shift_of` for Apple's GPUs, which have no fp64, as a part of the mean
#: of the diagonal. What is surely enough would change the norms of tokens by 0.1 %.
_SHIFT_OF_FP32 = 1e-6


class Part(NamedTuple):
    """The projection to queries, keys or values: ``matrix @ after @ tokens + constant``.

    Attributes:
        matrix (Tensor): The projection's weight ``[rows, D]``. If ``lm4ve.fuse`` has
            multiplied it by ``after`` already, ``[rows, C]``.
        after (Matrix | None): The mapper and the norm's gain, ``[D, C]``; None if they
            are in ``matrix``.
        constant (Tensor | None): The biases of norm and projection, ``[rows]``.
    """

    matrix: Tensor
    after: Matrix | None
    constant: Tensor | None

    def fold(self) -> Tensor:
        """Return the product ``matrix @ after``, ``[rows, C]``."""
        if self.after is None:
            return self.matrix
        return fold(self.matrix, self.after)


class Factors(NamedTuple):
    """A mapper W, the norm after it and the projections of that.

    Attributes:
        root (Tensor): R of the decomposition, ``[C, C]``, at least in fp32.
        mapper (Matrix): W, with centered columns for layer norm, ``[D, C]``, at least
            in fp32.
        mean (Tensor | None): The means of W's columns that centering took away,
            ``[C]``.
        eps (float | None): The norm's epsilon; None: there is no norm.
        dtype (torch.dtype): The block's.
        parts (dict[str, Part]): For 'q', 'k' and 'v'.
    """

    root: Tensor
    mapper: Matrix
    mean: Tensor | None
    eps: float | None
    dtype: torch.dtype
    parts: dict[str, Part]


def factorize(layer: LLMLayer, weight: Tensor, dtype: torch.dtype) -> Factors:
    """Write the projections of ``norm(W x)`` as factors, for the first layer of a block.

    Gradients flow to the mapper, the norm and the projections, as far as they train.

    Args:
        layer (LLMLayer): The block's first layer.
        weight (Tensor): The mapper W, ``[D, C]``.
        dtype (torch.dtype): The block's dtype, in which the factors of the projections
            are. Mapper and root are at least in fp32.
    """
    projections = {
        'q': unwrap(layer.q_proj),
        'k': unwrap(layer.k_proj),
        'v': unwrap(layer.v_proj),
    }
    wide = torch.promote_types(dtype, torch.float32)
    original = weight.to(wide)
    frame, root = decompose(original, _centers(layer), dtype)

    # The norm before the projections: gain, bias, epsilon, and what it subtracts.
    gain = None
    bias = None
    eps = None
    if layer.norm_form is not None:
        eps = layer.norm_form.eps
        like = torch.empty(len(weight), dtype=dtype, device=weight.device)
        gain, bias = affine_of(layer.attention_norm, eps, like)
    mean = None
    if _centers(layer):
        mean = original.mean(dim=0)
        original = original - mean

    mapper_matrix = Matrix(frame, None)
    if _any_trains(weight, layer.attention_norm, *projections.values()):
        mapper_matrix = Matrix(frame, original)
    mapper_and_gain = _apply_gain(mapper_matrix, gain).to(dtype)
    parts = {}
    for name, linear in projections.items():
        constant = _constant_of(linear, bias, dtype)
        parts[name] = Part(linear.weight, mapper_and_gain, constant)
    return Factors(
        root=root,
        mapper=mapper_matrix,
        mean=mean,
        eps=eps,
        dtype=dtype,
        parts=parts,
    )


def _centers(layer: LLMLayer) -> bool:
    """Return whether the norm before attention subtracts the mean over channels."""
    return layer.norm_form is not None and layer.norm_form.centered


def _any_trains(weight: Tensor, *modules: nn.Module) -> bool:
    """Return whether the weight or any parameter of the modules will get a gradient."""
    if not torch.is_grad_enabled():
        return False
    if weight.requires_grad:
        return True
    for module in modules:
        if any(p.requires_grad for p in module.parameters()):
            return True
    return False


def _apply_gain(mapper: Matrix, gain: Tensor | None) -> Matrix:
    """Multiply the rows of the mapper W by the norm's gain g: ``diag(g) W``.

    Args:
        mapper (Matrix): W in two forms, each ``[D, C]``: the orthonormal ``frame`` that
            products are computed with, and the ``original`` that gradients flow
            through. The original is None where nothing trains.
        gain (Tensor, optional): g, ``[D]``; None: the norm has no gain.

    Returns:
        Matrix: Both forms, multiplied.
    """
    if gain is None:
        return mapper
    column = gain.to(mapper.frame.dtype)[:, None]
    # The frame never gets a gradient, see Matrix: the gain's flows through the original.
    frame = column.detach() * mapper.frame
    if mapper.original is None:
        return Matrix(frame, None)
    return Matrix(frame, column * mapper.original)


def _constant_of(
    linear: Any, norm_bias: Tensor | None, dtype: torch.dtype
) -> Tensor | None:
    """Return what a projection adds to every token, ``[rows]``; None: nothing.

    That is its bias, and its weight times the bias of the norm before it.

    Args:
        linear (nn.Linear): The projection.
        norm_bias (Tensor, optional): ``[D]``.
        dtype (torch.dtype): The block's dtype.
    """
    bias: Tensor | None = linear.bias
    if norm_bias is None:
        return bias
    projected: Tensor = linear.weight @ norm_bias.to(dtype)
    if bias is None:
        return projected
    return projected + bias


def _shift_of(gram: Tensor, rows: int) -> Tensor:
    """Return what makes ``W'W`` positive definite where W's columns depend on each other.

    It is added to the diagonal, and exceeds the rounding of the product and of Cholesky's
    decomposition, which both grow with the largest eigenvalue, so at most with the sum of
    the diagonal (Higham, Accuracy and Stability of Numerical Algorithms, 2002, theorems
    3.5 and 10.7). Compared with the mean of the diagonal it is 2e-10 for D = 4096 and
    C = 384, far below the rounding of fp32.

    Args:
        gram (Tensor): ``W'W``, ``[C, C]``, in fp64 or fp32.
        rows (int): D.
    """
    diagonal = gram.diagonal()
    tiny = torch.finfo(torch.float32).tiny
    if gram.dtype == torch.float32:
        return diagonal.mean() * _SHIFT_OF_FP32 + tiny
    rounding = torch.finfo(gram.dtype).eps / 2
    return diagonal.sum() * (rows + len(gram)) * rounding + tiny


@torch.no_grad()
def decompose(
    mapper: Tensor, centered: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Decompose a mapper ``W = Q R`` into its frame Q and its root R.

    It takes Cholesky's decomposition of ``W'W`` in fp64, which for mappers of fp32 is
    as accurate as Householder's QR in fp32, in a tenth of its time. No step waits for a
    GPU. Columns may depend on each other, or be zero. Should the decomposition fail all
    the same, it is NaN: nobody reads the outputs of half of one.

    Args:
        mapper (Tensor): W, ``[D, C]``, in fp32 or fp64.
        centered (bool): Subtract the mean of each column before.
        dtype (torch.dtype): The block's dtype. For 16 bits the frame is solved for in
            fp32, since it is rounded afterwards.

    Returns:
        tuple[Tensor, Tensor]: The frame ``[D, C]``, whose columns are orthonormal, and
        the upper triangular root ``[C, C]``, in the mapper's dtype.
    """
    exact = mapper
    if mapper.device.type != 'mps':  # Apple's GPUs have no fp64
        exact = mapper.double()
    if centered:
        exact = exact - exact.mean(dim=0)
    gram = exact.t() @ exact
    identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    gram = gram + _shift_of(gram, len(exact)) * identity
    root, failed = torch.linalg.cholesky_ex(gram, upper=True)
    root = torch.where(failed == 0, root, math.nan).to(mapper.dtype)
    if dtype.itemsize < mapper.dtype.itemsize:
        exact = exact.to(mapper.dtype)
    # The frame is solved for with the rounded root, so that their product is W in spite
    # of that rounding.
    frame = torch.linalg.solve_triangular(
        root.to(exact.dtype), exact, upper=True, left=False
    )
    return frame.to(mapper.dtype, memory_format=torch.contiguous_format), root
