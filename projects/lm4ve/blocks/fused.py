"""A block for inference, whose first layer has taken in the mapper before it.

What ``low_rank.py`` folds in each forward pass is folded once here, and *replaces* mapper,
norm and projections. So nothing can go stale; nor can such a block be trained, or loaded
from a checkpoint.
"""

import copy
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lm4ve.blocks.frozen import Frozen, Value, linear_of
from lm4ve.blocks.layer import Queries, Rotary, take_tokens
from lm4ve.blocks.llm_block import LLMBlock
from lm4ve.blocks.low_rank import Factors, factorize, run_layer
from lm4ve.errors import UserError


class FusedLayer(nn.Module):
    """A layer whose projections read the tokens before the mapper: ``[B, N, C] -> [B, Q, D]``.

    Args:
        layer (LLMLayer): It loses its projections.
        factors (Factors): They and the mapper.
        may_absorb (bool): Whether a few queries can have the projections on their side.
    """

    def __init__(self, layer: Any, factors: Factors, may_absorb: bool) -> None:
        super().__init__()
        self.layer = layer
        self.q, self.k, self.v = (Frozen(linear_of(*factors.fold(name))) for name in 'qkv')
        self.mapper = Frozen(Value(factors.weight.clone()))
        self.gram = None if factors.gram is None else Frozen(Value(factors.gram))
        self.eps, self.may_absorb = factors.eps, may_absorb
        layer.q_proj = layer.k_proj = layer.v_proj = None
        if not layer.needs_normed:
            layer.attention_norm = None

    def forward(
        self, x: Tensor, mask: Tensor | None = None, queries: Queries = None, rotary: Rotary = None
    ) -> Tensor:
        """Run the layer; see :meth:`LLMLayer.forward`, but ``x`` is ``[B, N, C]``."""
        linear = dict(q=self.q.wrapped, k=self.k.wrapped, v=self.v.wrapped)
        parts: Any = {name: ((m.weight,), m.bias) for name, m in linear.items()}
        gram = None if self.gram is None else self.gram().float()
        factors = Factors(self.mapper(), gram, self.eps, parts)
        # The class token, or certain ones. Counting would bind a trace to the sizes.
        few = isinstance(queries, Tensor) or queries == slice(0, 1)
        method = 'absorb' if few and self.may_absorb else 'fold'
        return run_layer(self.layer, x, mask, queries, rotary, factors, method)


class FusedBlock(nn.Module):
    """A frozen block and the mapper before it: ``[B, N, C] -> [B, Q, D]``, for inference.

    Args:
        block (LLMBlock): It is copied.
        weight (Tensor): The mapper, ``[D, C]``.
    """

    @torch.no_grad()
    def __init__(self, block: LLMBlock, weight: Tensor) -> None:
        super().__init__()
        self.embed_dims = block.embed_dims
        self.block = copy.deepcopy(block).requires_grad_(False)
        layers: Any = self.block.layers
        with torch.autocast(weight.device.type, enabled=False):
            factors = factorize(layers[0], weight, block.dtype)
            layers[0] = FusedLayer(layers[0], factors, block.may_absorb)
        self.training = False

    def forward_mapped(
        self,
        x: Tensor,
        mapper: None,
        padding_mask: Tensor | None = None,
        queries: Queries = None,
        method: str = 'fused',
        residual: bool = False,
    ) -> Tensor:
        """Run mapper and block; see :meth:`LLMBlock.forward_mapped`."""
        first: Any = self.block.layers[0]
        out = self.block.run(x, padding_mask, queries, first)
        if residual:
            out = out + F.linear(take_tokens(x, queries), first.mapper().to(x.dtype))
        return out

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation.

        Raises:
            UserError: Training is wanted.
        """
        if mode:
            raise UserError('A model that lm4ve.fuse has made cannot train; train the original.')
        return self

    def _load_from_state_dict(self, *args: Any) -> None:
        refuse_loading()


def refuse_loading(*args: Any) -> None:
    """Raise before anything is loaded into a fused model.

    Raises:
        UserError: In any case.
    """
    raise UserError(
        'A model that lm4ve.fuse has made takes no checkpoint: its mappers are folded into other '
        'weights. Fix: load the checkpoint into the original, then fuse that.'
    )
