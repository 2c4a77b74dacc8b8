"""Point-BERT's encoder: a class token and tokens of local groups.

Yu et al., CVPR 2022 (arXiv 2111.14819); sizes and order of operations are those
of the authors' code, since its checkpoints are to be loaded. Point-MAE (Pang et
al., ECCV 2022, arXiv 2203.06604) fine-tunes the same trunk.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.model.weight_init import trunc_normal_
from timm.models.vision_transformer import Block  # Point-BERT copied it
from torch import Tensor, nn

from lm4ve.errors import check
from lm4ve.geometry.point_ops import (
    farthest_point_sample,
    nearest_neighbors,
    take_points,
)
from lm4ve.registry import MODELS

#: How Point-MAE's encoder starts.
_TRUNCATED_NORMAL = [
    dict(type='TruncNormal', layer=['Linear', 'Conv1d'], std=0.02),
    dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.0),
]


def group_points(
    points: Tensor, num_groups: int, group_size: int
) -> tuple[Tensor, Tensor]:
    """Cut clouds into groups: farthest points as centers, and the points nearest to each.

    Args:
        points (Tensor): ``[B, N, 3]``.
        num_groups (int): G, at most N.
        group_size (int): S, at most N.

    Returns:
        tuple[Tensor, Tensor]: Centers ``[B, G, 3]`` and int64 indices of the
        groups' points ``[B, G, S]``.

    Raises:
        UserError: The cloud has fewer points than groups or than a group.
    """
    check('backbone.num_groups', num_groups, most=points.shape[1])
    check('backbone.group_size', group_size, most=points.shape[1])
    centers = take_points(points, farthest_point_sample(points, num_groups))
    return centers, nearest_neighbors(points, centers, group_size)


class GroupEncoder(BaseModule):
    """Encode the points of each group as one vector, by a small PointNet.

    Two point-wise stages; the second sees each point's features beside the
    group's maximum (Point-BERT, section 3.1). The names of its parts are those
    of the published checkpoints.

    Args:
        out_channels (int): Width of the vector.
        channels (Sequence[int]): Widths inside: (128, 256, 512) in the paper.
    """

    def __init__(
        self, out_channels: int, channels: Sequence[int] = (128, 256, 512)
    ) -> None:
        super().__init__()
        first, pooled, second = channels
        self.first_conv = _two_convs(3, first, pooled)
        self.second_conv = _two_convs(2 * pooled, second, out_channels)

    def forward(self, groups: Tensor) -> Tensor:
        """Encode groups ``[B, G, S, 3]``, relative to their centers, to ``[B, G, C]``."""
        x = self.first_conv(groups.flatten(0, 1).transpose(1, 2))
        pooled = x.amax(dim=2, keepdim=True)
        # The second stage sees the maximum beside each point. It is the same for all
        # points of a group, so its half of the convolution is computed once a group.
        layers: Any = self.second_conv
        conv, norm, relu, last = layers
        weight_of_pooled, weight_of_points = conv.weight.split(x.shape[1], dim=1)
        x = F.conv1d(x, weight_of_points) + F.conv1d(
            pooled, weight_of_pooled, conv.bias
        )
        x = last(relu(norm(x)))
        return x.amax(dim=2).unflatten(0, (-1, groups.shape[1]))


def _two_convs(in_channels: int, hidden: int, out_channels: int) -> nn.Sequential:
    """Return two linear layers for each point, with batch norm and ReLU between them."""
    return nn.Sequential(
        nn.Conv1d(in_channels, hidden, 1),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Conv1d(hidden, out_channels, 1),
    )


@MODELS.register_module()
class PointBERT(BaseModule):
    """Point-BERT's encoder, up to or including its final norm.

    Args:
        embed_dims (int): C, the transformer's width.
        depth (int): Number of its blocks.
        num_heads (int): Heads of each.
        num_groups (int): G, tokens of a cloud: 64 of 1024 points, 128 of 2048,
            256 of 4096, 512 of 8192 in the paper.
        group_size (int): Points of a group.
        encoder_dims (int): Width of a group's vector; where it is not C, a
            Linear ``reduce_dim`` follows.
        encoder_channels (Sequence[int]): Widths inside :class:`GroupEncoder`.
        drop_path_rate (float): Stochastic depth, from 0 at the first block to
            this at the last.
        mlp_ratio (float): Width of a block's MLP by C.
        final_norm (bool): Apply the final norm. False where a neck applies it.
        token_std (float, optional): Standard deviation of the truncated normal
            distribution that the class token and its position start from. None is
            Point-BERT's fine-tuning: a class token of zeros, and a position from a normal
            distribution of deviation 1.
        init_cfg (list, optional): Passed to MMEngine's ``BaseModule``. None leaves the
            layers as torch makes them, as Point-BERT's fine-tuning does.

    A pre-trained encoder replaces all initial values.
    """

    #: The class token, which is no group and comes first.
    num_extra_tokens = 1

    def __init__(
        self,
        embed_dims: int = 384,
        depth: int = 12,
        num_heads: int = 6,
        num_groups: int = 64,
        group_size: int = 32,
        encoder_dims: int = 256,
        encoder_channels: Sequence[int] = (128, 256, 512),
        drop_path_rate: float = 0.1,
        mlp_ratio: float = 4.0,
        final_norm: bool = True,
        token_std: float | None = None,
        init_cfg: Sequence[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.embed_dims = embed_dims
        self.token_std = token_std
        self.num_groups = num_groups
        self.group_size = group_size
        self.encoder = GroupEncoder(encoder_dims, encoder_channels)
        self.reduce_dim: nn.Module = nn.Identity()
        if encoder_dims != embed_dims:
            self.reduce_dim = nn.Linear(encoder_dims, embed_dims)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dims))
        self.cls_pos = nn.Parameter(torch.randn(1, 1, embed_dims))
        self.pos_embed = nn.Sequential(
            nn.Linear(3, 128), nn.GELU(), nn.Linear(128, embed_dims)
        )
        self.blocks = nn.ModuleList()
        for rate in torch.linspace(0, drop_path_rate, depth).tolist():
            block = Block(
                embed_dims,
                num_heads,
                mlp_ratio,
                drop_path=rate,
                norm_layer=nn.LayerNorm,
            )
            self.blocks.append(block)
        self.norm = nn.LayerNorm(embed_dims) if final_norm else None

    def init_weights(self) -> None:
        """Initialize by ``init_cfg``, and the class token and its position by ``token_std``."""
        super().init_weights()
        if self.token_std is None:
            nn.init.zeros_(self.cls_token)
            nn.init.normal_(self.cls_pos)
        else:
            trunc_normal_(self.cls_token, std=self.token_std)
            trunc_normal_(self.cls_pos, std=self.token_std)

    def group(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Cut clouds into groups.

        Args:
            points (Tensor): ``[B, N, 3]``.

        Returns:
            tuple[Tensor, Tensor]: Centers ``[B, G, 3]`` and int64 indices of
            each group's points ``[B, G, S]``. Token ``1 + g`` is group g.
        """
        return group_points(points, self.num_groups, self.group_size)

    def forward(self, points: Tensor) -> Tensor:
        """Encode clouds.

        Args:
            points (Tensor): ``[B, N, 3]``, in the unit of the training data.

        Returns:
            Tensor: ``[B, 1 + G, C]``, the class token first.
        """
        centers, index = self.group(points)
        groups = take_points(points, index) - centers[:, :, None]
        tokens = self.reduce_dim(self.encoder(groups))
        # Not len(), which a trace would make a constant.
        batch = points.shape[0]
        class_tokens = self.cls_token.expand(batch, -1, -1)
        class_positions = self.cls_pos.expand(batch, -1, -1)
        x = torch.cat((class_tokens, tokens), dim=1)
        position = torch.cat((class_positions, self.pos_embed(centers)), dim=1)
        for block in self.blocks:
            # Positions are added before every block, not once.
            x = block(x + position)
        if self.norm is None:
            # A neck applies it.
            return x
        return self.norm(x)


@MODELS.register_module()
class PointMAE(PointBERT):
    """Point-MAE's encoder: Point-BERT's trunk without ``reduce_dim``.

    Args:
        embed_dims (int): C; a group's vector has this width too.
        token_std (float, optional): See :class:`PointBERT`. Point-MAE's pre-training has
            no class token, so a fine-tuning begins with this initial value.
        init_cfg (list, optional): Passed to MMEngine's ``BaseModule``.
        **kwargs: Passed to :class:`PointBERT`.
    """

    def __init__(
        self,
        embed_dims: int = 384,
        token_std: float | None = 0.02,
        init_cfg: Sequence[dict] | None = _TRUNCATED_NORMAL,
        **kwargs,
    ) -> None:
        super().__init__(
            embed_dims,
            encoder_dims=embed_dims,
            token_std=token_std,
            init_cfg=init_cfg,
            **kwargs,
        )
