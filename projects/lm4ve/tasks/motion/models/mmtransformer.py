"""mmTransformer (Liu et al., arXiv 2103.11624): stacked transformers over proposals.

A motion extractor turns each agent's history into K proposals, a map aggregator
lets them query the lanes, a social constructor lets agents meet. The default computes
what the released inference code (github.com/decisionforce/mmTransformer) computes, and
its weights can be converted; where the paper differs there is a field. The stacks are
torch's own layers.
"""

import math
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from lm4ve.registry import MODELS
from lm4ve.tasks.motion.models.losses import proposal_losses, take_agents
from lm4ve.tasks.motion.models.regions import Regions, select_apart
from lm4ve.tasks.motion.models.vectornet import (
    SubGraph,
    agent_vectors,
    linear_norm_relu,
)
from lm4ve.tasks.motion.structures import STEP

_XAVIER = dict(type='Xavier', layer='Linear', distribution='uniform')
#: Of every layer: pre-norm, two heads, ReLU, no dropout.
_OPTIONS: dict[str, Any] = dict(nhead=2, dropout=0.0, batch_first=True, norm_first=True)


def encoder_stack(
    channels: int, feedforward: int, final_norm: bool = True
) -> nn.Module:
    """Build two encoder layers and their norm."""
    layer = nn.TransformerEncoderLayer(
        channels, dim_feedforward=feedforward, **_OPTIONS
    )
    norm = nn.LayerNorm(channels) if final_norm else None
    return nn.TransformerEncoder(layer, 2, norm, enable_nested_tensor=False)


class DecoderLayer(nn.TransformerDecoderLayer):
    """Pre-norm layer whose self-attention norms the values but not the queries and keys.

    The released code computes it so.
    """

    # torch's layer takes more masks, of which the released code has none.
    def forward(  # type: ignore[override]
        self, x: Tensor, memory: Tensor, memory_key_padding_mask: Tensor | None
    ) -> Tensor:
        """``[B, K, C]`` and ``[B, N, C]`` (mask bool ``[B, N]``) to ``[B, K, C]``."""
        attended, _ = self.self_attn(x, x, self.norm1(x), need_weights=False)
        x = x + attended
        x = x + self._mha_block(self.norm2(x), memory, None, memory_key_padding_mask)
        return x + self._ff_block(self.norm3(x))


class DecoderStack(nn.Module):
    """Pre-norm decoder layers; optionally a learned position for each query.

    Args:
        channels, feedforward, layers (int): Sizes and number of the layers.
        positions (int): Queries that get a learned embedding before every layer
            (the paper); 0: none (the code).
    """

    def __init__(
        self, channels: int, feedforward: int, layers: int, positions: int = 0
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for _ in range(layers):
            layer = DecoderLayer(channels, dim_feedforward=feedforward, **_OPTIONS)
            self.layers.append(layer)
        self.norm = nn.LayerNorm(channels)
        self.position = None
        if positions:
            self.position = nn.Parameter(torch.randn(positions, channels) * 0.02)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """``[B, K, C]`` and ``[B, N, C]`` (mask bool ``[B, N]``) to ``[B, K, C]``."""
        for layer in self.layers:
            if self.position is not None:
                x = x + self.position
            x = layer(x, memory, mask)
        return self.norm(x)


def see_each(
    decoder: nn.Module, proposals: Tensor, tokens: Tensor, padding_mask: Tensor
) -> Tensor:
    """Let each agent's proposals see each other, and tokens of the whole scene.

    Args:
        decoder (nn.Module): A :class:`DecoderStack`.
        proposals (Tensor): ``[B, A, K, C]``.
        tokens (Tensor): ``[B, N, C]``.
        padding_mask (Tensor): bool ``[B, N]``, True = padding.

    Returns:
        Tensor: ``[B, A, K, C]``.
    """
    agents = proposals.shape[1]
    memory = tokens.repeat_interleave(agents, dim=0)
    padding_mask = padding_mask.repeat_interleave(agents, dim=0)
    out = decoder(proposals.flatten(0, 1), memory, padding_mask)
    return out.unflatten(0, (-1, agents))


def sinusoids(steps: int, channels: int, like: Tensor) -> Tensor:
    """Compute the sine and cosine position embedding ``[steps, channels]``."""
    even = torch.arange(0, channels, 2, device=like.device)
    rates = torch.exp(even * (-math.log(10000.0) / channels))
    angles = torch.arange(steps, device=like.device)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).to(like)


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Build a linear layer, norm and ReLU, then a second linear layer."""
    return nn.Sequential(*linear_norm_relu(inputs, hidden), nn.Linear(hidden, outputs))


@MODELS.register_module()
class MMTransformer(BaseModule):
    """Motion extractor, map aggregator and the social constructor's encoder.

    Args:
        num_proposals (int): K: 6 (released) or 36 (with regions).
        channels (int): Width of the tokens.
        feedforward (int): Width inside every layer.
        query_position (bool): A learned position embedding before every decoder
            layer (the paper); the code has none.
        final_norm (bool): LayerNorm after the social constructor. False with a
            neck, whose own norm comes after the block.
    """

    def __init__(
        self,
        num_proposals: int = 6,
        channels: int = 128,
        feedforward: int = 256,
        query_position: bool = False,
        final_norm: bool = True,
    ) -> None:
        super().__init__(_XAVIER)
        k = num_proposals
        c = channels
        positions = k if query_position else 0
        self.embed_dims = c
        self.num_proposals = k
        self.motion_in = nn.Linear(4, c)
        self.motion_encoder = encoder_stack(c, feedforward)
        self.motion_decoder = DecoderStack(c, feedforward, 2, positions)
        self.proposals = nn.Parameter(nn.init.orthogonal_(torch.empty(k, c)))
        self.place = _mlp(2, c // 2, c // 2)
        self.fuse_place = _mlp(c + c // 2, c, c)
        self.lane_graph = SubGraph(7, (c // 4, c // 4))
        self.lane_in = nn.Linear(c // 2, c)
        self.lane_encoder = encoder_stack(c, feedforward)
        self.lane_decoder = DecoderStack(c, feedforward, 2, positions)
        self.summary = _mlp(k * c, c, c)
        self.fuse_summary = _mlp(c + c // 2, c, c)
        self.social = encoder_stack(c, feedforward, final_norm)

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`lm4ve.tasks.motion.models.forecaster.MotionForecaster`.

        Also gives ``proposals`` ``[B, A, K, C]``.
        """
        agent_mask = inputs['agent_padding']
        lane_mask = inputs['lane_padding']
        place = self.place(inputs['agents'][:, :, -1])
        place_each = place[:, :, None].expand(-1, -1, self.num_proposals, -1)
        proposals = torch.cat([self._motion(inputs), place_each], dim=-1)
        proposals = self.fuse_place(proposals)
        lanes = self._lanes(inputs)
        proposals = see_each(self.lane_decoder, proposals, lanes, lane_mask)
        summary = self.summary(proposals.flatten(2))
        summary = self.fuse_summary(torch.cat([summary, place], dim=-1))
        tokens = self.social(summary, src_key_padding_mask=agent_mask)
        return dict(
            tokens=torch.cat([tokens, lanes], dim=1),
            padding_mask=torch.cat([agent_mask, lane_mask], dim=1),
            proposals=proposals,
        )

    def _motion(self, inputs: dict[str, Tensor]) -> Tensor:
        """Turn each agent's history into proposals, ``[B, A, K, C]``.

        Each step is a token of its displacement, time and whether it was observed; K
        learned queries read these tokens.
        """
        vectors = agent_vectors(inputs['agents'], inputs['agents_valid'])
        _, moves, seen, _ = vectors.split([2, 2, 1, 1], dim=-1)
        count = vectors.shape[2]
        # The middle of each vector, in seconds since the first step.
        times = (torch.arange(count, device=seen.device) + 0.5) * STEP
        times = times.to(seen)[:, None].expand_as(seen)
        x = torch.cat([moves, times, seen], dim=-1)
        x = self._scaled(self.motion_in(x))
        x = x + sinusoids(count, self.embed_dims, x)
        x = x.flatten(0, 1)
        queries = self.proposals.expand(x.shape[0], -1, -1)
        out = self.motion_decoder(queries, self.motion_encoder(x))
        return out.unflatten(0, vectors.shape[:2])

    def _lanes(self, inputs: dict[str, Tensor]) -> Tensor:
        """Encode each lane as a token, ``[B, L, C]``.

        A lane of P points is P - 1 vectors: start, end and the lane's attributes. The
        attributes are numbered as the released code numbers them, from 1 on.
        """
        lanes = inputs['lanes']
        turn, intersection, control = inputs['lane_attributes'].unbind(-1)
        turn_class = _turn_class(turn)
        attributes = 1 + torch.stack([intersection, turn_class, control], dim=-1)
        num_vectors = lanes.shape[2] - 1
        attributes = attributes[:, :, None].expand(-1, -1, num_vectors, -1)
        starts = lanes[..., :-1, :]
        ends = lanes[..., 1:, :]
        vectors = torch.cat([starts, ends, attributes], dim=-1)
        x = self._scaled(self.lane_in(self.lane_graph(vectors)))
        return self.lane_encoder(x, src_key_padding_mask=inputs['lane_padding'])

    def _scaled(self, embedding: Tensor) -> Tensor:
        """Multiply an embedding by the root of its width, as in "Attention is all you need"."""
        return embedding * math.sqrt(self.embed_dims)


def _turn_class(turn: Tensor) -> Tensor:
    """Number turns from 0 on: none (0) stays 0, left (-1) becomes 1, right (1) becomes 2."""
    return turn.abs() * 1.5 + turn * 0.5


@MODELS.register_module()
class ProposalDecoder(BaseModule):
    """Heads on each proposal; losses of the vanilla or the region-based training.

    Args:
        future_steps (int): F.
        channels (int): Width of the tokens.
        feedforward (int): Width inside the social decoder's layers.
        social_decoder_layers (int): Layers in which proposals query the agents:
            0 as the code (which builds but never calls them), 4 as the paper.
        regions (str, optional): None trains the proposal whose end is nearest;
            'fan' or a file of ``tools/motion/make_regions.py`` trains by regions
            (the paper, section 3.4).
        learned_weights (bool): Losses weighted by learned uncertainties (the
            paper); else their plain sum.
        select (int, optional): Keep so many proposals whose ends are 2 m apart, by
            score; None keeps all. The paper does not give the distance.

    Raises:
        UserError: See :class:`lm4ve.tasks.motion.models.regions.Regions`.
    """

    def __init__(
        self,
        future_steps: int,
        channels: int = 128,
        feedforward: int = 256,
        social_decoder_layers: int = 0,
        regions: str | None = None,
        learned_weights: bool = True,
        select: int | None = None,
    ) -> None:
        super().__init__(_XAVIER)
        c = channels
        self.future_steps = future_steps
        self.keep = select
        self.regions = None if regions is None else Regions.load(regions)
        self.social = None
        if social_decoder_layers:
            self.social = DecoderStack(c, feedforward, social_decoder_layers)
        self.regression = nn.Sequential(
            *linear_norm_relu(2 * c, 2 * c),
            nn.Linear(2 * c, c),
            nn.Linear(c, 2 * future_steps),
        )
        self.score = nn.Sequential(
            nn.Linear(2 * c, 4 * c),
            nn.ReLU(),
            nn.Linear(4 * c, 2 * c),
            nn.Linear(2 * c, c),
            nn.Linear(c, 1),
        )
        self.sigmas = None
        if learned_weights:
            names = ['reg', 'score']
            if regions:
                names.append('region')
            sigmas = {name: nn.Parameter(torch.ones(())) for name in names}
            self.sigmas = nn.ParameterDict(sigmas)

    def forward(
        self, features: Tensor, encoded: dict[str, Tensor], inputs: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """``[B, Q, C]`` to ``[B, Q, K, F, 2]`` (meters, focal frame), ``[B, Q, K]``.

        Step offsets are summed up from where an agent is.
        """
        queries = inputs['queries']
        proposals = take_agents(encoded['proposals'], queries)
        if self.social is not None:
            padding = inputs['agent_padding']
            agents = encoded['tokens'][:, : padding.shape[1]]
            proposals = see_each(self.social, proposals, agents, padding)
        agent_each = features[:, :, None].expand_as(proposals)
        x = torch.cat([agent_each, proposals], dim=-1)
        offsets = self.regression(x).unflatten(-1, (self.future_steps, 2))
        origins = take_agents(inputs['agents'][:, :, -1], queries)
        trajectories = origins[:, :, None, None] + offsets.cumsum(dim=-2)
        return trajectories, self.score(x)[..., 0]

    def loss(
        self, trajectories: Tensor, scores: Tensor, future: Tensor, valid: Tensor
    ) -> dict[str, Tensor]:
        """Compute the losses of N agents.

        Args:
            trajectories, scores, future, valid (Tensor): See
                :func:`lm4ve.tasks.motion.models.losses.proposal_losses`.

        Returns:
            dict[str, Tensor]: ``loss_<name>``, each weighted by its learned uncertainty
            if there are any (``loss / sigma^2 + log(1 + |sigma|)``).
        """
        members = None
        if self.regions is not None:
            members = self.regions.members(future, valid, scores.shape[1])
        losses = proposal_losses(trajectories, scores, future, valid, members)
        named = {}
        for name, loss in losses.items():
            if self.sigmas is not None:
                sigma = self.sigmas[name]
                loss = loss / sigma**2 + (sigma.abs() + 1).log()
            named[f'loss_{name}'] = loss
        return named

    def select(
        self, trajectories: Tensor, probabilities: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return all, or the best that end apart: ``[K, F, 2]`` and ``[K]``."""
        if self.keep is None:
            return trajectories, probabilities
        kept = select_apart(trajectories[:, -1], probabilities, self.keep)
        probabilities = probabilities[kept]
        return trajectories[kept], probabilities / probabilities.sum()
