"""A patch embedding of small convolutions, with which small vision transformers learn sooner."""

from collections.abc import Sequence

from mmengine.utils import to_2tuple
from torch import nn

from lm4ve.errors import UserError
from lm4ve.registry import MODELS


@MODELS.register_module()
class ConvStem(nn.Sequential):
    """Convolutions of 3 x 3 pixels, each of stride 2, then one of 1 x 1.

    Takes the place of the one large convolution that embeds patches, with arguments like
    it, for example in mmpretrain's ``VisionTransformer(patch_cfg=dict(
    conv_type='lm4ve.ConvStem'))``. Channels double from layer to layer. Source: Xiao et
    al., "Early Convolutions Help Transformers See Better", arXiv 2106.14881, section 4;
    with group norms in the place of batch norms, so that nothing depends on the batch or
    on the process that sees it.

    Args:
        in_channels (int): Channels of the image.
        out_channels (int): C.
        kernel_size (int | Sequence[int]): Pixels a side of a patch, a power of two.
        stride (int | Sequence[int]): The same.
        **kwargs: ``padding``, ``dilation`` and ``bias`` of the convolution that it
            replaces; patches do not overlap, so the first two must be as they are there.

    Raises:
        UserError: Patches overlap, or their side is no power of two.

    Images ``[B, in_channels, H, W]`` become ``[B, C, H / side, W / side]``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int],
        **kwargs: object,
    ) -> None:
        sides = {*to_2tuple(kernel_size), *to_2tuple(stride)}
        side, count = max(sides), max(sides).bit_length() - 1
        overlaps = to_2tuple(kwargs.get('padding', 0)) != (0, 0) or len(sides) > 1
        if overlaps or 2**count != side or count < 1:
            raise UserError(
                f'lm4ve.ConvStem: patches of kernel_size={kernel_size}, stride={stride} must not '
                'overlap, and have a side of 2, 4, 8 or another power of two.'
            )
        layers: list[nn.Module] = []
        for i in range(count):
            width = max(16, out_channels >> (count - 1 - i)) if i < count - 1 else out_channels
            groups = next(g for g in range(max(1, width // 8), 0, -1) if width % g == 0)
            layers += [
                nn.Conv2d(in_channels, width, 3, stride=2, padding=1, bias=False),
                nn.GroupNorm(groups, width),
                nn.GELU(),
            ]
            in_channels = width
        super().__init__(*layers, nn.Conv2d(in_channels, out_channels, 1))
