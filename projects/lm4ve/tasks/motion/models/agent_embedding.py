"""RealMotion's embedding of an agent's history: attention over steps, at three scales.

A pyramid: each level attends over the steps of a history, and the next has half the
steps and twice the channels. The levels are added up from the coarsest to the finest,
and the last step is the agent's token. From Forecast-MAE (arXiv 2308.09882), of which
RealMotion (arXiv 2410.06007) took it.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth


def build_mlp(channels: int, ratio: int, dropout: float) -> nn.Sequential:
    """Build the two linear layers behind an attention."""
    return nn.Sequential(
        nn.Linear(channels, ratio * channels),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(ratio * channels, channels),
        nn.Dropout(dropout),
    )


def neighborhood(length: int, window: int, device: torch.device) -> Tensor:
    """Return which steps each step sees in neighborhood attention, bool ``[T, T]``.

    Each step sees ``window`` steps, with itself in the middle; near both ends the
    window is moved so that it stays inside. This is the definition of NATTEN
    (github.com/SHI-Labs/NATTEN, arXiv 2204.07143) without dilation.

    Args:
        length (int): T.
        window (int): How many steps are seen, an odd number; all if there are fewer.
        device (torch.device): Where the result lies.
    """
    steps = torch.arange(length, device=device)
    last_start = max(length - window, 0)
    starts = (steps - window // 2).clamp(0, last_start)
    offsets = steps - starts[:, None]
    return (offsets >= 0) & (offsets < window)


class StepAttention(nn.Module):
    """Attention among the steps of a history.

    Args:
        channels, num_heads (int): Sizes.
        window (int, optional): See :func:`neighborhood`. None: all steps are seen.
        dropout (float): The rate at which attention weights and outputs are dropped.
    """

    def __init__(
        self, channels: int, num_heads: int, window: int | None, dropout: float
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window = window
        self.dropout = dropout
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, C]`` to the same shape."""
        joined = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))
        q, k, v = joined.permute(2, 0, 3, 1, 4)
        mask = None
        if self.window is not None:
            mask = neighborhood(x.shape[1], self.window, x.device)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        out = self.out(mixed.transpose(1, 2).flatten(2))
        return F.dropout(out, self.dropout, self.training)


class StepLayer(nn.Module):
    """A pre-norm layer of :class:`StepAttention` and an MLP of three times the width."""

    def __init__(
        self,
        channels: int,
        num_heads: int,
        window: int | None,
        dropout: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attention = StepAttention(channels, num_heads, window, dropout)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = build_mlp(channels, 3, dropout)
        self.drop_path = StochasticDepth(drop_path, 'row')

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, C]`` to the same shape."""
        x = x + self.drop_path(self.attention(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class HalveSteps(nn.Module):
    """Half as many steps with twice the channels: a convolution of stride 2, and a norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduction = nn.Conv1d(
            channels, 2 * channels, kernel_size=3, stride=2, padding=1, bias=False
        )
        self.norm = nn.LayerNorm(2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, C]`` to ``[B, ceil(T / 2), 2 C]``."""
        return self.norm(self.reduction(x.mT).mT)


class AgentEmbedding(nn.Module):
    """Embed histories as one token each.

    Args:
        in_channels (int): Values that describe a step.
        channels (int): Channels of the finest level; a token has four times as many.
        windows (Sequence[int], optional): The steps that each level sees, as in
            RealMotion (:func:`neighborhood`). None: all, as in PanguMotion.
        dropout (float): The rate in attention and MLPs.
        drop_path (float): The rate of the last layer; the first one has 0.
    """

    #: Layers and heads of the three levels.
    DEPTH = 2
    HEADS = (2, 4, 8)

    def __init__(
        self,
        in_channels: int,
        channels: int,
        windows: Sequence[int] | None,
        dropout: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        num_levels = len(self.HEADS)
        rates = torch.linspace(0, drop_path, num_levels * self.DEPTH).tolist()
        widths = [channels * 2**level for level in range(num_levels)]
        out_channels = widths[-1]
        self.tokenizer = nn.Conv1d(in_channels, channels, kernel_size=3, padding=1)
        self.levels = nn.ModuleList()
        self.reductions = nn.ModuleList()
        self.norms = nn.ModuleList()
        self.laterals = nn.ModuleList()
        for level, width in enumerate(widths):
            window = None if windows is None else windows[level]
            layers = []
            for _ in range(self.DEPTH):
                heads = self.HEADS[level]
                layers.append(StepLayer(width, heads, window, dropout, rates.pop(0)))
            self.levels.append(nn.Sequential(*layers))
            self.norms.append(nn.LayerNorm(width))
            self.laterals.append(
                nn.Conv1d(width, out_channels, kernel_size=3, padding=1)
            )
            if level < num_levels - 1:
                self.reductions.append(HalveSteps(width))
        self.fuse = nn.Conv1d(out_channels, out_channels, kernel_size=3, padding=1)

    def forward(self, steps: Tensor) -> Tensor:
        """Embed histories: ``[B, T, in_channels]`` to ``[B, 4 channels]``."""
        x = self.tokenizer(steps.mT).mT
        laterals = []
        for level, layers in enumerate(self.levels):
            x = layers(x)
            normed = self.norms[level](x)
            laterals.append(self.laterals[level](normed.mT))
            if level < len(self.reductions):
                x = self.reductions[level](x)
        joined = laterals.pop()
        for lateral in reversed(laterals):
            size = lateral.shape[-1]
            joined = lateral + F.interpolate(joined, size=size, mode='linear')
        # Only the last step is wanted, and the convolution sees one step on each side.
        fused = self.fuse(joined[..., -2:])
        return fused[..., -1]
