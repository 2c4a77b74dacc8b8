"""``VoteNet``: points of a room to tokens of the objects in it.

PointNet++ finds seeds, every seed votes for the center of its object, and votes that
meet become proposals. Sources: PointNet++ (arXiv 1706.02413), VoteNet (arXiv
1904.09664); sizes of SQA3D's baseline (arXiv 2210.07474, github.com/SilongYong/SQA3D).
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lm4ve.errors import check
from lm4ve.geometry import point_ops
from lm4ve.registry import MODELS
from lm4ve.tasks.rooms.models.objects import (
    Objects,
    ProposalHead,
    Samples,
    read_mean_sizes,
)


class PointLayer(nn.Module):
    """Linear, batch norm, ReLU: ``[B, C_in, L] -> [B, C_out, L]``.

    The layout is the original's. Of ``[N, C]`` a CPU sums batch statistics one row
    after the other, which loses digits of fp32 where there are millions.
    """

    def __init__(self, in_channels: int, channels: int, bias: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, channels, bias=bias)
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv1d(x, self.linear.weight[..., None], self.linear.bias)
        return F.relu(self.norm(x))


class PointLayers(nn.Sequential):
    """Layers on the last dimension: ``[B, ..., C_in] -> [B, ..., C_out]``."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(1, -2)
        out = super().forward(rows.mT).mT
        return out.unflatten(1, x.shape[1:-1])


def point_layers(in_channels: int, channels: Sequence[int]) -> PointLayers:
    """Build layers of the given widths, initialized as PointNet++ does."""
    widths = (in_channels, *channels)
    layers = [PointLayer(a, b) for a, b in pairwise(widths)]
    for layer in layers:
        nn.init.kaiming_normal_(layer.linear.weight)
    return PointLayers(*layers)


class SetAbstraction(nn.Module):
    """Pools the features around centers (PointNet++, section 3.2).

    Args:
        radius (float): Of the ball around a center, in meters.
        samples (int): How many points of the ball count, the first by their index.
        in_channels (int): C_in of the points' features; 0 for none.
        channels (Sequence[int]): Widths of the layers, the last one is C.
    """

    def __init__(
        self, radius: float, samples: int, in_channels: int, channels: Sequence[int]
    ) -> None:
        super().__init__()
        self.radius = radius
        self.samples = samples
        self.layers = point_layers(3 + in_channels, channels)

    def forward(
        self,
        xyz: Tensor,
        features: Tensor,
        picks: Tensor,
        padding: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Compute the features of centers.

        Args:
            xyz (Tensor): ``[B, N, 3]``.
            features (Tensor): ``[B, N, C_in]``.
            picks (Tensor): int64 ``[B, G]``, the centers' indices among the points.
            padding (Tensor, optional): bool ``[B, N]``, True = padding, behind the
                points.

        Returns:
            tuple[Tensor, Tensor]: Centers ``[B, G, 3]`` and their features ``[B, G,
            C]``.
        """
        centers = point_ops.take_points(xyz, picks)
        groups = point_ops.ball_query(xyz, centers, self.radius, self.samples, padding)
        around = (
            point_ops.take_points(xyz, groups) - centers[:, :, None]
        ) / self.radius
        around = torch.cat((around, point_ops.take_points(features, groups)), dim=-1)
        return centers, self.layers(around).amax(dim=2)


class FeaturePropagation(nn.Module):
    """Interpolates features from few points to more of them (PointNet++, section 3.4)."""

    def __init__(self, in_channels: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.layers = point_layers(in_channels, channels)

    def forward(
        self,
        targets: Tensor,
        sources: Tensor,
        target_features: Tensor,
        source_features: Tensor,
    ) -> Tensor:
        """``[B, N, 3]``, ``[B, M, 3]``, ``[B, N, C_1]``, ``[B, M, C_2]`` to ``[B, N, C]``."""
        carried = point_ops.interpolate_features(targets, sources, source_features)
        return self.layers(torch.cat((carried, target_features), dim=-1))


class PointNet2(nn.Module):
    """PointNet++ with one scale a layer; arguments as of :class:`VoteNet`.

    ``forward`` maps points ``[B, N, 3 + F]`` and their padding to the seeds: the
    centers of the second layer ``[B, S, 3]``, their features ``[B, S, C]`` and their
    indices among the points, int64 ``[B, S]``.
    """

    def __init__(
        self,
        in_channels: int,
        num_points: Sequence[int],
        radii: Sequence[float],
        samples: Sequence[int],
        channels: Sequence[Sequence[int]],
        propagation: Sequence[Sequence[int]],
    ) -> None:
        super().__init__()
        self.num_points = num_points
        self.abstraction = nn.ModuleList()
        width = in_channels
        level_widths = []
        for radius, count, widths in zip(radii, samples, channels, strict=True):
            self.abstraction.append(SetAbstraction(radius, count, width, widths))
            width = widths[-1]
            level_widths.append(width)
        self.propagation = nn.ModuleList()
        level_widths.pop()  # the last level is what propagation begins with
        for widths in propagation:
            in_channels = width + level_widths.pop()
            self.propagation.append(FeaturePropagation(in_channels, widths))
            width = widths[-1]
        self.embed_dims: int = width

    def forward(
        self, points: Tensor, padding: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        xyz = points[..., :3]
        features = points[..., 3:]
        first, *later = self.abstraction
        picked = point_ops.farthest_point_sample(xyz, self.num_points[0], padding)
        xyz, features = first(xyz, features, picked, padding)
        levels: list[tuple[Tensor, Tensor]] = [(xyz, features)]
        for layer, count in zip(later, self.num_points[1:], strict=True):
            # The points are in the order of picking: the next picks are the first.
            picks = torch.arange(count, device=xyz.device).expand(len(xyz), -1)
            xyz, features = layer(xyz, features, picks, None)
            levels.append((xyz, features))
        for layer in self.propagation:
            sources, _ = levels.pop()
            xyz, skipped = levels[-1]
            features = layer(xyz, sources, skipped, features)
        seeds = picked[:, : xyz.shape[1]]
        return xyz, features, seeds


class Voting(nn.Module):
    """Predicts for each seed the center of its object and a feature (VoteNet, section 4.1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = PointLayers(
            PointLayer(channels, channels, bias=True),
            PointLayer(channels, channels, bias=True),
        )
        self.out = nn.Linear(channels, 3 + channels)

    def forward(self, xyz: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Seeds ``[B, S, 3]``, ``[B, S, C]`` to votes of these shapes, features of norm 1."""
        out = self.out(self.layers(features)).float()
        votes = xyz + out[..., :3]
        features = features.float() + out[..., 3:]
        return votes, F.normalize(features, dim=-1)


@MODELS.register_module()
class VoteNet(nn.Module):
    """Detects objects in a cloud of points; each proposal is a token.

    Args:
        in_channels (int): F, columns of a point behind x, y, z. SQA3D's release has
            red, green, blue and the height above the floor.
        mean_sizes (str | Sequence[Sequence[float]]): Mean size of each class's boxes in
            meters, ``[classes, 3]``, or the ``.npy`` or ``.npz`` (first array) that
            holds them, as ScanRefer's ``scannet_reference_means.npz``. There are as
            many size clusters as classes.
        num_points (Sequence[int]): Points after each set abstraction. The second number
            is that of seeds.
        radii, samples, channels (Sequence): Of each set abstraction.
        propagation (Sequence[Sequence[int]]): Widths of each feature propagation.
        num_proposals (int): K.
        proposal_radius (float): Votes within this many meters form a proposal.
        proposal_samples (int): How many of them count.
        proposal_channels (int): C.
        tokens (str): 'features', those of proposals, as in the release; or
            'detections', the center of its box and the probability of each class, which
            a small model learns from sooner. They change with the scene's position, and
            no gradient of answers reaches the detector.

    Attributes:
        embed_dims (int): Width of the tokens: C, or 3 + classes.
        reads (str): 'points'.

    Proposals move with the scene, if the columns behind x, y, z stay. Sampling begins
    at point 0, and full balls keep the first points by index, so that the output
    depends on the order of points, as in PointNet++'s code.
    """

    reads = 'points'

    def __init__(
        self,
        in_channels: int = 4,
        mean_sizes: str | Sequence[Sequence[float]] = (),
        num_points: Sequence[int] = (2048, 1024, 512, 256),
        radii: Sequence[float] = (0.2, 0.4, 0.8, 1.2),
        samples: Sequence[int] = (64, 32, 16, 16),
        channels: Sequence[Sequence[int]] = (
            (64, 64, 128),
            (128, 128, 256),
            (128, 128, 256),
            (128, 128, 256),
        ),
        propagation: Sequence[Sequence[int]] = ((256, 256), (256, 256)),
        num_proposals: int = 256,
        proposal_radius: float = 0.3,
        proposal_samples: int = 16,
        proposal_channels: int = 128,
        tokens: str = 'features',
    ) -> None:
        super().__init__()
        check('model.object_encoder.tokens', tokens, choices=('features', 'detections'))
        self.num_proposals = num_proposals
        self.backbone = PointNet2(
            in_channels, num_points, radii, samples, channels, propagation
        )
        width = self.backbone.embed_dims
        self.voting = Voting(width)
        c = proposal_channels
        self.aggregation = SetAbstraction(
            proposal_radius, proposal_samples, width, (c, c, c)
        )
        sizes = read_mean_sizes(mean_sizes)
        layers = PointLayers(PointLayer(c, c), PointLayer(c, c))
        self.head = ProposalHead(layers, c, sizes)
        self.tokens = tokens
        self.embed_dims = c
        if tokens == 'detections':
            self.embed_dims = 3 + len(sizes)

    @staticmethod
    def portable(node: dict) -> dict:
        """Return the mean sizes in place of their file, for a release."""
        return dict(mean_sizes=read_mean_sizes(node['mean_sizes']).tolist())

    def forward(self, points: Tensor, padding: Tensor | None = None) -> Objects:
        """Find objects.

        Args:
            points (Tensor): ``[B, P, 3 + F]``: x, y, z in meters, then features.
            padding (Tensor, optional): bool ``[B, P]``, True = padding, behind the
                points.

        Returns:
            Objects: K tokens a cloud, and its detections. Proposals that are predicted
            to be no objects are padding.
        """
        xyz, features, index = self.backbone(points, padding)
        votes, features = self.voting(xyz, features)
        picks = point_ops.farthest_point_sample(votes, self.num_proposals)
        centers, tokens = self.aggregation(votes, features, picks)
        detections = self.head(tokens, centers)
        detections.seeds = xyz
        detections.seed_index = index
        detections.votes = votes
        if self.tokens == 'detections':
            classes = detections.semantic_scores.softmax(dim=-1)
            detected = torch.cat((detections.centers, classes), dim=-1)
            tokens = detected.detach().to(tokens.dtype)
        is_nothing = detections.objectness.argmax(dim=-1) == 0
        return Objects(tokens, is_nothing, detections)

    def loss(self, objects: Objects, data_samples: Samples) -> dict[str, Tensor]:
        """Return the losses of detection without their weights."""
        assert objects.detections is not None
        return self.head.loss(objects.detections, data_samples)

    def predict(self, objects: Objects, data_samples: Samples) -> None:
        """Add ``pred_boxes``, ``pred_box_scores`` and ``pred_box_labels`` of all proposals."""
        assert objects.detections is not None
        found = self.head.boxes(objects.detections)
        boxes, scores, labels = [values.cpu() for values in found]
        for i, sample in enumerate(data_samples):
            sample.pred_boxes = boxes[i]
            sample.pred_box_scores = scores[i]
            sample.pred_box_labels = labels[i]
