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
of ``g x'`` over tokens, with the tokens before the decomposition. So the products
compute with frame and coordinates, and take the gradients of matrices from mapper and
tokens, which give the same product.

Both ways hold only if mapper, norm and projections compute what their classes define;
else the modules are called instead ('off').

    choice.py        fold, absorb or off: operations are counted for each batch
    eligibility.py   whether the weights alone determine what the modules compute
    factors.py       the mapper, the norm and the projections as matrices
    running.py       the layer with one of the two ways
    products.py      products in the frame, with gradients outside of it
"""

from lm4ve.blocks.low_rank.choice import CheapestMethod, count_macs
from lm4ve.blocks.low_rank.eligibility import can_absorb, can_fold
from lm4ve.blocks.low_rank.factors import Factors, Part, decompose, factorize
from lm4ve.blocks.low_rank.products import Matrix, Tokens
from lm4ve.blocks.low_rank.running import absorb, run_layer

__all__ = [
    'CheapestMethod',
    'Factors',
    'Matrix',
    'Part',
    'Tokens',
    'absorb',
    'can_absorb',
    'can_fold',
    'count_macs',
    'decompose',
    'factorize',
    'run_layer',
]
