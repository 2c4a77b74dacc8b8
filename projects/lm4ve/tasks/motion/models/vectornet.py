"""VectorNet (Gao et al., arXiv 2005.04259) with a decoder of K trajectories.

Every agent's history and every lane is a polyline of vectors; a sub-graph encodes
each into one token, one attention lets all tokens meet, and the agents' tokens are
decoded. Sizes follow the version that the paper of the blocks used: sub-graphs of
32, 64 and 128 channels, tokens of 256, one attention layer, six residual heads.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from lm4ve.registry import MODELS
from lm4ve.tasks.motion.models.losses import (
    end_distances,
    masked_smooth_l1,
    take_agents,
)
from lm4ve.tasks.motion.structures import STEP

#: Meters that the network sees as 1, and that a step of its output is worth.
SCALE = 10.0


def agent_vectors(agents: Tensor, valid: Tensor) -> Tensor:
    """Describe histories as vectors x, y, dx, dy, mask, t.

    Args:
        agents (Tensor): ``[B, A, H, 2]``, meters, gaps filled.
        valid (Tensor): bool ``[B, A, H]``.

    Returns:
        Tensor: ``[B, A, H - 1, 6]``. A vector leads from one step to the next: x, y
        are its end, dx, dy its length, t its middle in seconds relative to the last
        step (negative). The mask is 1 if both steps were observed; otherwise all but
        the time is 0.
    """
    both_observed = valid[..., 1:] & valid[..., :-1]
    both_observed = both_observed[..., None]
    vectors = torch.cat([agents[..., 1:, :], agents.diff(dim=2)], dim=-1)
    # Filled gaps are not shown to the network.
    vectors = torch.where(both_observed, vectors, 0.0)
    mask = both_observed.to(agents.dtype)

    count = agents.shape[2]
    ends = torch.arange(1, count, device=agents.device) - count  # -1 is the last step
    times = (ends + 0.5) * STEP
    times = times.to(agents.dtype)[:, None].expand_as(mask)
    return torch.cat([vectors, mask, times], dim=-1)


def lane_vectors(lanes: Tensor, attributes: Tensor) -> Tensor:
    """Describe lanes as vectors x, y, dx, dy, turn, intersection, control.

    Args:
        lanes (Tensor): ``[B, L, P, 2]``, meters.
        attributes (Tensor): ``[B, L, 3]``.

    Returns:
        Tensor: ``[B, L, P - 1, 7]``; x, y are a vector's middle.
    """
    middles = (lanes[..., 1:, :] + lanes[..., :-1, :]) / 2
    extra = attributes[:, :, None].expand(-1, -1, middles.shape[2], -1)
    return torch.cat([middles, lanes.diff(dim=2), extra], dim=-1)


def linear_norm_relu(in_channels: int, channels: int) -> tuple[nn.Module, ...]:
    """Build the three layers of which both models' MLPs consist."""
    return nn.Linear(in_channels, channels), nn.LayerNorm(channels), nn.ReLU()


class SubGraph(nn.Module):
    """Levels of Linear, LayerNorm, ReLU, each joined with the polyline's maximum.

    Args:
        in_channels (int): Width of a vector.
        channels (Sequence[int]): Widths of the levels before the maximum is joined.

    ``forward``: vectors ``[..., V, in_channels]`` to ``[..., 2 * channels[-1]]``.
    """

    def __init__(self, in_channels: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        for width in channels:
            self.levels.append(nn.Sequential(*linear_norm_relu(in_channels, width)))
            in_channels = 2 * width

    def forward(self, x: Tensor) -> Tensor:
        """Join the vectors of each polyline, ``[..., V, in_channels]``, to one token.

        Each level appends to every vector the maximum over all; the token is the last
        level's maximum, ``[..., 2 * channels[-1]]``.
        """
        for level in self.levels:
            x = level(x)
            maximum = x.amax(dim=-2, keepdim=True)
            x = torch.cat([x, maximum.expand_as(x)], dim=-1)
        return x.amax(dim=-2)


@MODELS.register_module()
class VectorNet(BaseModule):
    """Encode agents and lanes as tokens, with attention among all of them.

    Args:
        channels (Sequence[int]): Widths of the sub-graphs' levels; tokens have twice
            the last.
        num_heads (int): Heads of the attention.
        num_layers (int): Attention layers, each with a residual connection.
        final_norm (bool): LayerNorm of the output. False with a neck, whose own
            norm comes after the block.
    """

    def __init__(
        self,
        channels: Sequence[int] = (32, 64, 128),
        num_heads: int = 1,
        num_layers: int = 1,
        final_norm: bool = True,
    ) -> None:
        super().__init__()
        self.embed_dims = 2 * channels[-1]
        self.agents = SubGraph(6, channels)
        self.lanes = SubGraph(7, channels)
        self.norms = nn.ModuleList()
        self.attentions = nn.ModuleList()
        for _ in range(num_layers):
            attention = nn.MultiheadAttention(
                self.embed_dims, num_heads, batch_first=True
            )
            self.norms.append(nn.LayerNorm(self.embed_dims))
            self.attentions.append(attention)
        self.final_norm = nn.LayerNorm(self.embed_dims) if final_norm else nn.Identity()

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`lm4ve.tasks.motion.models.forecaster.MotionForecaster`."""
        agents = agent_vectors(inputs['agents'] / SCALE, inputs['agents_valid'])
        lanes = lane_vectors(inputs['lanes'] / SCALE, inputs['lane_attributes'])
        x = torch.cat([self.agents(agents), self.lanes(lanes)], dim=1)
        mask = torch.cat([inputs['agent_padding'], inputs['lane_padding']], dim=1)
        for norm, attention in zip(self.norms, self.attentions, strict=True):
            y = norm(x)
            out, _ = attention(y, y, y, key_padding_mask=mask, need_weights=False)
            x = x + out
        return dict(tokens=self.final_norm(x), padding_mask=mask)


class ResidualMLP(nn.Module):
    """``x + LN(Linear(ReLU(LN(Linear(x)))))``, then a linear layer."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            *linear_norm_relu(channels, channels),
            nn.Linear(channels, channels),
            nn.LayerNorm(channels),
        )
        self.out = nn.Linear(channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(x + self.block(x)))


@MODELS.register_module()
class TrajectoryDecoder(BaseModule):
    """K residual MLPs give trajectories, one more their scores.

    Trained on the trajectory whose end is nearest to the truth: smooth L1 on it,
    cross-entropy on the scores.

    Args:
        in_channels (int): C.
        future_steps (int): F.
        num_modes (int): K.
    """

    def __init__(self, in_channels: int, future_steps: int, num_modes: int = 6) -> None:
        super().__init__()
        self.future_steps = future_steps
        self.modes = nn.ModuleList()
        for _ in range(num_modes):
            self.modes.append(ResidualMLP(in_channels, 2 * future_steps))
        self.classifier = ResidualMLP(in_channels, num_modes)

    def forward(
        self, features: Tensor, encoded: dict[str, Tensor], inputs: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """``[B, Q, C]`` to ``[B, Q, K, F, 2]`` (meters, focal frame), ``[B, Q, K]``.

        Trajectories are offsets from where an agent is.
        """
        modes = [mode(features) for mode in self.modes]
        offsets = torch.stack(modes, dim=2)
        offsets = offsets.unflatten(-1, (self.future_steps, 2)) * SCALE
        origins = take_agents(inputs['agents'][:, :, -1], inputs['queries'])
        trajectories = origins[:, :, None, None] + offsets
        return trajectories, self.classifier(features)

    def loss(
        self, trajectories: Tensor, scores: Tensor, future: Tensor, valid: Tensor
    ) -> dict[str, Tensor]:
        """Compute the losses of N agents.

        Args:
            trajectories (Tensor): ``[N, K, F, 2]``.
            scores (Tensor): ``[N, K]``, logits.
            future (Tensor): ``[N, F, 2]``.
            valid (Tensor): bool ``[N, F]``.
        """
        best = end_distances(trajectories, future, valid).argmin(dim=1)
        nearest = take_agents(trajectories, best[:, None])[:, 0]
        regression = masked_smooth_l1(nearest, future, valid)
        return dict(loss_reg=regression, loss_cls=F.cross_entropy(scores, best))

    def select(
        self, trajectories: Tensor, probabilities: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return all trajectories."""
        return trajectories, probabilities
