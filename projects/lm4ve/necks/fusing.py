"""``lm4ve.fuse``: a model for inference, in which mappers are folded into their blocks.

As peft's merging and the fusing of detectors: one explicit step before deployment. What
``blocks/low_rank`` folds in each forward pass is folded once here, and *replaces*
mapper, norm and projections. So nothing can go stale; nor can such a block be trained,
or loaded from a checkpoint.
"""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lm4ve.blocks import Frozen, LLMBlock
from lm4ve.blocks.frozen import linear_of, module_of
from lm4ve.blocks.low_rank import Factors, Projection, factorize
from lm4ve.blocks.tokens import Queries, take_tokens
from lm4ve.errors import UserError
from lm4ve.necks.neck import LLMBlockNeck
from lm4ve.necks.path import has_inner_residual, has_outer_residual


def fuse(model: nn.Module) -> nn.Module:
    """Copy a model for inference, with every mapper folded into the block after it.

    In the copy folded constants have replaced ``mapper_in``, the norm and the
    projections of each block's first layer, so that nothing of them can change or go
    stale. A neck whose mapper or block is more than its weights (a hook, a bias,
    another kind of block) is copied as it is. LoRA of ``peft`` on them is merged into
    their weights.

    Args:
        model (nn.Module): Any model with or without necks; it stays as it is.

    Returns:
        nn.Module: The copy, in evaluation mode and without gradients of parameters. Its
        outputs equal the model's. It has nothing to train, and to load a checkpoint
        into it is an error.
    """
    fused = copy.deepcopy(model).requires_grad_(False)
    fused.eval()  # mmpretrain's does not return the model
    for module in list(fused.modules()):
        if isinstance(module, LLMBlockNeck):
            _fuse_neck(module)
    return fused


def _fuse_neck(neck: LLMBlockNeck) -> None:
    """Replace a neck's mapper and block by a :class:`FusedBlock`, in place.

    Adapters are merged first. A neck stays as it is if its weights do not determine
    what mapper and block compute, or if a gate acts between the block and an inner
    residual.
    """
    if any(hasattr(module, 'lora_A') for module in neck.modules()):
        from lm4ve.blocks.adapters import merge_adapters

        merge_adapters(neck)
    inner = has_inner_residual(neck.residual)
    if inner and neck.gate is not None:
        return  # the gate acts between the block and what is added
    if not isinstance(neck.block, LLMBlock):
        return
    if not neck.block.can_fold(neck.mapper_in):
        return
    neck.block = FusedBlock(neck.block, neck.mapper_in.weight, inner)
    # The inner residual is part of the fused block.
    if has_outer_residual(neck.residual):
        neck.residual = 'outer'
    else:
        neck.residual = 'none'
    neck.mapper_in = nn.Identity()


class FusedBlock(nn.Module):
    """A frozen block and the mapper before it: ``[B, N, C] -> [B, Q, D]``, for inference.

    Args:
        block (LLMBlock): It is copied; the copy's first layer reads tokens before the
            mapper.
        weight (Tensor): The mapper, ``[D, C]``.
        residual (bool): Add the mapped tokens to the output.
    """

    @torch.no_grad()
    def __init__(self, block: LLMBlock, weight: Tensor, residual: bool) -> None:
        super().__init__()
        self.embed_dims = block.embed_dims
        self.residual = residual
        self.block = copy.deepcopy(block).requires_grad_(False)
        layer: Any = self.block.layers[0]
        # Coordinates of the tokens in the mapper's own directions: in 16 bits they keep
        # the digits that the folded weights would lose (``lm4ve/blocks/low_rank``).
        wide = torch.promote_types(block.dtype, torch.float32)
        frame, root = torch.linalg.qr(weight.detach().double().cpu())
        with torch.autocast(weight.device.type, enabled=False):
            frame = frame.to(weight.device, wide)
            factors = factorize(layer, frame, block.dtype)
            for name, projection in factors.projections.items():
                folded = linear_of(projection.fold(), projection.constant)
                setattr(layer, f'{name}_proj', Frozen(folded))
        kept = dict(root=root.to(weight.device, wide), mapper=factors.mapper)
        if factors.gram is not None:
            kept['gram'] = factors.gram
        if residual:  # which the neck computes in the mapper's own type
            kept['residual'] = weight.clone()
        layer.folded = Frozen(module_of(**kept))
        self.eps = factors.eps
        layer.attention_norm = nn.Identity()

    def forward(
        self, x: Tensor, padding_mask: Tensor | None = None, queries: Queries = None
    ) -> Tensor:
        """Run mapper and block.

        Args:
            x (Tensor): Tokens before the mapper, ``[B, N, C]``.
            padding_mask (Tensor, optional): See :meth:`LLMBlock.forward`.
            queries: See :meth:`LLMBlock.forward`.

        Returns:
            Tensor: ``[B, Q, D]``.
        """
        layer: Any = self.block.layers[0]
        kept = layer.folded.wrapped
        with torch.autocast(x.device.type, enabled=False):
            # Also of a model that was cast to 16 bits.
            wide = torch.promote_types(kept.root.dtype, torch.float32)
            coordinates = F.linear(x.to(wide), kept.root.to(wide))
        method = self._method(queries)
        out = self.block.run_low_rank(
            coordinates, padding_mask, queries, self._factors(), method
        ).to(x.dtype)
        if not self.residual:
            return out
        return out + F.linear(take_tokens(x, queries), kept.residual.to(x.dtype))

    def _factors(self) -> Factors:
        """Return the folded weights in the form that :meth:`LLMBlock.run_low_rank` takes."""
        layer: Any = self.block.layers[0]
        kept = layer.folded.wrapped
        projections = {}
        for name in 'qkv':
            linear = getattr(layer, f'{name}_proj').wrapped
            projections[name] = Projection(linear.weight, None, linear.bias)
        return Factors(
            mapper=kept.mapper,
            gram=getattr(kept, 'gram', None),
            eps=self.eps,
            projections=projections,
        )

    def _method(self, queries: Queries) -> str:
        """Choose 'absorb' if few tokens are computed, else 'fold'.

        Few are the class token, or any that are given as indices. They are not counted,
        since a traced model would be bound to the sizes.
        """
        reads_few = isinstance(queries, Tensor) or queries == slice(0, 1)
        has_one_layer = len(self.block.layers) == 1
        if reads_few and has_one_layer and self.block.may_absorb:
            return 'absorb'
        return 'fold'

    def _load_from_state_dict(self, *args: Any) -> None:
        """Refuse every state.

        Raises:
            UserError: In any case.
        """
        raise UserError(
            'A model that lm4ve.fuse has made takes no checkpoint: its mappers are folded into '
            'other weights. Fix: load the checkpoint into the original, then fuse that.'
        )
