"""A trained attention layer in the place of a language model's block.

The control of "Are language models actually useful for time series forecasting?" (arXiv
2406.16964, "LLM2Attn") and of "LLM plug-ins are not a free lunch" (HeaLing 2026).
"""

import torch.nn.functional as F
from torch import Tensor, nn

from lm4ve.blocks.masks import mask_of_padding
from lm4ve.blocks.tokens import Queries, take_tokens
from lm4ve.errors import check, require
from lm4ve.registry import MODELS


@MODELS.register_module()
class AttentionBlock(nn.Module):
    """Multi-head self-attention, trained from scratch: ``[B, N, D] -> [B, N, D]``.

    Args:
        embed_dims (int): The width D of the block that it stands for.
        num_heads (int): Attention heads.
        head_dims (int, optional): Width of a head. Default: ``embed_dims / num_heads``.
        parameters (int, optional): Instead of ``head_dims`` the number of trained
            parameters to match, for example the frozen block's or the rest of the
            model's: the width of a head is chosen that comes nearest.

    Raises:
        UserError: The widths do not go together.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int = 8,
        head_dims: int | None = None,
        parameters: int | None = None,
    ) -> None:
        super().__init__()
        check('block.num_heads', num_heads, kind=int, least=1)
        if parameters is not None:
            require(
                head_dims is None,
                f'block.head_dims={head_dims} with block.parameters={parameters}: the '
                'second determines the first. Fix: leave one of them out.',
            )
            check('block.parameters', parameters, kind=int, least=1)
            head_dims = nearest_head_dims(parameters, embed_dims, num_heads)
        elif not head_dims:
            require(
                embed_dims % num_heads == 0,
                f'block.embed_dims={embed_dims} is no multiple of '
                f'block.num_heads={num_heads}. Fix: block.head_dims.',
            )
            head_dims = embed_dims // num_heads
        self.embed_dims = embed_dims
        self.num_heads = num_heads
        width_of_heads = num_heads * head_dims
        self.q_proj = nn.Linear(embed_dims, width_of_heads)
        self.k_proj = nn.Linear(embed_dims, width_of_heads)
        self.v_proj = nn.Linear(embed_dims, width_of_heads)
        self.o_proj = nn.Linear(width_of_heads, embed_dims)

    def forward(
        self, x: Tensor, padding_mask: Tensor | None = None, queries: Queries = None
    ) -> Tensor:
        """Run the layer; see :meth:`lm4ve.blocks.LLMBlock.forward`."""
        q = self._heads(self.q_proj(take_tokens(x, queries)))
        k = self._heads(self.k_proj(x))
        v = self._heads(self.v_proj(x))
        mask = mask_of_padding(padding_mask)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        projected: Tensor = self.o_proj(out.transpose(1, 2).flatten(2))
        return projected

    def _heads(self, x: Tensor) -> Tensor:
        """Split ``[B, N, H * d]`` into heads ``[B, H, N, d]``."""
        heads: Tensor = x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        return heads


def nearest_head_dims(parameters: int, embed_dims: int, num_heads: int) -> int:
    """Return the width of a head by which an ``AttentionBlock`` comes nearest to a size.

    Args:
        parameters (int): The wanted number of parameters.
        embed_dims (int): The block's width D.
        num_heads (int): Its heads.
    """
    # A channel of every head is a row of q, k and v with its bias, and a column of the
    # output.
    per_channel = num_heads * (4 * embed_dims + 3)
    return max(1, round((parameters - embed_dims) / per_channel))
