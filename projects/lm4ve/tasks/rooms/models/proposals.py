"""Predictions for each proposal of :class:`VoteNet`: object or not, box, class."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lm4ve.errors import UserError
from lm4ve.tasks.base.language.structures import VisionLanguageDataSample

Samples = list[VisionLanguageDataSample]


@dataclass
class Detections:
    """Outputs of VoteNet for B clouds, S seeds and K proposals each.

    Attributes:
        clusters (Tensor): ``[B, K, 3]``, the votes around which proposals were formed.
        objectness (Tensor): ``[B, K, 2]``, logits; 1 is an object.
        centers (Tensor): ``[B, K, 3]``, of boxes, in meters.
        heading_scores, heading_residuals (Tensor): ``[B, K, H]``; residuals in halves of
            a bin's width (pi / H).
        size_scores (Tensor): ``[B, K, classes]``.
        size_residuals (Tensor): ``[B, K, classes, 3]``, in mean sizes of the class.
        semantic_scores (Tensor): ``[B, K, classes]``.
        seeds, votes (Tensor): ``[B, S, 3]``.
        seed_index (Tensor): int64 ``[B, S]``, among the points of the cloud.
    """

    clusters: Tensor
    objectness: Tensor
    centers: Tensor
    heading_scores: Tensor
    heading_residuals: Tensor
    size_scores: Tensor
    size_residuals: Tensor
    semantic_scores: Tensor
    seeds: Tensor | None = None
    votes: Tensor | None = None
    seed_index: Tensor | None = None


@dataclass
class Objects:
    """Output of an object encoder for B scenes.

    Attributes:
        tokens (Tensor): ``[B, K, C]``.
        padding (Tensor): bool ``[B, K]``, True where there is no object.
        detections (Detections, optional): Of an encoder that detects.
    """

    tokens: Tensor
    padding: Tensor
    detections: Detections | None = None


class ProposalHead(nn.Module):
    """Predicts a box and a class from the token of each proposal.

    Args:
        layers (nn.Module): ``[..., C] -> [..., C]``.
        channels (int): C.
        mean_sizes (Tensor): ``[classes, 3]``, in meters.
        num_heading_bins (int): H.
    """

    mean_sizes: Tensor

    def __init__(
        self, layers: nn.Module, channels: int, mean_sizes: Tensor, num_heading_bins: int
    ) -> None:
        super().__init__()
        classes = len(mean_sizes)
        self.splits = (2, 3, *(num_heading_bins,) * 2, classes, 3 * classes, classes)
        self.layers = layers
        self.out = nn.Linear(channels, sum(self.splits))
        # Not in checkpoints: it is the config's, as it was in the released code.
        self.register_buffer('mean_sizes', mean_sizes, persistent=False)

    def forward(self, tokens: Tensor, clusters: Tensor) -> Detections:
        """Tokens ``[B, K, C]`` and their places ``[B, K, 3]`` to detections."""
        parts = self.out(self.layers(tokens)).float().split(self.splits, dim=-1)
        objectness, offsets, *heading, sizes, residuals, semantics = parts
        residuals = residuals.unflatten(-1, (-1, 3))
        return Detections(
            clusters, objectness, clusters + offsets, *heading, sizes, residuals, semantics
        )

    @torch.no_grad()
    def boxes(self, found: Detections) -> tuple[Tensor, Tensor, Tensor]:
        """Decode boxes from detections.

        Returns:
            tuple[Tensor, Tensor, Tensor]: Boxes ``[B, K, 7]`` (center, size, angle around
            z), the probability of an object ``[B, K]`` and int64 classes ``[B, K]``.
        """
        size = found.size_scores.argmax(dim=-1)
        residual = found.size_residuals.gather(2, size[..., None, None].expand(-1, -1, 1, 3))
        sizes = self.mean_sizes[size] * (1 + residual[:, :, 0])
        turn = found.heading_scores.argmax(dim=-1, keepdim=True)
        bins = found.heading_scores.shape[-1]
        angle = turn * (2 * math.pi / bins)
        angle = angle + found.heading_residuals.gather(2, turn) * (math.pi / bins)
        scores = found.objectness.softmax(dim=-1)[..., 1]
        boxes = torch.cat((found.centers, sizes, angle), dim=-1)
        return boxes, scores, found.semantic_scores.argmax(dim=-1)


def read_mean_sizes(source: str | Path | Sequence[Sequence[float]], field_name: str) -> Tensor:
    """Return mean sizes of boxes, fp32 ``[classes, 3]``.

    Args:
        source (str | Path | Sequence): A list, a ``.npy``, or a ``.npz`` whose first array
            is read. Nothing of a file is executed.
        field_name (str): The config's field, for messages.

    Raises:
        UserError: The file cannot be read, or it is no table of positive sizes.
    """
    values: Any = source
    if isinstance(source, (str, Path)):
        values = np.load(source, allow_pickle=False)
        if isinstance(values, np.lib.npyio.NpzFile):
            values = next(iter(values.values()))
    sizes = torch.from_numpy(np.array(values, dtype=np.float32))
    positive = bool(((sizes > 0) & sizes.isfinite()).all())
    if sizes.dim() != 2 or sizes.shape[1] != 3 or not len(sizes) or not positive:
        raise UserError(f'{field_name} must be positive sizes [classes, 3], not {sizes.shape}.')
    return sizes
