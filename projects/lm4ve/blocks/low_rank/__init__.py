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
    with rotary embedding, or norms of keys or values.

**Digits.** Tokens may share a large direction that W cancels. In 16 bits little would be
left of what remains, since ``Wk A`` is rounded before it meets the tokens. So the channels
are turned first: a reflection H makes that direction the first channel, and
``W x = (W H) (H x)`` is exact. W H is computed in fp32, so its first column is what W
leaves of the direction, and large numbers meet that column alone. Float16 has no range
for them either, so there they are divided out of the tokens, into that column.

Both ways hold only if mapper, norm and projections compute what their classes define;
else the modules are called instead ('off').

    choice.py    fold, absorb or off: what is allowed, and what pays
    factors.py   the mapper, the norm and the projections as matrices
    attention.py the layer with one of the two ways
"""

from lm4ve.blocks.low_rank.attention import run_layer
from lm4ve.blocks.low_rank.choice import can_absorb, can_fold, choose_method, is_plain
from lm4ve.blocks.low_rank.factors import (
    Factors,
    Projection,
    factorize,
    fit_range,
    turn,
)

__all__ = [
    'Factors',
    'Projection',
    'can_absorb',
    'can_fold',
    'choose_method',
    'factorize',
    'fit_range',
    'is_plain',
    'run_layer',
    'turn',
]
