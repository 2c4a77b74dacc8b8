"""Encoders of mmpretrain that norm their output too early for a block to follow."""

from mmpretrain.models import ConvNeXt
from torch import nn

from lm4ve.registry import MODELS


@MODELS.register_module()
class RawConvNeXt(ConvNeXt):
    """A ConvNeXt whose output maps are not normed.

    mmpretrain's ConvNeXt always norms (and by default pools) its last map; the
    block's place is before that norm, which the neck then applies
    (``out_type='avg_featmap'`` pools first, as ConvNeXt does). The norm's
    weights ``norm{i}`` of a checkpoint become the neck's.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.gap_before_final_norm = False
        for i in self.out_indices:
            setattr(self, f'norm{i}', nn.Identity())
