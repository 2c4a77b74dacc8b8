"""The first layer's attention from an input of low rank, exactly and for less.

Behind the mapper ``W`` (``[D, C]``, C << D) the block's input ``h = W x`` has rank
C, and so has its norm: for every token it is a scale times a linear map,

    norm(h_n) = A xs_n + b,   A = diag(g) W,   xs_n = s_n x_n,

where s is the norm's scale, g and b its gain and bias. (Layer norm: W with its
columns centered. Families that norm after the branch: s = 1, g = 1, b = 0.) Keys
and values are frozen projections of that. Two ways to use it:

fold
    ``k = (Wk A) xs + Wk b``. A token costs C instead of D; the folded matrix costs
    ``D C`` a row in every forward pass, since the weights may have changed.
absorb
    ``q . k = (A' Wk' q) . xs + q . Wk b``, and values are pooled as ``xs``
    before ``A`` and ``Wv`` act. No key or value is ever computed. For few queries; not
    with rotary embedding, norms of keys or values, clipped projections or sinks.

**Digits.** Tokens can be large in a direction that W cancels, and W can be
ill-conditioned. Where ``Wk A`` is rounded to 16 bits before it meets the tokens, little
is left of what remains, and ``|W x|^2 = x' (W'W) x`` loses it in 32 bits. So W is
decomposed as ``W = Q R``, with orthonormal columns of Q (the *frame*) and a triangular
R (the *root*), and tokens enter as ``y = R x``, their *coordinates* in that frame: ``h
= Q y`` and ``|h| = |y|``, where nothing cancels. Coordinates are computed in fp32 with
autocast off.

**Gradients.** The frame is as good as constant: a small change of W changes it in a way
that the inverse of R would describe, which may be huge. But the gradient of W is a sum
of ``g x'`` over tokens, with the tokens before the decomposition. So the products below
compute with frame and coordinates, and take the gradients of matrices from mapper and
tokens, which give the same product (:class:`_Product`, :class:`_Projection`,
:class:`_Scores`, :class:`_Square`).

Both hold only if mapper, norm and projections compute what their classes define; else
:meth:`lm4ve.blocks.LLMBlock.choose_low_rank` has the modules called instead.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from lm4ve.blocks.frozen import unwrap
from lm4ve.blocks.layer import LLMLayer, Queries, Rotary, take_tokens
from lm4ve.blocks.norms import affine_of

#: The batch for which compiled code decides.
_COMPILED_BATCH = 32
#: What is added to the diagonal of ``W'W``, in parts of its mean: above the rounding of
#: its type, so that dependent columns have a decomposition too; of fp64 far below that
#: of fp32.
_SHIFT = {torch.float64: 1e-14, torch.float32: 1e-6}


def count_macs(layer: LLMLayer, x: Tensor, queries: Queries) -> dict[str, int]:
    """Count multiply-accumulates, up to the heads' outputs, by method.

    The mapper, its decomposition, projections and attention; the output
    projection and the MLP are the same for all. Where gradients are recorded, the
    backward pass is counted too: a product is done twice in all where one factor is
    frozen (forward, gradient of the other factor), three times where none is.

    Args:
        layer (LLMLayer): The block's first layer.
        x (Tensor): Tokens before the mapper, ``[B, N, C]``.
        queries: The tokens that are read.
    """
    batch, n, c = x.shape
    if (
        torch.compiler.is_compiling()
    ):  # which has a symbol for the batch, and binds code to it
        batch = _COMPILED_BATCH
    if isinstance(queries, Tensor):
        read = queries.shape[1]
    else:
        read = n if queries is None else len(range(n)[queries])
    (q_dim, d), kv_dim = (
        unwrap(layer.q_proj).weight.shape,
        len(unwrap(layer.k_proj).weight),
    )
    heads = q_dim // layer.head_dim
    attention = 2 * batch * read * n * q_dim
    mapped, query = batch * read * c * d, batch * read * d * q_dim
    # The mapper is frozen for its decomposition, whose gradient comes from the products
    # after it.
    decomposition, coordinates = c * c * d, batch * n * c * c
    pooled = batch * read * heads * n * c
    # Where every token is a query, the query's projection is folded too.
    fold_query = read == n
    rows = 2 * kv_dim + fold_query * q_dim
    # Method -> (products with a frozen factor, products without).
    counts = dict(
        off=(batch * n * d * 2 * kv_dim + query, batch * n * c * d + attention),
        fold=(
            decomposition + rows * d * c + (not fold_query) * query,
            coordinates + mapped + batch * n * c * rows + attention,
        ),
        absorb=(
            decomposition + query + 2 * batch * read * q_dim * d,
            coordinates + mapped + 2 * batch * read * heads * c * d + 2 * pooled,
        ),
    )
    if not torch.is_grad_enabled():
        return {name: frozen + free for name, (frozen, free) in counts.items()}
    total = {name: 2 * frozen + 3 * free for name, (frozen, free) in counts.items()}
    # Tokens are pooled as they came, too, for the gradients of keys' and values'
    # matrices.
    total['absorb'] += 2 * pooled
    return total


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
        return Matrix(
            self.frame.to(dtype), None if self.own is None else self.own.to(dtype)
        )


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
        own = None if self.own is None else take_tokens(self.own, queries)
        return Tokens(take_tokens(self.coordinates, queries), own)

    def scaled(self, scale: Tensor) -> 'Tokens':
        own = None if self.own is None else self.own * scale.detach()
        return Tokens(self.coordinates * scale, own)

    def to(self, dtype: torch.dtype) -> 'Tokens':
        """Return them in the block's dtype; those for gradients could leave float16's range."""
        own = self.own
        if own is not None and dtype != torch.float16:
            own = own.to(dtype)
        return Tokens(self.coordinates.to(dtype), own)


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
        return self.matrix if self.after is None else _product(self.matrix, self.after)


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
    # Apple's GPUs have no fp64.
    exact = mapper if mapper.device.type == 'mps' else mapper.double()
    if centered:
        exact = exact - exact.mean(dim=0)
    gram = exact.t() @ exact
    shift = (
        gram.diagonal().mean() * _SHIFT[exact.dtype] + torch.finfo(mapper.dtype).tiny
    )
    gram = gram + shift * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    root = torch.linalg.cholesky_ex(gram, upper=True).L.to(mapper.dtype)
    if dtype.itemsize < mapper.dtype.itemsize:
        exact = exact.to(mapper.dtype)
    # For the root as it is rounded, so that this rounding cancels out.
    frame = torch.linalg.solve_triangular(
        root.to(exact.dtype), exact, upper=True, left=False
    )
    return frame.to(mapper.dtype, memory_format=torch.contiguous_format), root


def factorize(layer: LLMLayer, weight: Tensor, dtype: torch.dtype) -> Factors:
    """Write a layer's projections of ``norm(W x)`` as factors; gradients flow to all weights.

    Args:
        layer (LLMLayer): The block's first layer.
        weight (Tensor): The mapper W, ``[D, C]``.
        dtype (torch.dtype): The block's.
    """
    projections = {name: unwrap(getattr(layer, f'{name}_proj')) for name in 'qkv'}
    trained = [weight, *layer.attention_norm.parameters()]
    trained += [p for linear in projections.values() for p in linear.parameters()]
    trains = torch.is_grad_enabled() and any(p.requires_grad for p in trained)

    wide = torch.promote_types(dtype, torch.float32)
    mapper = weight.to(wide)
    gain = bias = mean = eps = None
    if layer.norm_form is not None:
        _, centered, eps = layer.norm_form
        like = torch.empty(len(weight), dtype=dtype, device=weight.device)
        gain, bias = affine_of(layer.attention_norm, eps, like)
        if centered:
            mean = mapper.mean(dim=0)
            mapper = mapper - mean
    frame, root = decompose(weight.to(wide), mean is not None, dtype)
    whole = Matrix(frame, mapper if trains else None)
    normed = whole
    if gain is not None:
        gain = gain.to(wide)[:, None]
        normed = Matrix(gain.detach() * frame, gain * mapper if trains else None)
    normed = normed.to(dtype)

    parts = {}
    for name, linear in projections.items():
        constant = linear.bias
        if bias is not None:
            added = linear.weight @ bias.to(dtype)
            constant = added if constant is None else added + constant
        parts[name] = Part(linear.weight, normed, constant)
    return Factors(root, whole, mean, eps, dtype, parts)


def absorb(
    layer: LLMLayer,
    q: Tensor,
    xs: Tokens,
    keys: Part,
    values: Part,
    mask: Tensor | None,
) -> Tensor:
    """Attention with the projections moved to the queries' side.

    Args:
        layer (LLMLayer): The layer that the projections are of.
        q (Tensor): ``[B, H, Q, d]``.
        xs (Tokens): Scaled tokens, ``[B, N, C]``.
        keys, values (Part): Their projections.
        mask (Tensor, optional): Bool, broadcastable to ``[B, H, Q, N]``.

    Returns:
        Tensor: ``[B, H, Q, d]``.
    """
    batch, heads, queries, head_dim = q.shape
    kv_heads = len(keys.matrix) // head_dim
    # Before the products: unscaled scores could leave float16's range.
    q = q.unflatten(1, (kv_heads, -1)) * layer.scale  # [B, KV, H / KV, Q, d]
    moved = torch.einsum(
        'bkgqd,kdc->bkgqc', q, keys.matrix.unflatten(0, (kv_heads, -1))
    )
    scores = _scores(moved.flatten(1, 3), keys.after, xs).float()
    scores = scores.view(batch, heads, queries, -1)
    key_constant = keys.constant
    if key_constant is not None and (
        layer.softcap is not None or key_constant.requires_grad
    ):
        # Without a cap it is the same for every key, and softmax drops it; a
        # trained bias must not stay unused, or DDP stops.
        constant = (q * key_constant.view(kv_heads, 1, 1, head_dim)).sum(
            -1, keepdim=True
        )
        scores = scores + constant.flatten(1, 2).float()
    if layer.softcap is not None:
        scores = torch.tanh(scores / layer.softcap) * layer.softcap
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = torch.softmax(scores, dim=-1).to(q.dtype).flatten(1, 2)
    pooled = weights @ xs.coordinates
    if values.after is not None:
        own = None if xs.own is None else (weights.to(xs.own.dtype) @ xs.own).detach()
        pooled = _project(Tokens(pooled, own), _of_frame(values.after))
    pooled = pooled.view(batch, kv_heads, -1, queries, pooled.shape[-1])
    out = torch.einsum(
        'bkgqc,kdc->bkgqd', pooled, values.matrix.unflatten(0, (kv_heads, -1))
    )
    if values.constant is not None:
        out = out + values.constant.view(kv_heads, 1, 1, head_dim)
    return out.flatten(1, 2)


def run_layer(
    layer: LLMLayer,
    x: Tensor,
    mask: Tensor | None,
    queries: Queries,
    rotary: Rotary,
    factors: Factors,
    method: str,
) -> Tensor:
    """Run a layer on ``W x`` without computing what the queries do not need.

    Args:
        layer (LLMLayer): The block's first layer.
        x (Tensor): ``[B, N, C]``.
        mask, queries, rotary: As in :meth:`LLMLayer.forward`.
        factors (Factors): The mapper, the norm and the projections.
        method (str): 'fold' or 'absorb'.

    Returns:
        Tensor: ``[B, Q, D]``, equal to ``layer(F.linear(x, weight), ...)``.
    """
    mapper, dtype = factors.mapper, factors.dtype
    x = x.to(factors.root.dtype)
    own = None if mapper.own is None else x.detach()
    tokens = Tokens(F.linear(x, factors.root), own)
    hidden = _project(tokens.take(queries).to(dtype), _of_frame(mapper.to(dtype)))
    if factors.mean is not None:
        offset = take_tokens(x, queries) @ factors.mean
        hidden = hidden + offset[..., None].to(dtype)
    if factors.eps is not None:
        mean_square = _square(tokens, mapper) / len(mapper.frame)
        tokens = tokens.scaled(torch.rsqrt(mean_square + factors.eps))
    xs = tokens.to(dtype)

    # Where all tokens are folded, only a gate or an MLP that shares the norm reads it.
    reads_norm = queries is not None or layer.needs_normed
    normed = layer.attention_norm(hidden) if reads_norm else hidden
    parts = factors.parts
    if queries is None or parts['q'].after is None:  # which lm4ve.fuse has folded
        q = _project(xs.take(queries), parts['q'].fold(), parts['q'].constant)
    else:
        q = layer.q_proj(normed)
    q = layer.heads(q, layer.q_norm)
    if method == 'absorb':
        out = absorb(layer, q, xs, parts['k'], parts['v'], mask)
        return layer.finish(hidden, normed, out)
    k, v = (_project(xs, parts[name].fold(), parts[name].constant) for name in 'kv')
    k, v = layer.heads(k, layer.k_norm), layer.heads(v, layer.v_norm)
    q, k = layer.rotated(q, k, queries, rotary)
    return layer.finish(hidden, normed, layer.attend(q, k, v, mask))


# --------------------------------------- products in the frame, gradients outside of it
def _of_frame(matrix: Matrix) -> Tensor:
    """Return a matrix for :func:`_project`."""
    if matrix.own is None:
        return matrix.frame
    return _apply(_Frame, matrix.own, matrix.frame)


def _product(left: Tensor, matrix: Matrix) -> Tensor:
    """Return ``left @ matrix``, ``[..., D] x [D, C]``, which acts on coordinates."""
    if matrix.own is None:
        return left @ matrix.frame
    return _apply(_Product, left, matrix.own, matrix.frame)


def _project(tokens: Tokens, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the projection ``[..., rows]`` of tokens by a matrix ``[rows, C]``."""
    if tokens.own is None:
        return F.linear(tokens.coordinates, matrix, bias)
    out = _apply(_Projection, tokens.coordinates, tokens.own, matrix)
    return out if bias is None else out + bias


def _scores(left: Tensor, matrix: Matrix | None, tokens: Tokens) -> Tensor:
    """Return the scores ``[B, Q, N]`` of ``[B, Q, D] x [D, C]`` and tokens ``[B, N, C]``."""
    if matrix is None:  # lm4ve.fuse has folded it into what is left of it
        return left @ tokens.coordinates.mT
    if tokens.own is None:
        return _times(left, matrix.frame) @ tokens.coordinates.mT
    return _apply(
        _Scores, left, matrix.own, matrix.frame, tokens.coordinates, tokens.own
    )


def _square(tokens: Tokens, mapper: Matrix) -> Tensor:
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
        of_left = of_own = None
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
        of_coordinates = of_matrix = None
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
        of_left = of_mapper = of_coordinates = None
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
