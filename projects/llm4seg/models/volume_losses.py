"""The losses of volumes: MONAI's by name, and MedVisionLlama's.

Each is called with logits ``[B, channels, H, W, D]`` and labels ``[B, 1, H, W, D]``,
which are floats where there is one channel for two classes.
"""

import inspect
from typing import Any

import monai.losses
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lm4ve.errors import build_from, check, require
from lm4ve.registry import MODELS


@MODELS.register_module()
def MonaiLoss(name: str, num_classes: int, **options: Any) -> nn.Module:
    """Build a loss of MONAI for the logits of some classes.

    Args:
        name (str): Its class in ``monai.losses``.
        num_classes (int): Classes with the background.
        **options: Its arguments.

    Raises:
        UserError: There is no such loss, or it has no such argument.
    """
    class_names = []
    for known_name, value in vars(monai.losses).items():
        if inspect.isclass(value):
            class_names.append(known_name)
    check('model.loss.name', name, choices=class_names)
    if num_classes == 2:
        defaults = dict(sigmoid=True)
    else:
        defaults = dict(softmax=True, to_onehot_y=True)
    return build_from(
        getattr(monai.losses, name), {**defaults, **options}, 'model.loss'
    )


@MODELS.register_module()
class DiceBCELoss(nn.Module):
    """Half the cross-entropy of each voxel and half the Dice loss of the batch, for two classes.

    Cross-entropy is computed of probabilities, as MedVisionLlama's code does: a voxel
    whose probability rounds to 0 or 1 costs at most 100 and has no gradient.

    Args:
        num_classes (int): Two.
        threshold (float, optional): Dice compares the voxels whose probability is above
            it with the label. Such a Dice has **no gradient**: it is a number in the
            log, and only half the cross-entropy trains. Default: of the probabilities
            themselves.
        smooth (float): Added to both sides of Dice's fraction.
    """

    def __init__(
        self, num_classes: int, threshold: float | None = None, smooth: float = 1.0
    ) -> None:
        super().__init__()
        require(
            num_classes == 2,
            f'model.num_classes={num_classes}: DiceBCELoss has one output, for one structure '
            'and the background. Fix: model.num_classes=2, or another loss.',
        )
        check('model.loss.threshold', threshold, kind=(int, float, type(None)))
        self.threshold = threshold
        self.smooth = smooth

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of logits and of labels 0 and 1, both ``[B, 1, H, W, D]``."""
        # Logarithms of 16-bit probabilities are too coarse, and PyTorch refuses them.
        with torch.autocast(logits.device.type, enabled=False):
            dtype = torch.promote_types(logits.dtype, torch.float32)
            probabilities = logits.to(dtype).sigmoid()
            truth = labels.to(probabilities)
            cross_entropy = F.binary_cross_entropy(probabilities, truth)
        found = probabilities
        if self.threshold is not None:
            found = (probabilities > self.threshold).to(truth)
        both = (found * truth).sum()
        dice = (2 * both + self.smooth) / (found.sum() + truth.sum() + self.smooth)
        return 0.5 * cross_entropy + 0.5 * (1 - dice)
