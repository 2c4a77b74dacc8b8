"""Encoders of mmaction2 without their final norm, so that a block can come before it."""

from mmaction.models.backbones import SwinTransformer3D
from torch import nn

from lm4ve.registry import MODELS


@MODELS.register_module()
class RawSwinTransformer3D(SwinTransformer3D):
    """mmaction2's Video Swin whose output maps are not normed.

    The block's place is before the final norm, which the neck then applies; the
    host's ``norm_cfg=None`` would remove the norms of the blocks as well.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        for i in self.out_indices:
            setattr(self, f'norm{i}', nn.Identity())
