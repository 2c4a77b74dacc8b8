"""A trained MLP in the place of a language model's block: the control of capacity.

Is it the block that helps, or just more parameters (arXiv 2310.12973, section 4)? The
other control, a block from random initialization, is ``LLMBlock(pretrained=False)``.
"""

from mmengine.registry import MODELS
from torch import Tensor, nn

from lm4ve.blocks.tokens import Queries, take_tokens


@MODELS.register_module()
class MLPBlock(nn.Module):
    """GELU and LayerNorm in the place of a language model block.

    Args:
        embed_dims (int): The width D of the block that it stands for.
    """

    def __init__(self, embed_dims: int) -> None:
        super().__init__()
        self.embed_dims = embed_dims
        self.act = nn.GELU()
        self.norm = nn.LayerNorm(embed_dims)

    def forward(
        self, x: Tensor, padding_mask: Tensor | None = None, queries: Queries = None
    ) -> Tensor:
        """Map ``[B, N, D]`` to ``[B, Q, D]``. Tokens do not mix, so no mask is needed."""
        out: Tensor = self.norm(self.act(take_tokens(x, queries)))
        return out
