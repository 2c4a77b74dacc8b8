"""Which way of using the low rank costs the fewest operations for a batch."""

from typing import NamedTuple

import torch
from mmengine.logging import print_log
from torch import Tensor

from lm4ve.blocks.frozen import unwrap
from lm4ve.blocks.layer import LLMLayer
from lm4ve.blocks.tokens import Queries

#: The batch for which compiled code decides.
_COMPILED_BATCH = 32


class CheapestMethod:
    """Chooses the method with the fewest operations, and logs each choice once.

    Attributes:
        logged (set[str]): The methods that stand in the log.
    """

    def __init__(self) -> None:
        self.logged: set[str] = set()

    def __call__(
        self, layer: LLMLayer, x: Tensor, queries: Queries, may_absorb: bool
    ) -> str:
        """Return 'off', 'fold' or 'absorb'.

        Args:
            layer (LLMLayer): The block's first layer.
            x (Tensor): Tokens before the mapper, ``[B, N, C]``.
            queries: The tokens that this layer computes.
            may_absorb (bool): Whether 'absorb' computes the layer's attention, see
                :func:`can_absorb`.
        """
        costs = count_macs(layer, x, queries)
        # Compared one by one: `min` with a key does not take the symbols that a
        # compiler has for these numbers.
        method = 'off'
        if costs['fold'] < costs[method]:
            method = 'fold'
        if may_absorb and costs['absorb'] < costs[method]:
            method = 'absorb'
        if not torch.compiler.is_compiling():
            self._log_once(method, costs, x)
        return method

    def _log_once(self, method: str, costs: dict[str, int], x: Tensor) -> None:
        """Log a method with the operations of all, when it is chosen for the first time.

        Args:
            method (str): The method.
            costs (dict[str, int]): Multiply-accumulates by method.
            x (Tensor): Tokens before the mapper, for their shape.
        """
        if method in self.logged:
            return
        self.logged.add(method)
        counts = ', '.join(f'{name} {macs / 1e9:.2f}' for name, macs in costs.items())
        print_log(
            f"LLMBlock: low_rank='auto' chose '{method}' for {list(x.shape)} "
            f'(GMAC up to the heads: {counts})',
            logger='current',
        )


class _Sizes(NamedTuple):
    """The sizes that the costs depend on.

    Attributes:
        batch (int): B.
        tokens (int): N.
        computed (int): Q, the number of queries of a sample.
        channels (int): C, before the mapper.
        width (int): D, after it.
        q_rows (int): Rows of the query projection.
        kv_rows (int): Rows of the key and of the value projection, each.
        heads (int): Heads of the queries.
    """

    batch: int
    tokens: int
    computed: int
    channels: int
    width: int
    q_rows: int
    kv_rows: int
    heads: int


class _Cost(NamedTuple):
    """Multiply-accumulates of a forward pass.

    Attributes:
        frozen (int): The multiply-accumulates of products with a frozen factor.
        free (int): The same of products of two factors that get gradients.
    """

    frozen: int
    free: int


def count_macs(layer: LLMLayer, x: Tensor, queries: Queries) -> dict[str, int]:
    """Count the multiply-accumulates of each method, up to the heads' outputs.

    That is the mapper, its decomposition, the projections and attention; the output
    projection and the MLP are the same for all methods. If gradients are recorded, the
    backward pass is counted too: a product with a frozen factor is done twice in all
    (forward, gradient of the other factor), any other three times.

    Args:
        layer (LLMLayer): The block's first layer.
        x (Tensor): Tokens before the mapper, ``[B, N, C]``.
        queries: The tokens that this layer computes.

    Returns:
        dict[str, int]: The numbers for 'off', 'fold' and 'absorb'.
    """
    sizes = _sizes_of(layer, x, queries)
    off = _cost_of_modules(sizes)
    fold = _cost_of_fold(sizes)
    absorb = _cost_of_absorb(sizes)
    if not torch.is_grad_enabled():
        return dict(
            off=off.frozen + off.free,
            fold=fold.frozen + fold.free,
            absorb=absorb.frozen + absorb.free,
        )
    # 'absorb' also averages the tokens as they came, for the gradients of the matrices
    # of keys and values.
    averages = 2 * _macs_of_average(sizes)
    return dict(
        off=2 * off.frozen + 3 * off.free,
        fold=2 * fold.frozen + 3 * fold.free,
        absorb=2 * absorb.frozen + 3 * absorb.free + averages,
    )


def _sizes_of(layer: LLMLayer, x: Tensor, queries: Queries) -> _Sizes:
    """Return the sizes of a layer and of a batch; the arguments are :func:`count_macs`'."""
    batch, tokens, channels = x.shape
    if torch.compiler.is_compiling():
        # The compiler has a symbol for the batch, and would bind its code to it.
        batch = _COMPILED_BATCH
    q_rows, width = unwrap(layer.q_proj).weight.shape
    return _Sizes(
        batch=batch,
        tokens=tokens,
        computed=count_queries(queries, tokens),
        channels=channels,
        width=width,
        q_rows=q_rows,
        kv_rows=unwrap(layer.k_proj).weight.shape[0],
        heads=q_rows // layer.head_dim,
    )


def _cost_of_modules(s: _Sizes) -> _Cost:
    """Count what mapper, projections and attention take as modules ('off')."""
    keys_and_values = s.batch * s.tokens * s.width * 2 * s.kv_rows
    mapper = s.batch * s.tokens * s.channels * s.width
    return _Cost(
        frozen=keys_and_values + _macs_of_query_projection(s),
        free=mapper + _macs_of_attention(s),
    )


def _cost_of_fold(s: _Sizes) -> _Cost:
    """Count what 'fold' takes: products of weights, then projections of C channels."""
    folded_rows = 2 * s.kv_rows
    frozen = _macs_of_decomposition(s)
    if s.computed == s.tokens:  # the query projection is folded too
        folded_rows = folded_rows + s.q_rows
    else:
        frozen = frozen + _macs_of_query_projection(s)
    products_of_weights = folded_rows * s.width * s.channels
    projections = s.batch * s.tokens * s.channels * folded_rows
    return _Cost(
        frozen=frozen + products_of_weights,
        free=_macs_of_mapped_queries(s) + projections + _macs_of_attention(s),
    )


def _cost_of_absorb(s: _Sizes) -> _Cost:
    """Count what 'absorb' takes: the weights act on queries and on averages of tokens."""
    key_and_value_weights = 2 * s.batch * s.computed * s.q_rows * s.width
    mapper = 2 * s.batch * s.computed * s.heads * s.channels * s.width
    scores_and_averages = 2 * _macs_of_average(s)
    return _Cost(
        frozen=_macs_of_decomposition(s)
        + _macs_of_query_projection(s)
        + key_and_value_weights,
        free=_macs_of_mapped_queries(s) + mapper + scores_and_averages,
    )


def _macs_of_attention(s: _Sizes) -> int:
    """Count scores and weighted values of attention over keys and values."""
    return 2 * s.batch * s.computed * s.tokens * s.q_rows


def _macs_of_query_projection(s: _Sizes) -> int:
    """Count the projection of the queries from D channels."""
    return s.batch * s.computed * s.width * s.q_rows


def _macs_of_decomposition(s: _Sizes) -> int:
    """Count the decomposition of the mapper, which counts as a frozen product.

    Its gradient comes from the products after it.
    """
    return s.channels * s.channels * s.width


def _macs_of_mapped_queries(s: _Sizes) -> int:
    """Count the coordinates of all tokens, and the mapper at the queries."""
    coordinates = s.batch * s.tokens * s.channels * s.channels
    mapper = s.batch * s.computed * s.channels * s.width
    return coordinates + mapper


def _macs_of_average(s: _Sizes) -> int:
    """Count one weighted average of the tokens' C channels for each head and query."""
    return s.batch * s.computed * s.heads * s.tokens * s.channels


def count_queries(queries: Queries, n: int) -> int:
    """Return how many of n tokens the queries select."""
    if queries is None:
        return n
    if isinstance(queries, Tensor):
        return queries.shape[1]
    return len(range(n)[queries])
