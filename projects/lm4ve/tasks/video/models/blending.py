"""Mixup and CutMix as in VideoMAE's recipe: a clip's partner follows from its place.

mmaction2 draws the partners. VideoMAE reverses the batch (``mixup.py`` of MCG-NJU/VideoMAE),
so that with an even number of clips none is mixed with itself.
"""

from mmaction.models.utils.blending_utils import CutmixBlending, MixupBlending
from torch import Tensor

from lm4ve.registry import MODELS


@MODELS.register_module()
class ReversedMixup(MixupBlending):
    """Mixup of each clip with the one that is as far from the batch's other end.

    Args:
        num_classes (int): How many classes there are.
        alpha (float): Both parameters of the beta distribution that the share is drawn
            from.
    """

    def do_blending(self, imgs: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Mix clips and labels.

        Args:
            imgs (Tensor): Float ``[B, N, C, T, H, W]`` or ``[B, N, C, H, W]``.
            label (Tensor): One-hot labels ``[B, classes]``.

        Returns:
            tuple[Tensor, Tensor]: Both, mixed.
        """
        share = self.beta.sample()
        return _mix(imgs, share), _mix(label, share)


@MODELS.register_module()
class ReversedCutmix(CutmixBlending):
    """CutMix of each clip with the one that is as far from the batch's other end.

    Args:
        num_classes (int): How many classes there are.
        alpha (float): Both parameters of the beta distribution that the kept area is
            drawn from.
    """

    def do_blending(self, imgs: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Put a box of the partner into each clip, and mix the labels by its area.

        Arguments and results are those of :class:`ReversedMixup`.
        """
        left, top, right, bottom = self.rand_bbox(imgs.shape, self.beta.sample())
        mixed = imgs.clone()
        partners = imgs.flip(0)
        mixed[..., top:bottom, left:right] = partners[..., top:bottom, left:right]
        height, width = imgs.shape[-2:]
        # The box may have been cut at the border.
        share = 1 - (right - left) * (bottom - top) / (height * width)
        return mixed, _mix(label, share)


def _mix(values: Tensor, share: Tensor) -> Tensor:
    """Return a share of each entry of a batch and the rest of its partner."""
    return share * values + (1 - share) * values.flip(0)
