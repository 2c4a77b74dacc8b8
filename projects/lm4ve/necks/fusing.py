"""``lm4ve.fuse``: a model for inference, in which mappers are folded into their blocks.

As peft's merging and the fusing of detectors: one explicit step before deployment. What
``blocks/low_rank.py`` folds in each forward pass is folded once here, and *replaces* mapper,
norm and projections. So nothing can go stale; nor can such a block be trained, or loaded
from a checkpoint.
"""

import copy
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lm4ve.blocks import Frozen, LLMBlock
from lm4ve.blocks.frozen import Value, linear_of
from lm4ve.blocks.layer import Queries, Rotary, take_tokens
from lm4ve.blocks.low_rank import Factors, factorize, run_layer
from lm4ve.errors import UserError
from lm4ve.necks.llm_block_neck import LLMBlockNeck


def fuse(model: nn.Module) -> nn.Module:
    """Copy a model for inference, with every mapper folded into the block after it.

    In the copy folded constants have replaced ``mapper_in``, the norm and the projections of
    each block's first layer, so that nothing of them can change or go stale. A neck
    whose mapper or block is more than its weights (an adapter, a hook, a bias, another kind of
    block) is copied as it is.

    Args:
        model (nn.Module): Any model with or without necks; it stays as it is.

    Returns:
        nn.Module: The copy, in evaluation mode and without gradients of parameters. Its outputs
        equal the model's. To train it or to load a checkpoint into it is an error.
    """
    fused = copy.deepcopy(model).requires_grad_(False)
    fused.eval()  # mmpretrain's does not return the model
    for neck in [m for m in fused.modules() if isinstance(m, LLMBlockNeck)]:
        if isinstance(neck.block, LLMBlock) and neck.block.can_fold(neck.mapper_in):
            inner = neck.residual in ('inner', 'both')
            neck.block = FusedBlock(neck.block, neck.mapper_in.weight, inner)
            neck.residual = 'outer' if neck.residual in ('outer', 'both') else 'none'
            neck.mapper_in = nn.Identity()  # type: ignore[assignment]
    fused.register_load_state_dict_pre_hook(_refuse_loading)
    return fused


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
        residual (bool): Add the mapped tokens to the output.
    """

    @torch.no_grad()
    def __init__(self, block: LLMBlock, weight: Tensor, residual: bool) -> None:
        super().__init__()
        self.embed_dims, self.residual = block.embed_dims, residual
        self.block = copy.deepcopy(block).requires_grad_(False)
        layers: Any = self.block.layers
        with torch.autocast(weight.device.type, enabled=False):
            factors = factorize(layers[0], weight, block.dtype)
            layers[0] = FusedLayer(layers[0], factors, block.may_absorb)
        self.training = False

    def forward(
        self, x: Tensor, padding_mask: Tensor | None = None, queries: Queries = None
    ) -> Tensor:
        """Run mapper and block; see :meth:`LLMBlock.forward`, but ``x`` is ``[B, N, C]``."""
        first: Any = self.block.layers[0]
        out = self.block.run(x, padding_mask, queries, first)
        if self.residual:
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
        _refuse_loading()


def _refuse_loading(*args: Any) -> None:
    """Raise before anything is loaded into a fused model.

    Raises:
        UserError: In any case.
    """
    raise UserError(
        'A model that lm4ve.fuse has made takes no checkpoint: its mappers are folded into other '
        'weights. Fix: load the checkpoint into the original, then fuse that.'
    )
