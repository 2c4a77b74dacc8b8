"""Losses of detection, as VoteNet and SQA3D's baseline have them, on boxes and votes.

Everything is computed in fp32. A released quirk is mended: padded boxes stand at the
origin there, and a proposal near it would match one of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lm4ve.tasks.base.language.structures import VisionLanguageDataSample
from lm4ve.tasks.base.point_ops import squared_distances
from lm4ve.tasks.rooms.models.proposals import Detections

#: A proposal nearer than this to the center of a box is of an object; one that is farther
#: than the second number is not; between them it does not count. Meters.
NEAR, FAR = 0.3, 0.6
#: Weights of the classes "nothing" and "object".
OBJECTNESS_WEIGHTS = (0.2, 0.8)
#: Parts of the loss of boxes, with their weights within it.
BOX_WEIGHTS = dict(center=1.0, heading_class=0.1, heading=1.0, size_class=0.1, size=1.0)
#: Farther than any proposal is.
_NOWHERE = 1e6


@dataclass
class Targets:
    """Annotations of B scenes with up to M boxes each.

    Attributes:
        votes (Tensor): ``[B, S, 3]``, from each seed to the center of its object.
        votes_mask (Tensor): bool ``[B, S]``, True where a seed lies on an object.
        boxes (Tensor): ``[B, M, 7]``: center, size, angle.
        labels (Tensor): int64 ``[B, M]``.
        there (Tensor): bool ``[B, M]``, False = padding.
    """

    votes: Tensor
    votes_mask: Tensor
    boxes: Tensor
    labels: Tensor
    there: Tensor


def gather_targets(samples: Sequence[VisionLanguageDataSample], seed_index: Tensor) -> Targets:
    """Put the annotations of a batch together.

    Args:
        samples (Sequence[VisionLanguageDataSample]): Each with ``gt_votes`` ``[P, 3]``,
            ``gt_vote_mask`` bool ``[P]``, ``gt_boxes`` ``[M, 6 or 7]`` and ``gt_labels``
            int64 ``[M]``.
        seed_index (Tensor): int64 ``[B, S]``, among a scene's points.
    """
    device, most = seed_index.device, max(1, *(len(s.gt_boxes) for s in samples))
    boxes = torch.zeros(len(samples), most, 7, device=device)
    labels = torch.zeros(len(samples), most, dtype=torch.int64, device=device)
    there = torch.zeros(len(samples), most, dtype=torch.bool, device=device)
    for i, sample in enumerate(samples):
        count = len(sample.gt_boxes)
        boxes[i, :count, : sample.gt_boxes.shape[-1]] = sample.gt_boxes.float()
        labels[i, :count] = sample.gt_labels
        there[i, :count] = True
    pairs = list(zip(samples, seed_index, strict=True))
    votes = torch.stack([s.gt_votes[i].float() for s, i in pairs])
    mask = torch.stack([s.gt_vote_mask[i].bool() for s, i in pairs])
    return Targets(votes, mask, boxes, labels, there)


def detection_losses(found: Detections, targets: Targets, mean_sizes: Tensor) -> dict[str, Tensor]:
    """Compare detections with what is there (VoteNet, section 4.2 and supplement).

    Args:
        found (Detections): Of B scenes.
        targets (Targets): Of the same scenes.
        mean_sizes (Tensor): ``[classes, 3]``, meters.

    Returns:
        dict[str, Tensor]: ``vote``, ``objectness``, ``box`` (see :data:`BOX_WEIGHTS`) and
        ``semantic``, each a mean over what it is about, without the weights of the model.
    """
    mean_sizes = mean_sizes.float()
    to_boxes = _distances(found.clusters, targets)  # [B, K, M]
    squared, match = to_boxes.min(dim=-1)
    distance = (squared + 1e-6).sqrt()
    positive = (distance < NEAR).float()
    sure = ((distance < NEAR) | (distance > FAR)).float()
    weights = torch.tensor(OBJECTNESS_WEIGHTS, device=distance.device)
    objectness = _cross_entropy(found.objectness, positive.long(), weights)
    parts = _box_losses(found, targets, mean_sizes, match, positive)
    labels = targets.labels.gather(1, match)
    return dict(
        vote=_vote_loss(found, targets),
        objectness=_mean(objectness, sure),
        box=sum(BOX_WEIGHTS[name] * value for name, value in parts.items()),
        semantic=_mean(_cross_entropy(found.semantic_scores, labels), positive),
    )


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / (weights.sum() + 1e-6)


def _cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    return F.cross_entropy(logits.float().transpose(1, 2), labels, weights, reduction='none')


def _distances(places: Tensor, targets: Targets) -> Tensor:
    """Squared distances ``[B, K, M]`` to boxes; padded ones are nowhere near."""
    far = squared_distances(places.float(), targets.boxes[..., :3])
    return far.masked_fill(~targets.there[:, None], _NOWHERE)


def _vote_loss(found: Detections, targets: Targets) -> Tensor:
    wanted = found.seeds.float() + targets.votes
    distance = (found.votes.float() - wanted).abs().sum(dim=-1)
    return _mean(distance, targets.votes_mask.float())


def _box_losses(
    found: Detections, targets: Targets, mean_sizes: Tensor, match: Tensor, positive: Tensor
) -> dict[str, Tensor]:
    to_boxes = _distances(found.centers, targets)
    center = _mean(to_boxes.amin(dim=2), positive)
    center = center + _mean(to_boxes.amin(dim=1), targets.there.float())
    boxes = targets.boxes.gather(1, match[..., None].expand(-1, -1, 7))
    labels = targets.labels.gather(1, match)
    bins = found.heading_scores.shape[-1]
    turn, rest = heading_of(boxes[..., 6], bins)
    found_rest = found.heading_residuals.float().gather(2, turn[..., None])[..., 0]
    heading = F.huber_loss(found_rest, rest / (math.pi / bins), reduction='none')
    mean = mean_sizes[labels]
    index = labels[..., None, None].expand(-1, -1, 1, 3)
    found_size = found.size_residuals.float().gather(2, index)[:, :, 0]
    size = F.huber_loss(found_size, (boxes[..., 3:6] - mean) / mean, reduction='none').mean(-1)
    return dict(
        center=center,
        heading_class=_mean(_cross_entropy(found.heading_scores, turn), positive),
        heading=_mean(heading, positive),
        size_class=_mean(_cross_entropy(found.size_scores, labels), positive),
        size=_mean(size, positive),
    )


def heading_of(angles: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """Split angles, in radians, into the nearest of ``bins`` directions and the rest.

    Returns:
        tuple[Tensor, Tensor]: int64 bins, of which 0 looks along x, and what is left of
        the angle, within half a bin's width.
    """
    width = 2 * math.pi / bins
    turned = torch.remainder(angles + width / 2, 2 * math.pi)
    index = (turned / width).floor().long().clamp(max=bins - 1)
    return index, turned - (index * width + width / 2)
