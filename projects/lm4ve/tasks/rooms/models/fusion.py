"""Guided attention of objects to the situation, then the question, and pooling.

The layers are MCAN's (Yu et al., CVPR 2019, arXiv 1906.10770), in the order in which
SQA3D's baseline has them. They come after their norm: "post-norm".
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lm4ve.registry import MODELS


class MCANNorm(nn.Module):
    """MCAN's layer norm: divided by the unbiased deviation, to which eps is added."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        # The release's names, which differ from those of the common norm.
        self.a_2 = nn.Parameter(torch.ones(channels))
        self.b_2 = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """``[..., C]`` to ``[..., C]``, computed in fp32."""
        x = x.float()
        centered = x - x.mean(dim=-1, keepdim=True)
        # The norm of a vector has a gradient at 0, the deviation has none.
        deviation = centered.norm(dim=-1, keepdim=True) / (x.shape[-1] - 1) ** 0.5
        normed = (centered / (deviation + self.eps)).to(self.a_2.dtype)
        return self.a_2 * normed + self.b_2


#: The values of ``norm``.
NORMS = {'mcan': MCANNorm, 'layer': nn.LayerNorm}


def two_layers(channels: int, hidden: int, out: int, dropout: float) -> nn.Sequential:
    """Build Linear, GELU, dropout and Linear: ``[..., channels]`` to ``[..., out]``."""
    return nn.Sequential(
        nn.Linear(channels, hidden),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, out),
    )


class Attention(nn.Module):
    """Attention of tokens to others, with several heads.

    Where all others are masked, the output is the mean over all of them, as in the
    release.
    """

    def __init__(self, channels: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.merge = nn.Linear(channels, channels)

    def forward(self, x: Tensor, others: Tensor, padding: Tensor) -> Tensor:
        """``[B, N, C]``, ``[B, M, C]`` and bool ``[B, M]`` (True = masked) to ``[B, N, C]``."""
        query = self._split(self.query(x))
        key = self._split(self.key(others))
        value = self._split(self.value(others))
        all_masked = padding.all(dim=1)[:, None, None, None]
        seen = ~padding[:, None, None] | all_masked
        # A query of zeros weighs all alike.
        query = query.masked_fill(all_masked, 0.0)
        dropout = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(query, key, value, seen, dropout)
        return self.merge(out.transpose(1, 2).flatten(2))

    def _split(self, tokens: Tensor) -> Tensor:
        """``[B, N, C]`` to heads, ``[B, heads, N, C / heads]``."""
        return tokens.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class GuidedLayer(nn.Module):
    """Self-attention, attention to a guide if there is one, feed-forward.

    Args:
        channels, num_heads, hidden, dropout, norm: See :class:`GuidedFusion`.
        guided (bool): There is a guide.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        hidden: int,
        dropout: float,
        norm: str,
        guided: bool,
    ) -> None:
        super().__init__()
        self.self_attention = Attention(channels, num_heads, dropout)
        self.guided_attention = None
        if guided:
            self.guided_attention = Attention(channels, num_heads, dropout)
        self.feed_forward = two_layers(channels, hidden, channels, dropout)
        count = 3 if guided else 2
        self.norms = nn.ModuleList(NORMS[norm](channels) for _ in range(count))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, padding: Tensor, *guide: Tensor) -> Tensor:
        """``[B, N, C]`` with its padding, and a guide ``[B, M, C]`` with its padding."""
        attended = self.self_attention(x, x, padding)
        x = self.norms[0](x + self.dropout(attended))
        if self.guided_attention is not None:
            guided = self.guided_attention(x, *guide)
            x = self.norms[1](x + self.dropout(guided))
        return self.norms[-1](x + self.dropout(self.feed_forward(x)))


@MODELS.register_module()
class GuidedFusion(nn.Module):
    """Self-attention of texts, then attention of objects to the situation and the question.

    Args:
        embed_dims (int): C of all tokens.
        num_layers (int): Layers of each of the four stacks.
        num_heads (int): Attention heads.
        feedforward_channels (int, optional): Default: 4 C.
        dropout (float): Rate for attention weights, hidden values of the feed-forward,
            and the outputs of a layer's three parts.
        norm (str): 'mcan', MCAN's own norm, as in the release; or 'layer', the common
            one.

    Source: SQA3D (arXiv 2210.07474), the ScanQA baseline of its code.
    """

    def __init__(
        self,
        embed_dims: int = 256,
        num_layers: int = 2,
        num_heads: int = 8,
        feedforward_channels: int | None = None,
        dropout: float = 0.1,
        norm: str = 'mcan',
    ) -> None:
        super().__init__()
        self.embed_dims = embed_dims
        hidden = feedforward_channels or 4 * embed_dims

        def stack(guided: bool) -> nn.ModuleList:
            layers = nn.ModuleList()
            for _ in range(num_layers):
                layers.append(
                    GuidedLayer(embed_dims, num_heads, hidden, dropout, norm, guided)
                )
            return layers

        self.situation_layers = stack(guided=False)
        self.question_layers = stack(guided=False)
        self.object_situation_layers = stack(guided=True)
        self.object_question_layers = stack(guided=True)

    def forward(
        self, tokens: dict[str, Tensor], padding: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Attend from objects to the texts.

        Args:
            tokens (dict[str, Tensor]): ``objects`` ``[B, K, C]``, ``situation``
                ``[B, L_s, C]`` and ``question`` ``[B, L_q, C]``.
            padding (dict[str, Tensor]): bool of each, without C; True = padding.

        Returns:
            dict[str, Tensor]: The same three, after the fusion.
        """
        situation = tokens['situation']
        for layer in self.situation_layers:
            situation = layer(situation, padding['situation'])
        question = tokens['question']
        for layer in self.question_layers:
            question = layer(question, padding['question'])
        objects = tokens['objects']
        for layer in self.object_situation_layers:
            objects = layer(
                objects, padding['objects'], situation, padding['situation']
            )
        for layer in self.object_question_layers:
            objects = layer(objects, padding['objects'], question, padding['question'])
        return dict(objects=objects, situation=situation, question=question)


class AttentionPool(nn.Module):
    """Pools tokens: a weighted mean, with weights from a small network, then Linear.

    Args:
        channels (int): C of the tokens.
        hidden_channels (int): Width of the network.
        out_channels (int): E.
        dropout (float): Within the network.
    """

    def __init__(
        self,
        channels: int,
        hidden_channels: int,
        out_channels: int,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.weigh = two_layers(channels, hidden_channels, 1, dropout)
        self.merge = nn.Linear(channels, out_channels)

    def weights(self, tokens: Tensor, padding: Tensor) -> Tensor:
        """Return each token's weight, fp32 ``[B, N]``; equal weights where all are masked."""
        scores = self.weigh(tokens)[..., 0].float().masked_fill(padding, -1e9)
        return scores.softmax(dim=1)

    def forward(self, tokens: Tensor, padding: Tensor) -> Tensor:
        """``[B, N, C]`` and bool ``[B, N]`` (True = masked) to ``[B, E]``."""
        weights = self.weights(tokens, padding)[..., None].to(tokens.dtype)
        return self.merge((weights * tokens).sum(dim=1))
