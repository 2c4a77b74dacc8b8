"""A mapper, the norm after it and the projections of that, written as matrices."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lm4ve.blocks.frozen import unwrap
from lm4ve.blocks.layer import LLMLayer
from lm4ve.blocks.low_rank.products import Matrix, fold
from lm4ve.blocks.norms import affine_of

#: What is added to the diagonal of ``W'W``, in parts of its mean: above the rounding of
#: its type, so that dependent columns have a decomposition too; of fp64 far below that
#: of fp32.
_SHIFT = {torch.float64: 1e-14, torch.float32: 1e-6}


class Part(NamedTuple):
    """A projection of the normed tokens.

    Attributes:
        matrix (Tensor): ``[rows, D]``, or ``[rows, C]`` where ``after`` is None.
        after (Matrix | None): ``[D, C]``, from tokens to what the projection reads;
            None if ``lm4ve.fuse`` has folded it into ``matrix``.
        constant (Tensor | None): What is added, ``[rows]``.
    """

    matrix: Tensor
    after: Matrix | None
    constant: Tensor | None

    def fold(self) -> Tensor:
        """Return the matrix ``[rows, C]`` that takes tokens to the projection."""
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
    """Write a layer's projections of ``norm(W x)`` as factors; gradients flow to all weights.

    Args:
        layer (LLMLayer): The block's first layer.
        weight (Tensor): The mapper W, ``[D, C]``.
        dtype (torch.dtype): The block's.
    """
    projections = {
        'q': unwrap(layer.q_proj),
        'k': unwrap(layer.k_proj),
        'v': unwrap(layer.v_proj),
    }
    trains = _trains(weight, layer.attention_norm, *projections.values())
    wide = torch.promote_types(dtype, torch.float32)
    mapper = weight.to(wide)
    gain = None
    bias = None
    mean = None
    eps = None
    if layer.norm_form is not None:
        _, centered, eps = layer.norm_form
        like = torch.empty(len(weight), dtype=dtype, device=weight.device)
        gain, bias = affine_of(layer.attention_norm, eps, like)
        if centered:
            mean = mapper.mean(dim=0)
            mapper = mapper - mean
    frame, root = decompose(weight.to(wide), mean is not None, dtype)
    whole = Matrix(frame, mapper if trains else None)
    normed = _apply_gain(whole, gain).to(dtype)
    parts = {}
    for name, linear in projections.items():
        constant = _constant(linear, bias, dtype)
        parts[name] = Part(linear.weight, normed, constant)
    return Factors(root, whole, mean, eps, dtype, parts)


def _trains(weight: Tensor, *modules: nn.Module) -> bool:
    """Return whether a weight or a parameter of some modules will get a gradient."""
    if not torch.is_grad_enabled():
        return False
    if weight.requires_grad:
        return True
    for module in modules:
        if any(p.requires_grad for p in module.parameters()):
            return True
    return False


def _apply_gain(mapper: Matrix, gain: Tensor | None) -> Matrix:
    """Return ``diag(g) W``."""
    if gain is None:
        return mapper
    column = gain.to(mapper.frame.dtype)[:, None]
    own = mapper.own
    if own is not None:
        own = column * own
    return Matrix(column.detach() * mapper.frame, own)


def _constant(linear: Any, bias: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Return what a projection adds: its own bias, and its product with the norm's."""
    own: Tensor | None = linear.bias
    if bias is None:
        return own
    added: Tensor = linear.weight @ bias.to(dtype)
    if own is None:
        return added
    return added + own


@torch.no_grad()
def decompose(
    mapper: Tensor, centered: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Decompose a mapper ``[D, C]`` into its frame ``[D, C]`` and its root ``[C, C]``.

    By Cholesky's decomposition of ``W'W`` in fp64, which for mappers of fp32 is as
    accurate as Householder's QR in fp32 and takes a tenth of its time. Nothing of it
    waits for a GPU. Columns may depend on each other, or be zero.

    Args:
        mapper (Tensor): In fp32 or fp64.
        centered (bool): Subtract the mean of each column before.
        dtype (torch.dtype): The block's, for 16 bits of which the frame need not be as
            exact.
    """
    exact = mapper
    if mapper.device.type != 'mps':  # Apple's GPUs have no fp64
        exact = mapper.double()
    if centered:
        exact = exact - exact.mean(dim=0)
    gram = exact.t() @ exact
    shift = gram.diagonal().mean() * _SHIFT[exact.dtype]
    shift = shift + torch.finfo(mapper.dtype).tiny
    identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    gram = gram + shift * identity
    root = torch.linalg.cholesky_ex(gram, upper=True).L.to(mapper.dtype)
    if dtype.itemsize < mapper.dtype.itemsize:
        exact = exact.to(mapper.dtype)
    # For the root as it is rounded, so that this rounding cancels out.
    frame = torch.linalg.solve_triangular(
        root.to(exact.dtype), exact, upper=True, left=False
    )
    return frame.to(mapper.dtype, memory_format=torch.contiguous_format), root
