"""METER's co-attention: a stream of image tokens and one of text tokens, layer by layer.

A layer is ``transformers``' ``BridgeTowerBertCrossLayer``, which computes what METER's
does: self-attention, attention to the other stream, feed-forward, each followed by its
norm.
"""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import BertConfig
from transformers.models.bridgetower.modeling_bridgetower import (
    BridgeTowerBertCrossLayer,
)

from lm4ve.registry import MODELS


def init_as_bert(module: nn.Module) -> None:
    """Initialize as BERT and METER do: normal weights of .02, no bias, unit norms."""
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Embedding)):
            nn.init.normal_(part.weight, std=0.02)
        elif isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
        has_bias = getattr(part, 'bias', None) is not None
        if has_bias and isinstance(part, (nn.Linear, nn.LayerNorm)):
            nn.init.zeros_(part.bias)


@MODELS.register_module()
class CoAttentionFusion(BaseModule):
    """Layers of co-attention with weights of their own for each stream.

    Both streams step at once: in a layer, each attends to the *input* that the other
    has in that layer. Source: METER, arXiv 2111.02387, section 3.1.

    Args:
        embed_dims (int): C of both streams.
        num_layers (int): Layers a stream.
        num_heads (int): Attention heads.
        feedforward_channels (int, optional): Default: 4 C.
        dropout (float): Probability of dropping attention weights and what each part
            adds.
        eps (float): The layer norms' epsilon.
        with_cp (bool): Recompute a layer in the backward pass instead of storing its
            activations.
    """

    def __init__(
        self,
        embed_dims: int = 768,
        num_layers: int = 6,
        num_heads: int = 12,
        feedforward_channels: int | None = None,
        dropout: float = 0.1,
        eps: float = 1e-12,
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        self.embed_dims = embed_dims
        self.with_cp = with_cp
        config = BertConfig(
            hidden_size=embed_dims,
            num_attention_heads=num_heads,
            intermediate_size=feedforward_channels or 4 * embed_dims,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            layer_norm_eps=eps,
        )
        config._attn_implementation = 'sdpa'
        self.text_layers = nn.ModuleList(_layer(config) for _ in range(num_layers))
        self.image_layers = nn.ModuleList(_layer(config) for _ in range(num_layers))
        init_as_bert(self)

    def forward(
        self, image: Tensor, text: Tensor, text_padding: Tensor
    ) -> dict[str, Tensor]:
        """Let both streams see each other.

        Args:
            image (Tensor): ``[B, N, C]``.
            text (Tensor): ``[B, L, C]``.
            text_padding (Tensor): bool ``[B, L]``, True = padding.

        Returns:
            dict[str, Tensor]: ``image`` ``[B, N, C]`` and ``text`` ``[B, L, C]``.
        """
        seen = ~text_padding[:, None, None, :]
        layers = zip(self.text_layers, self.image_layers, strict=True)
        for text_layer, image_layer in layers:
            next_text = self._run(text_layer, text, image, seen, None)
            image = self._run(image_layer, image, text, None, seen)
            text = next_text
        return dict(image=image, text=text)

    def _run(self, layer: nn.Module, *args: Tensor | None) -> Tensor:
        """Run a layer on its stream, the other one, and which tokens of each are seen."""
        if self.with_cp and torch.is_grad_enabled():
            return checkpoint(layer, *args, use_reentrant=False)[0]
        return layer(*args)[0]


def _layer(config: BertConfig) -> nn.Module:
    layer = BridgeTowerBertCrossLayer(config)
    # Built causal, which fused attention without a mask would obey.
    layer.attention.self.is_causal = False
    return layer
