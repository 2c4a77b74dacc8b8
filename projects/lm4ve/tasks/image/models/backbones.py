"""Encoders of mmpretrain that begin as released, or end without their final norm.

A block comes before the final norm.
"""

from collections.abc import Sequence

from mmpretrain.models import ConvNeXt, VisionTransformer
from torch import nn

from lm4ve.registry import MODELS


@MODELS.register_module()
class ReleasedViT(VisionTransformer):
    """A ViT whose initial weights are those of DeiT, and of the paper's release.

    They are what the model's ``init_cfg`` says, in all layers. Those of mmpretrain's ViT
    begin otherwise: after any ``init_cfg``, each draws Xavier weights for its FFN. The
    class token is close to zero. Takes the arguments of mmpretrain's ``VisionTransformer``.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if self.cls_token is not None:
            nn.init.normal_(self.cls_token, std=1e-6)
        for layer in self.layers:
            layer.is_init = True  # MMEngine skips the layer's own initializer.


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


@MODELS.register_module()
def WithoutNorms(backbone: dict | nn.Module, norms: Sequence[str]) -> nn.Module:
    """Build a backbone and remove norms that no argument turns off.

    The block's place is before the final norm, which the neck then applies.

    Args:
        backbone (dict | nn.Module): The encoder. It stays the class that it is.
        norms (Sequence[str]): Names of submodules that become the identity, for example
            ('norm3',).

    Raises:
        AttributeError: A name is no submodule.
    """
    encoder = backbone if isinstance(backbone, nn.Module) else MODELS.build(backbone)
    for name in norms:
        removed = encoder.get_submodule(name)
        # The neck's norm starts from it. By vars(), since it is no part of the encoder.
        vars(encoder)['removed_norm'] = removed.state_dict()
        parent, _, leaf = name.rpartition('.')
        setattr(encoder.get_submodule(parent), leaf, nn.Identity())
    return encoder
