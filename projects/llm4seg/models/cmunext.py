"""CMUNeXt, a light U-shaped network, as a backbone and a decode head of mmsegmentation.

LLM4Seg (arXiv 2506.18034) puts a frozen layer of a language model into its bottleneck.
Here that is ``LLMBlockInsert(after='encoder5')`` around the backbone, and both halves
stay what they are.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

from lm4ve.registry import MODELS


def _conv_gelu_norm(conv: nn.Conv2d) -> list[nn.Module]:
    """Return a convolution, GELU and batch norm, in the order of the paper."""
    return [conv, nn.GELU(), nn.BatchNorm2d(conv.out_channels)]


def _conv_norm_relu(channels: int, out: int) -> list[nn.Module]:
    """Return a 3 x 3 convolution that keeps the size, batch norm and ReLU."""
    return [
        nn.Conv2d(channels, out, 3, padding=1),
        nn.BatchNorm2d(out),
        nn.ReLU(inplace=True),
    ]


def _inverted_bottleneck(channels: int, hidden: int, out: int) -> list[nn.Module]:
    """Return two pointwise convolutions, to many channels and back, each with GELU and norm."""
    widen = nn.Conv2d(channels, hidden, 1)
    narrow = nn.Conv2d(hidden, out, 1)
    return [*_conv_gelu_norm(widen), *_conv_gelu_norm(narrow)]


class LargeKernelBlock(nn.Module):
    """``depth`` depthwise convolutions with a large kernel, each with an inverted bottleneck.

    ``[B, C, H, W] -> [B, out, H, W]``.

    Args:
        channels (int): C.
        out (int): Channels of the output.
        depth (int): How many.
        kernel (int): Side of the depthwise kernels.
    """

    def __init__(self, channels: int, out: int, depth: int, kernel: int) -> None:
        super().__init__()
        self.spatial = nn.ModuleList()
        self.pointwise = nn.ModuleList()
        for _ in range(depth):
            depthwise = nn.Conv2d(
                channels, channels, kernel, padding=kernel // 2, groups=channels
            )
            self.spatial.append(nn.Sequential(*_conv_gelu_norm(depthwise)))
            bottleneck = _inverted_bottleneck(channels, 4 * channels, channels)
            self.pointwise.append(nn.Sequential(*bottleneck))
        # The released code's name; it changes the channels, not the size.
        self.up = nn.Sequential(*_conv_norm_relu(channels, out))

    def forward(self, x: Tensor) -> Tensor:
        """Run the layers, then the convolution to ``out`` channels.

        Only the depthwise half of a layer has a residual connection, as in the paper.
        """
        for spatial, pointwise in zip(self.spatial, self.pointwise, strict=True):
            x = pointwise(spatial(x) + x)
        return self.up(x)


@MODELS.register_module()
class CMUNeXt(BaseModule):
    """The encoder of CMUNeXt (arXiv 2308.01239): five maps, the last of 1/16 of the side.

    Args:
        in_channels (int): Channels of the pictures.
        dims (Sequence[int]): Channels of the five maps.
        depths (Sequence[int]): Layers of each stage.
        kernels (Sequence[int]): Side of the depthwise kernels of each stage.
        input_scale (float): A factor of the pixels. 1 / 255 is what LLM4Seg's code
            comes to, which divides normalized pixels by 255 once more
            (``dataloader/dataset.py:48``).
        init_cfg (dict, optional): Passed to MMEngine's ``BaseModule``. Default:
            PyTorch's own initialization, as in the released code.

    Attributes:
        input_scale (Tensor): The factor. It is part of a checkpoint, whose batch norms
            fit no other one, and the checkpoint's replaces the config's.
    """

    input_scale: Tensor

    def __init__(
        self,
        in_channels: int = 3,
        dims: Sequence[int] = (16, 32, 128, 160, 256),
        depths: Sequence[int] = (1, 1, 1, 3, 1),
        kernels: Sequence[int] = (3, 3, 7, 7, 7),
        input_scale: float = 1.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.register_buffer('input_scale', torch.tensor(float(input_scale)))
        self.stem = nn.Sequential(*_conv_norm_relu(in_channels, dims[0]))
        #: The names of the stages' attributes, in order.
        self.stages = []
        channels = dims[0]
        sizes = zip(dims, depths, kernels, strict=True)
        for number, (out, depth, kernel) in enumerate(sizes, start=1):
            # Checkpoints have these names, and LLMBlockInsert finds a stage by its own.
            name = f'encoder{number}'
            setattr(self, name, LargeKernelBlock(channels, out, depth, kernel))
            self.stages.append(name)
            channels = out

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Encode ``[B, in_channels, H, W]``: five maps of sides 1, 1/2, 1/4, 1/8 and 1/16.

        H and W are multiples of 16.
        """
        maps = [self.encoder1(self.stem(x * self.input_scale))]
        for name in self.stages[1:]:
            encoder = getattr(self, name)
            half = F.max_pool2d(maps[-1], 2)
            maps.append(encoder(half))
        return tuple(maps)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *others: Any
    ) -> None:
        """Load a state; a whole one of before there was a factor had the factor 1."""
        if f'{prefix}stem.0.weight' in state_dict:
            state_dict.setdefault(f'{prefix}input_scale', torch.tensor(1.0))
        super()._load_from_state_dict(state_dict, prefix, *others)


@MODELS.register_module()
class CMUNeXtHead(BaseDecodeHead):
    """The decoder of CMUNeXt: each map is doubled in size and fused with the one before it.

    Args:
        in_channels (Sequence[int]): Channels of the encoder's five maps.
        **kwargs: Passed to mmsegmentation's ``BaseDecodeHead``, for example
            ``num_classes=2, out_channels=1, threshold=0.5`` for one lesion.
    """

    def __init__(self, in_channels: Sequence[int], **kwargs) -> None:
        kwargs.setdefault('in_index', list(range(len(in_channels))))
        kwargs.setdefault('input_transform', 'multiple_select')
        # The original has no dropout.
        kwargs.setdefault('dropout_ratio', 0)
        kwargs.setdefault('init_cfg', None)
        kwargs['in_channels'] = list(in_channels)
        kwargs['channels'] = in_channels[0]
        super().__init__(**kwargs)
        self.ups = nn.ModuleList()
        self.fusions = nn.ModuleList()
        # From the deepest map to the first one.
        from_deepest = list(in_channels)[::-1]
        for deep, shallow in itertools.pairwise(from_deepest):
            up = nn.Upsample(scale_factor=2, mode='bilinear')
            self.ups.append(nn.Sequential(up, *_conv_norm_relu(deep, shallow)))
            # One group for the encoder's map, one for the map from below.
            grouped = nn.Conv2d(2 * shallow, 2 * shallow, 3, padding=1, groups=2)
            bottleneck = _inverted_bottleneck(2 * shallow, 4 * shallow, shallow)
            self.fusions.append(nn.Sequential(*_conv_gelu_norm(grouped), *bottleneck))

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Decode the encoder's maps to logits ``[B, out_channels, H, W]``."""
        *skips, x = self._transform_inputs(inputs)
        skips.reverse()
        for up, fusion, skip in zip(self.ups, self.fusions, skips, strict=True):
            x = torch.cat((skip, up(x)), dim=1)
            x = fusion(x)
        return self.cls_seg(x)


@MODELS.register_module()
class BinaryDiceLoss(nn.Module):
    """One minus the soft Dice of one foreground class, averaged over the pictures of a batch.

    mmsegmentation's own ``DiceLoss`` takes class 0 for the foreground where there is
    one channel.

    Args:
        loss_weight (float): Weight of the loss.
        smooth (float): Added to numerator and denominator.
        loss_name (str): Name in the log.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        smooth: float = 1e-5,
        loss_name: str = 'loss_dice',
    ) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.smooth = smooth
        self.loss_name = loss_name

    def forward(
        self, logits: Tensor, labels: Tensor, weight=None, ignore_index: int = 255, **_
    ) -> Tensor:
        """Compute the loss.

        Args:
            logits (Tensor): ``[B, 1, H, W]``.
            labels (Tensor): int64 ``[B, H, W]``, 0 or 1.
            weight, **_: Not used; mmsegmentation passes them to every loss.
            ignore_index (int): The label of pixels that do not count.
        """
        is_labeled = (labels != ignore_index).flatten(1)
        probabilities = logits.float().sigmoid().flatten(1) * is_labeled
        truth = (labels == 1).flatten(1) * is_labeled
        overlap = (probabilities * truth).sum(1)
        total = probabilities.sum(1) + truth.sum(1)
        dice = (2 * overlap + self.smooth) / (total + self.smooth)
        return self.loss_weight * (1 - dice).mean()
