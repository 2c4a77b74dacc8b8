"""Objects of a room: stored features, or a detector's predictions and their losses.

The losses are VoteNet's (arXiv 1904.09664) as SQA3D's baseline has them, computed in
fp32. A released quirk is mended: padded boxes stand at the origin there, and a proposal
near it would match one of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lm4ve.errors import UserError, require
from lm4ve.geometry.point_ops import squared_distances, take_points
from lm4ve.registry import MODELS
from lm4ve.tasks.rooms.models.language import padded
from lm4ve.text.structures import VisionLanguageDataSample

Samples = list[VisionLanguageDataSample]
#: A proposal nearer than this to the center of a box is of an object, meters.
NEAR = 0.3
#: One that is farther than this is not; between the two it does not count.
FAR = 0.6
#: Weights of the classes "nothing" and "object".
OBJECTNESS_WEIGHTS = (0.2, 0.8)
#: Farther than any proposal is.
_NOWHERE = 1e6


@dataclass
class Detections:
    """Outputs of VoteNet for B clouds, S seeds and K proposals each.

    Attributes:
        clusters (Tensor): ``[B, K, 3]``, the votes around which proposals were formed.
        objectness (Tensor): ``[B, K, 2]``, logits; 1 is an object.
        centers (Tensor): ``[B, K, 3]``, of boxes, in meters.
        headings (Tensor): ``[B, K]``, angles around z, in units of pi.
        size_scores (Tensor): ``[B, K, classes]``.
        size_residuals (Tensor): ``[B, K, classes, 3]``, in mean sizes of the class.
        semantic_scores (Tensor): ``[B, K, classes]``.
        seeds, votes (Tensor): ``[B, S, 3]``.
        seed_index (Tensor): int64 ``[B, S]``, among the points of the cloud.
    """

    clusters: Tensor
    objectness: Tensor
    centers: Tensor
    headings: Tensor
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
        detections (Detections, optional): What an encoder that detects has found.
    """

    tokens: Tensor
    padding: Tensor
    detections: Detections | None = None


@MODELS.register_module()
class StoredObjects(nn.Module):
    """Uses stored features of objects, ``[O, C]`` a scene, as tokens.

    Args:
        in_channels (int): C.

    Attributes:
        embed_dims (int): C.
        reads (str): 'objects'.

    The order of objects changes nothing. There is no loss of detection.
    """

    reads = 'objects'

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.embed_dims = in_channels

    def forward(self, objects: Tensor, padding: Tensor) -> Objects:
        """Wrap features ``[B, O, C]`` and their padding, bool ``[B, O]``."""
        width = objects.shape[-1]
        require(
            width == self.embed_dims,
            f'model.object_encoder.in_channels={self.embed_dims}, but the objects have {width} '
            f'channels. Fix: in_channels={width}.',
        )
        return Objects(objects, padding)

    def loss(self, objects: Objects, data_samples: Samples) -> dict[str, Tensor]:
        """Return no loss, since nothing is detected."""
        return {}

    def predict(self, objects: Objects, data_samples: Samples) -> None:
        """Add nothing."""


class ProposalHead(nn.Module):
    """Predicts a box and a class from the token of each proposal.

    Args:
        layers (nn.Module): ``[..., C] -> [..., C]``.
        channels (int): C.
        mean_sizes (Tensor): ``[classes, 3]``, in meters.

    As in the release, there is one bin of headings, whose score means nothing:
    ScanNet's boxes lie along the axes.
    """

    mean_sizes: Tensor

    def __init__(self, layers: nn.Module, channels: int, mean_sizes: Tensor) -> None:
        super().__init__()
        classes = len(mean_sizes)
        self.splits = (2, 3, 1, 1, classes, 3 * classes, classes)
        self.layers = layers
        self.out = nn.Linear(channels, sum(self.splits))
        # Not in checkpoints: it is the config's, as it was in the released code.
        self.register_buffer('mean_sizes', mean_sizes, persistent=False)

    def forward(self, tokens: Tensor, clusters: Tensor) -> Detections:
        """Tokens ``[B, K, C]`` and their places ``[B, K, 3]`` to detections."""
        parts = self.out(self.layers(tokens)).float().split(self.splits, dim=-1)
        objectness, offsets, _, heading, sizes, residuals, semantics = parts
        return Detections(
            clusters=clusters,
            objectness=objectness,
            centers=clusters + offsets,
            headings=heading[..., 0],
            size_scores=sizes,
            size_residuals=residuals.unflatten(-1, (-1, 3)),
            semantic_scores=semantics,
        )

    def loss(self, found: Detections, samples: Samples) -> dict[str, Tensor]:
        """Return the losses of detection without their weights."""
        assert found.seed_index is not None
        targets = gather_targets(samples, found.seed_index)
        return detection_losses(found, targets, self.mean_sizes)

    @torch.no_grad()
    def boxes(self, found: Detections) -> tuple[Tensor, Tensor, Tensor]:
        """Decode boxes from detections.

        Returns:
            tuple[Tensor, Tensor, Tensor]: Boxes ``[B, K, 7]`` (center, size, angle
            around z), the probability of an object ``[B, K]`` and int64 classes ``[B,
            K]``.
        """
        size_class = found.size_scores.argmax(dim=-1)
        residual = _take_class(found.size_residuals, size_class)
        sizes = self.mean_sizes[size_class] * (1 + residual)
        angles = found.headings[..., None] * math.pi
        boxes = torch.cat((found.centers, sizes, angles), dim=-1)
        scores = found.objectness.softmax(dim=-1)[..., 1]
        return boxes, scores, found.semantic_scores.argmax(dim=-1)


def _take_class(values: Tensor, classes: Tensor) -> Tensor:
    """Pick the values of a class each, ``[B, K, classes, 3]`` to ``[B, K, 3]``."""
    return values.take_along_dim(classes[..., None, None], 2)[:, :, 0]


def read_mean_sizes(source: str | Path | Sequence[Sequence[float]]) -> Tensor:
    """Return mean sizes of boxes, fp32 ``[classes, 3]``.

    Args:
        source (str | Path | Sequence): A list, a ``.npy``, or a ``.npz`` whose first
            array is read. Nothing of a file is executed.

    Raises:
        UserError, ValueError, OSError: It cannot be read, or is no table of positive
            sizes.
    """
    values: Any = source
    if isinstance(source, (str, Path)):
        values = np.load(source, allow_pickle=False)
    if isinstance(values, np.lib.npyio.NpzFile):
        values = next(iter(values.values()))
    sizes = torch.from_numpy(np.array(values, dtype=np.float32))
    if sizes.shape[1:] != (3,) or not ((sizes > 0) & sizes.isfinite()).all():
        raise UserError(
            f'mean_sizes must be positive sizes [classes, 3], not {sizes.shape}.'
        )
    return sizes


# ----------------------------------------------------------------------------- losses
@dataclass
class Targets:
    """Annotations of B scenes with up to M boxes each.

    Attributes:
        votes (Tensor): ``[B, S, 3]``, from each seed to the center of its object.
        votes_mask (Tensor): bool ``[B, S]``, True where a seed lies on an object.
        boxes (Tensor): ``[B, M, 6]``: center and size, along the axes.
        labels (Tensor): int64 ``[B, M]``.
        there (Tensor): bool ``[B, M]``, False = padding.
    """

    votes: Tensor
    votes_mask: Tensor
    boxes: Tensor
    labels: Tensor
    there: Tensor


def gather_targets(samples: Samples, seed_index: Tensor) -> Targets:
    """Put the annotations of a batch together.

    Args:
        samples (list[VisionLanguageDataSample]): Each with ``gt_votes`` ``[P, 3]``,
            ``gt_vote_mask`` bool ``[P]``, ``gt_boxes`` ``[M, 6]`` and ``gt_labels``
            int64 ``[M]``.
        seed_index (Tensor): int64 ``[B, S]``, among a scene's points, on the device
            where the targets are wanted.
    """
    votes, _ = padded([sample.gt_votes for sample in samples])
    votes_mask, _ = padded([sample.gt_vote_mask for sample in samples])
    boxes, boxes_padding = padded([sample.gt_boxes for sample in samples])
    labels, _ = padded([sample.gt_labels for sample in samples])
    if boxes.shape[1] == 0:
        # No scene has a box, and the nearest of none is not defined.
        boxes = F.pad(boxes, (0, 0, 0, 1))
        labels = F.pad(labels, (0, 1))
        boxes_padding = F.pad(boxes_padding, (0, 1), value=True)
    device = seed_index.device
    votes = votes.to(device, non_blocking=True)
    votes_mask = votes_mask.to(device, non_blocking=True)
    return Targets(
        votes=take_points(votes, seed_index).float(),
        votes_mask=votes_mask.gather(1, seed_index),
        boxes=boxes.float().to(device, non_blocking=True),
        labels=labels.to(device, non_blocking=True),
        there=(~boxes_padding).to(device, non_blocking=True),
    )


def detection_losses(
    found: Detections, targets: Targets, mean_sizes: Tensor
) -> dict[str, Tensor]:
    """Compare detections with what is there (VoteNet, section 4.2 and supplement).

    Args:
        found (Detections): The proposals of B scenes.
        targets (Targets): The truth of these scenes.
        mean_sizes (Tensor): ``[classes, 3]``, meters.

    Returns:
        dict[str, Tensor]: ``vote``, ``objectness``, ``box`` (center, heading, a tenth
        of the class of size, and size) and ``semantic``, each a mean over what it is
        about, without the weights of the model.
    """
    squared, match = _distances(found.clusters, targets).min(dim=-1)
    distance = (squared + 1e-6).sqrt()
    is_near = distance < NEAR
    positive = is_near.float()
    sure = (is_near | (distance > FAR)).float()
    nothing_weight, object_weight = OBJECTNESS_WEIGHTS
    weights = torch.where(is_near, object_weight, nothing_weight)
    objectness = weights * _cross_entropy(found.objectness, is_near.long())
    labels = targets.labels.gather(1, match)
    semantic = _cross_entropy(found.semantic_scores, labels)
    return dict(
        vote=_vote_loss(found, targets),
        objectness=_mean(objectness, sure),
        box=_box_loss(found, targets, mean_sizes, positive, match),
        semantic=_mean(semantic, positive),
    )


def _vote_loss(found: Detections, targets: Targets) -> Tensor:
    """Compute how far votes miss the centers of the seeds' objects."""
    assert found.votes is not None
    assert found.seeds is not None
    centers = found.seeds.float() + targets.votes
    missed = (found.votes.float() - centers).abs().sum(dim=-1)
    return _mean(missed, targets.votes_mask.float())


def _box_loss(
    found: Detections,
    targets: Targets,
    mean_sizes: Tensor,
    positive: Tensor,
    match: Tensor,
) -> Tensor:
    """Compute the loss of centers, headings, classes of size, and sizes.

    Args:
        found, targets, mean_sizes: See :func:`detection_losses`.
        positive (Tensor): float ``[B, K]``, 1 for a proposal of an object.
        match (Tensor): int64 ``[B, K]``, the box nearest to each proposal.
    """
    to_boxes = _distances(found.centers, targets)
    center = _mean(to_boxes.amin(dim=2), positive)
    center = center + _mean(to_boxes.amin(dim=1), targets.there.float())
    straight = torch.zeros_like(found.headings)
    heading = F.huber_loss(found.headings, straight, reduction='none')

    labels = targets.labels.gather(1, match)
    size_class = _cross_entropy(found.size_scores, labels)
    mean = mean_sizes.float()[labels]
    sizes = targets.boxes[..., 3:].take_along_dim(match[..., None], dim=1)
    residual = _take_class(found.size_residuals.float(), labels)
    size = F.huber_loss(residual, (sizes - mean) / mean, reduction='none').mean(dim=-1)

    box = center + _mean(heading, positive)
    return box + 0.1 * _mean(size_class, positive) + _mean(size, positive)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean of all values; 0 where all weights are 0."""
    return (values * weights).sum() / (weights.sum() + 1e-6)


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the loss of each proposal, ``[B, K]``, from logits ``[B, K, classes]``."""
    return F.cross_entropy(logits.float().transpose(1, 2), labels, reduction='none')


def _distances(places: Tensor, targets: Targets) -> Tensor:
    """Compute squared distances ``[B, K, M]`` to boxes; padded ones are nowhere near."""
    squared = squared_distances(places.float(), targets.boxes[..., :3])
    return squared.masked_fill(~targets.there[:, None], _NOWHERE)
