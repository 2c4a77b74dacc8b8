"""RealMotion (Song et al., arXiv 2410.06007), with the scene stream.

Agents and lanes become tokens, which layers of attention let meet; a decoder gives K
trajectories of the focal agent. A scene is seen as a few sub-scenes, one after another:
before the layers, the tokens of a sub-scene read those that the one before left behind
(the *scene stream*).

The sizes and the forms are those of PanguMotion (arXiv 2603.16196;
github.com/QuanhaoR/RealMotionPanGu), which leaves out RealMotion's second, the agent
stream. Fields give RealMotion's own (github.com/fudan-zvg/RealMotion) where both differ.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from lm4ve.registry import MODELS
from lm4ve.tasks.motion.models.agent_embedding import (
    AgentEmbedding,
    build_mlp,
)
from lm4ve.tasks.motion.models.losses import masked_smooth_l1
from lm4ve.tasks.motion.structures import NUM_KINDS

#: Values of a step: its length in x and y, the change of speed, and whether it was seen.
STEP_CHANNELS = 4
#: Values of a sub-scene's pose: time, heading, x and y.
POSE_CHANNELS = 4
#: Frequencies by which poses are encoded, 1 to 2^5.
POSE_FREQUENCIES = 6


@dataclass
class SceneMemory:
    """What a sub-scene leaves to the next one.

    Attributes:
        tokens (Tensor): ``[B, N, C]``, agents first, as the decoder reads them.
        padding_mask (Tensor): bool ``[B, N]``, True = padding.
        num_agents (int): How many tokens are agents.
        pose (Tensor): ``[B, 4]``: time (seconds), heading (radians), x and y (meters).
    """

    tokens: Tensor
    padding_mask: Tensor
    num_agents: int
    pose: Tensor


def history_steps(inputs: dict[str, Tensor]) -> Tensor:
    """Describe each step of agents' histories, ``[B, A, H, 4]``.

    That is dx and dy from the step before, the change of speed, and 1 where the agent
    was observed. Changes are 0 where one of both steps was not observed, and at the
    first step.
    """
    valid = inputs['agents_valid']
    both_observed = valid[..., 1:] & valid[..., :-1]
    values = torch.cat([inputs['agents'], inputs['agent_speeds'][..., None]], dim=-1)
    changes = torch.where(both_observed[..., None], values.diff(dim=2), 0.0)
    changes = F.pad(changes, (0, 0, 1, 0))
    return torch.cat([changes, valid[..., None].to(changes)], dim=-1)


class LaneEmbedding(nn.Module):
    """A small PointNet: lanes ``[N, P, 3]`` to tokens ``[N, C]``.

    Every point gets features, then the features of all points together, and a token is
    their maximum. The release has fixed widths, which are these at 128 channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.points = nn.Sequential(
            nn.Conv1d(3, channels, 1),
            nn.BatchNorm1d(channels),
            nn.ReLU(inplace=True),
            nn.Conv1d(channels, 2 * channels, 1),
        )
        self.lanes = nn.Sequential(
            nn.Conv1d(4 * channels, 2 * channels, 1),
            nn.BatchNorm1d(2 * channels),
            nn.ReLU(inplace=True),
            nn.Conv1d(2 * channels, channels, 1),
        )

    def forward(self, points: Tensor) -> Tensor:
        """``[N, P, 3]`` to ``[N, C]``."""
        x = self.points(points.mT)
        maximum = x.amax(dim=2, keepdim=True).expand_as(x)
        x = self.lanes(torch.cat([maximum, x], dim=1))
        return x.amax(dim=2)


class SceneLayer(nn.Module):
    """A pre-norm layer: attention to these or to other tokens, and an MLP.

    Args:
        channels, num_heads (int): Sizes.
        dropout, drop_path (float): Rates.
        bias (bool): The attention's projections have biases (RealMotion), or not
            (PanguMotion).
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        dropout: float,
        drop_path: float,
        bias: bool,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attention = nn.MultiheadAttention(
            channels, num_heads, dropout=dropout, bias=bias, batch_first=True
        )
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = build_mlp(channels, 4, dropout)
        self.drop_path = StochasticDepth(drop_path, 'row')

    def forward(
        self, x: Tensor, padding_mask: Tensor, others: Tensor | None = None
    ) -> Tensor:
        """``[B, N, C]`` to the same shape.

        Args:
            x (Tensor): The tokens that look.
            padding_mask (Tensor): bool, those of the tokens looked at that are none.
            others (Tensor, optional): ``[B, M, C]``, the tokens looked at. None: ``x``.
        """
        queries = self.norm1(x)
        keys = queries if others is None else self.norm1(others)
        out, _ = self.attention(
            queries, keys, keys, key_padding_mask=padding_mask, need_weights=False
        )
        x = x + self.drop_path(out)
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PoseNorm(nn.Module):
    """A layer norm whose gain and bias follow from a pose.

    At first the gain is 1 and the bias 0, whatever the pose is.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(2 * POSE_FREQUENCIES * POSE_CHANNELS, channels)
        self.gain = nn.Linear(channels, channels)
        self.bias = nn.Linear(channels, channels)
        for layer, start in ((self.gain, 1.0), (self.bias, 0.0)):
            nn.init.zeros_(layer.weight)
            nn.init.constant_(layer.bias, start)

    def forward(self, x: Tensor, pose: Tensor) -> Tensor:
        """``[B, N, C]`` and ``[B, 4]`` to ``[B, N, C]``."""
        code = F.relu(self.reduce(encode_pose(pose)))[:, None]
        normed = F.layer_norm(x, x.shape[-1:])
        return self.gain(code) * normed + self.bias(code)


def encode_pose(pose: Tensor) -> Tensor:
    """Encode poses ``[B, 4]`` by sines and cosines of six frequencies, ``[B, 48]``."""
    powers = torch.arange(POSE_FREQUENCIES, device=pose.device)
    frequencies = 2.0 ** powers.to(pose.dtype)
    angles = pose[:, None] * frequencies[:, None]
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


class SceneInteraction(nn.Module):
    """Tokens of a sub-scene read those of an earlier one, each in the light of its pose."""

    def __init__(
        self,
        channels: int,
        num_heads: int,
        dropout: float,
        drop_path: float,
        bias: bool,
        num_layers: int = 2,
    ) -> None:
        super().__init__()
        self.pose_norm = PoseNorm(channels)
        self.layers = nn.ModuleList()
        for _ in range(num_layers):
            layer = SceneLayer(channels, num_heads, dropout, drop_path, bias)
            self.layers.append(layer)

    def forward(
        self, x: Tensor, memory: Tensor, memory_pose: Tensor, padding_mask: Tensor
    ) -> Tensor:
        """``[B, N, C]`` to the same shape.

        Args:
            x (Tensor): The tokens of the current sub-scene.
            memory (Tensor): ``[B, M, C]``, those of the earlier one.
            memory_pose (Tensor): ``[B, 4]``, from its pose to the current one.
            padding_mask (Tensor): bool ``[B, M]``, where ``memory`` is padding.
        """
        x = self.pose_norm(x, torch.zeros_like(memory_pose))
        memory = self.pose_norm(memory, memory_pose)
        for layer in self.layers:
            x = layer(x, padding_mask, memory)
        return x


@MODELS.register_module()
class RealMotion(BaseModule):
    """Encode the agents and lanes of a sub-scene as tokens.

    Args:
        channels (int): C, the width of tokens.
        num_layers (int): Layers of attention.
        num_heads (int): Heads of each.
        stream (bool): Read the memory of the sub-scene before. False: the independent
            model (``RealMotion_I``), which sees one scene as a whole.
        windows (Sequence[int], optional): Steps of a history that see each other, for
            each level (:class:`lm4ve.tasks.motion.models.agent_embedding.AgentEmbedding`):
            RealMotion has (3, 3, 5). None: all, as in PanguMotion.
        attention_bias (bool): Biases of the attention among tokens: RealMotion has them,
            PanguMotion has none.
        dropout (float): The rate in all layers.
        drop_path (float): The rate of the last layer; the first one has 0.
    """

    def __init__(
        self,
        channels: int = 128,
        num_layers: int = 4,
        num_heads: int = 8,
        stream: bool = True,
        windows: Sequence[int] | None = None,
        attention_bias: bool = False,
        dropout: float = 0.2,
        drop_path: float = 0.2,
    ) -> None:
        super().__init__()
        self.agents = AgentEmbedding(
            STEP_CHANNELS, channels // 4, windows, dropout, drop_path
        )
        self.lanes = LaneEmbedding(channels)
        self.pose = nn.Sequential(
            nn.Linear(4, channels), nn.GELU(), nn.Linear(channels, channels)
        )
        self.kinds = nn.Parameter(torch.empty(NUM_KINDS, channels))
        self.lane_kind = nn.Parameter(torch.empty(channels))
        self.interaction = None
        if stream:
            self.interaction = SceneInteraction(
                channels, num_heads, dropout, drop_path, attention_bias
            )
        self.layers = nn.ModuleList()
        for rate in torch.linspace(0, drop_path, num_layers).tolist():
            layer = SceneLayer(channels, num_heads, dropout, rate, attention_bias)
            self.layers.append(layer)
        self.norm = nn.LayerNorm(channels)

    def init_weights(self) -> None:
        """Draw the weights as released.

        Linear layers are Xavier-uniform with zero biases, but for those of the
        interaction, which keep torch's default: the release builds it after its
        initialization. Convolutions keep torch's default, too.
        """
        super().init_weights()
        nn.init.normal_(self.kinds, std=0.02)
        nn.init.normal_(self.lane_kind, std=0.02)
        for part in (self.agents, self.pose, self.layers):
            init_linear(part)
        if self.interaction is not None:
            init_attention(self.interaction)

    def forward(
        self, inputs: dict[str, Tensor], memory: SceneMemory | None = None
    ) -> dict[str, Tensor]:
        """Encode a sub-scene of
        :func:`lm4ve.tasks.motion.transforms.sub_scenes.collate_sub_scenes`.

        Args:
            inputs (dict[str, Tensor]): A sub-scene as it is described there.
            memory (SceneMemory, optional): What the sub-scene before has left.

        Returns:
            dict[str, Tensor]: ``tokens`` ``[B, A + L, C]`` and ``padding_mask``.
        """
        agents = self._embed_agents(inputs)
        lanes = self._embed_lanes(inputs)
        x = torch.cat([agents, lanes], dim=1)
        mask = torch.cat([inputs['agent_padding'], inputs['lane_padding']], dim=1)
        if self.interaction is not None:
            num_agents = agents.shape[1]
            x = read_memory(
                self.interaction, x, mask, num_agents, inputs['pose'], memory
            )
        for layer in self.layers:
            x = layer(x, mask)
        return dict(tokens=self.norm(x), padding_mask=mask)

    def _embed_agents(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return the tokens of agents, ``[B, A, C]``."""
        steps = history_steps(inputs)
        tokens = self.agents(steps.flatten(0, 1)).unflatten(0, steps.shape[:2])
        centers = inputs['agents'][:, :, -1]
        place = self._embed_place(centers, inputs['agent_headings'])
        return tokens + self.kinds[inputs['agent_kinds']] + place

    def _embed_lanes(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return the tokens of lanes, ``[B, L, C]``.

        A lane's place is the middle of its two middle points. Points beyond the range
        are zeros, as released.
        """
        lanes = inputs['lanes']
        valid = inputs['lanes_valid'][..., None]
        after = lanes.shape[2] // 2
        along = lanes[:, :, after] - lanes[:, :, after - 1]
        centers = (lanes[:, :, after] + lanes[:, :, after - 1]) / 2
        points = torch.where(valid, lanes, 0.0) - centers[:, :, None]
        points = torch.cat([points, valid.to(points)], dim=-1)
        tokens = self.lanes(points.flatten(0, 1)).unflatten(0, lanes.shape[:2])
        place = self._embed_place(centers, torch.atan2(along[..., 1], along[..., 0]))
        return tokens + self.lane_kind + place

    def _embed_place(self, centers: Tensor, headings: Tensor) -> Tensor:
        """Embed positions ``[B, N, 2]`` and directions ``[B, N]``."""
        direction = torch.stack([headings.cos(), headings.sin()], dim=-1)
        return self.pose(torch.cat([centers, direction], dim=-1))


def read_memory(
    interaction: nn.Module,
    x: Tensor,
    padding_mask: Tensor,
    num_agents: int,
    pose: Tensor,
    memory: SceneMemory | None,
) -> Tensor:
    """Let agents read all tokens of the memory, and lanes its lanes.

    The first sub-scene reads itself. What is padding stays as it was.

    Args:
        interaction (nn.Module): A :class:`SceneInteraction`.
        x (Tensor): ``[B, N, C]``, the tokens of the sub-scene, agents first.
        padding_mask (Tensor): bool ``[B, N]``.
        num_agents (int): How many of the tokens are agents.
        pose (Tensor): ``[B, 4]``, the pose of the sub-scene.
        memory (SceneMemory, optional): Of the sub-scene before.
    """
    if memory is None:
        memory = SceneMemory(x, padding_mask, num_agents, pose)
    way = relative_pose(pose, memory.pose)
    agents = interaction(x[:, :num_agents], memory.tokens, way, memory.padding_mask)
    lanes = interaction(
        x[:, num_agents:],
        memory.tokens[:, memory.num_agents :],
        way,
        memory.padding_mask[:, memory.num_agents :],
    )
    read = torch.cat([agents, lanes], dim=1)
    return torch.where(padding_mask[..., None], x, read)


def relative_pose(pose: Tensor, earlier: Tensor) -> Tensor:
    """Return the way from an earlier pose ``[B, 4]`` to one; its angle is in [-pi, pi).

    As released, the way in x and y is along the axes of the city.
    """
    time, heading, x, y = (pose - earlier).unbind(-1)
    heading = (heading + math.pi) % (2 * math.pi) - math.pi
    return torch.stack([time, heading, x, y], dim=-1)


def init_linear(module: nn.Module) -> None:
    """Draw all linear layers and attentions of a module Xavier-uniform, biases zero."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    init_attention(module)


def init_attention(module: nn.Module) -> None:
    """Draw queries, keys and values of each attention as PanguMotion, as three matrices.

    That is wider than torch's own draw by sqrt(2), which takes them as one matrix, and
    which RealMotion, with its biases, keeps.
    """
    for part in module.modules():
        if not isinstance(part, nn.MultiheadAttention):
            continue
        if part.in_proj_bias is not None:
            continue
        for weight in part.in_proj_weight.chunk(3):
            nn.init.xavier_uniform_(weight)
        nn.init.xavier_uniform_(part.out_proj.weight)


@MODELS.register_module()
class RealMotionDecoder(BaseModule):
    """K trajectories of the focal agent with scores, and one of each other agent.

    Trained on the trajectory that is nearest to the truth by its mean distance: smooth
    L1 on it, cross-entropy on the scores, smooth L1 on the others' trajectories.

    Args:
        in_channels (int): C.
        future_steps (int): F.
        num_modes (int): K.
    """

    def __init__(self, in_channels: int, future_steps: int, num_modes: int = 6) -> None:
        super().__init__()
        self.future_steps = future_steps
        self.num_modes = num_modes
        self.modes = nn.Linear(in_channels, num_modes * in_channels)
        self.regression = _three_layers(in_channels, 2 * future_steps)
        self.score = _three_layers(in_channels, 1)
        self.other_agents = nn.Sequential(
            nn.Linear(in_channels, 256), nn.ReLU(), nn.Linear(256, 2 * future_steps)
        )

    def init_weights(self) -> None:
        """Draw the weights as released: Xavier-uniform, with zero biases."""
        super().init_weights()
        init_linear(self)

    def forward(
        self, features: Tensor, encoded: dict[str, Tensor], inputs: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Forecast the focal agent, which is the first.

        Args:
            features (Tensor): ``[B, Q, C]``, its features first.
            encoded, inputs (dict): Not read: the focal agent is the origin.

        Returns:
            tuple[Tensor, Tensor]: ``[B, 1, K, F, 2]`` (meters, focal frame), and scores
            ``[B, 1, K]``.
        """
        modes = self.modes(features[:, :1]).unflatten(-1, (self.num_modes, -1))
        trajectories = self.regression(modes).unflatten(-1, (self.future_steps, 2))
        return trajectories, self.score(modes)[..., 0]

    def forecast_others(self, features: Tensor, inputs: dict[str, Tensor]) -> Tensor:
        """Forecast all agents but the first, ``[B, A, C]`` to ``[B, A - 1, F, 2]``."""
        offsets = self.other_agents(features[:, 1:])
        offsets = offsets.unflatten(-1, (self.future_steps, 2))
        centers = inputs['agents'][:, 1:, -1]
        return centers[:, :, None] + offsets

    def loss(
        self, trajectories: Tensor, scores: Tensor, future: Tensor, valid: Tensor
    ) -> dict[str, Tensor]:
        """Compute the losses of N focal agents.

        Args:
            trajectories (Tensor): ``[N, K, F, 2]``.
            scores (Tensor): ``[N, K]``, logits.
            future (Tensor): ``[N, F, 2]``.
            valid (Tensor): bool ``[N, F]``.
        """
        errors = (trajectories.detach() - future[:, None]).norm(dim=-1)
        known_errors = torch.where(valid[:, None], errors, 0.0)
        best = known_errors.sum(dim=-1).argmin(dim=1)
        rows = torch.arange(len(best), device=best.device)
        regression = masked_smooth_l1(trajectories[rows, best], future, valid)
        return dict(loss_reg=regression, loss_cls=F.cross_entropy(scores, best))

    def loss_of_others(
        self, features: Tensor, inputs: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Compute the loss of all agents but the first, over what is known of them."""
        trajectories = self.forecast_others(features, inputs)
        future = inputs['future'][:, 1:]
        valid = inputs['future_valid'][:, 1:]
        return dict(loss_others=masked_smooth_l1(trajectories, future, valid))

    def select(
        self, trajectories: Tensor, probabilities: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return all trajectories."""
        return trajectories, probabilities


def _three_layers(in_channels: int, out_channels: int) -> nn.Sequential:
    """Build the decoder's MLP, 256 wide."""
    return nn.Sequential(
        nn.Linear(in_channels, 256),
        nn.ReLU(),
        nn.Linear(256, in_channels),
        nn.ReLU(),
        nn.Linear(in_channels, out_channels),
    )
