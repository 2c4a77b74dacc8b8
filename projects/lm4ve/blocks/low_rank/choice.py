"""Which way of using the low rank costs the fewest operations for a batch."""

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


def count_macs(layer: LLMLayer, x: Tensor, queries: Queries) -> dict[str, int]:
    """Count multiply-accumulates, up to the heads' outputs, by method.

    The mapper, its decomposition, projections and attention; the output
    projection and the MLP are the same for all. Where gradients are recorded, the
    backward pass is counted too: a product is done twice in all where one factor is
    frozen (forward, gradient of the other factor), three times where none is.

    Args:
        layer (LLMLayer): The block's first layer.
        x (Tensor): Tokens before the mapper, ``[B, N, C]``.
        queries: The tokens that this layer computes.

    Returns:
        dict[str, int]: The numbers for 'off', 'fold' and 'absorb'.
    """
    batch, n, c = x.shape
    if torch.compiler.is_compiling():
        # The compiler has a symbol for the batch, and would bind its code to it.
        batch = _COMPILED_BATCH
    read = count_queries(queries, n)
    q_dim, d = unwrap(layer.q_proj).weight.shape
    kv_dim = unwrap(layer.k_proj).weight.shape[0]
    heads = q_dim // layer.head_dim

    # What several methods do.
    attention = 2 * batch * read * n * q_dim
    map_read = batch * read * c * d
    project_queries = batch * read * d * q_dim
    decompose = c * c * d
    coordinates = batch * n * c * c

    # Products with a frozen factor, and products without one. The mapper counts as
    # frozen in its decomposition, whose gradient comes from the products after it.
    off_frozen = batch * n * d * 2 * kv_dim + project_queries
    off_free = batch * n * c * d + attention

    rows = 2 * kv_dim
    fold_frozen = decompose
    if read == n:  # every token is a query: the query's projection is folded too
        rows = rows + q_dim
    else:
        fold_frozen = fold_frozen + project_queries
    fold_frozen = fold_frozen + rows * d * c
    fold_free = coordinates + map_read + batch * n * c * rows + attention

    pool = batch * read * heads * n * c
    absorb_frozen = decompose + project_queries + 2 * batch * read * q_dim * d
    move = 2 * batch * read * heads * c * d
    absorb_free = coordinates + map_read + move + 2 * pool

    if not torch.is_grad_enabled():
        return dict(
            off=off_frozen + off_free,
            fold=fold_frozen + fold_free,
            absorb=absorb_frozen + absorb_free,
        )
    # Absorbing pools the tokens as they came, too, for the gradients of keys' and
    # values' matrices.
    return dict(
        off=2 * off_frozen + 3 * off_free,
        fold=2 * fold_frozen + 3 * fold_free,
        absorb=2 * absorb_frozen + 3 * absorb_free + 2 * pool,
    )


def count_queries(queries: Queries, n: int) -> int:
    """Return how many of n tokens the queries select."""
    if queries is None:
        return n
    if isinstance(queries, Tensor):
        return queries.shape[1]
    return len(range(n)[queries])
