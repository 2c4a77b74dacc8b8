"""A plain ViT that segments volumes: MedVisionLlama's (arXiv 2410.02458) without and with a block.

The block stands before the layers, on the embedded patches, and positions are added
after it: that is ``LLMBlockInsert(after='embed')`` around the backbone. A linear layer
turns each token into the voxels of its patch.
"""

import math
from collections.abc import Sequence

import torch
from mmengine.model import BaseModel, BaseModule
from torch import Tensor, nn

from llm4seg.structures import VolumeDataSample
from lm4ve.errors import UserError, check, require
from lm4ve.registry import MODELS


class Layer(nn.Module):
    """A pre-norm transformer layer ``[B, N, C] -> [B, N, C]``; its MLP is four times as wide."""

    def __init__(self, embed_dims: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(embed_dims)
        self.ln2 = nn.LayerNorm(embed_dims)
        self.attn = nn.MultiheadAttention(
            embed_dims, num_heads, dropout, batch_first=True
        )
        self.mlp = nn.Sequential(
            nn.Linear(embed_dims, 4 * embed_dims),
            nn.GELU(),
            nn.Linear(4 * embed_dims, embed_dims),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Run the layer."""
        normed = self.ln1(x)
        attended, _ = self.attn(normed, normed, normed, need_weights=False)
        x = x + attended
        return x + self.mlp(self.ln2(x))


@MODELS.register_module()
class VolumeViT(BaseModule):
    """Encode volumes ``[B, in_channels, H, W, D]`` to tokens ``[B, N, embed_dims]``.

    Args:
        image_size (Sequence[int]): H, W and D, multiples of the patch's.
        patch_size (Sequence[int]): Sides of a patch.
        in_channels (int): Channels of the volumes.
        embed_dims (int): Width of the tokens.
        depth (int): Number of layers.
        num_heads (int): Heads of their attention.
        dropout (float): In attention and after the MLP.
        init_cfg (dict, optional): Passed to MMEngine's ``BaseModule``. Default:
            PyTorch's own initialization and positions from a normal distribution, as in
            the released code.

    Raises:
        UserError: The patches do not divide the volume, or another volume comes in.
    """

    def __init__(
        self,
        image_size: Sequence[int] = (128, 128, 128),
        patch_size: Sequence[int] = (8, 8, 8),
        in_channels: int = 1,
        embed_dims: int = 64,
        depth: int = 16,
        num_heads: int = 4,
        dropout: float = 0.2,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        num_patches = 1
        for axis, (size, patch) in enumerate(zip(image_size, patch_size, strict=True)):
            require(
                size % patch == 0,
                f'backbone.image_size[{axis}]={size} is no multiple of patch_size={patch}.',
            )
            num_patches *= size // patch
        #: The shape of an input.
        self.shape = (in_channels, *image_size)
        self.patch_size = tuple(patch_size)
        self.embed = nn.Linear(in_channels * math.prod(patch_size), embed_dims)
        self.pos_embed = nn.Parameter(torch.randn(1, num_patches, embed_dims))
        self.layers = nn.ModuleList(
            Layer(embed_dims, num_heads, dropout) for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Cut volumes ``[B, in_channels, H, W, D]`` into patches, and encode these.

        Returns:
            Tensor: ``[B, N, embed_dims]``, a token for each patch.
        """
        if x.shape[1:] != self.shape:
            raise UserError(
                f'The model takes volumes [B, C, H, W, D] of {list(self.shape)}, got '
                f'{list(x.shape)}. Fix: in_channels and image_size of the backbone, or the '
                'Resized of the pipelines.'
            )
        # [B, C, h, ph, w, pw, d, pd]
        for axis, patch in zip((2, 4, 6), self.patch_size, strict=True):
            x = x.unflatten(axis, (-1, patch))
        # [B, h, w, d, C, ph, pw, pd]
        x = x.permute(0, 2, 4, 6, 1, 3, 5, 7)
        x = self.embed(x.flatten(4).flatten(1, 3))
        x = x + self.pos_embed
        for layer in self.layers:
            x = layer(x)
        return x


@MODELS.register_module()
class VolumeSegmentor(BaseModel):
    """Segment volumes.

    Args:
        backbone (dict): Config of :class:`VolumeViT`, or of ``LLMBlockInsert`` around
            one.
        num_classes (int): Classes with the background. Two of them are one channel and
            a sigmoid.
        loss (dict): ``name`` of a loss of ``monai.losses`` and its arguments, or the
            ``type`` of another loss, such as :class:`llm4seg.DiceBCELoss`.
            Default: soft Dice and cross-entropy, smoothed by one and over the batch as
            a whole.
        data_preprocessor (dict, optional): Default: MMEngine's, which moves and casts.
        **kwargs: Passed to MMEngine's ``BaseModel``.
    """

    def __init__(
        self,
        backbone: dict,
        num_classes: int = 2,
        loss: dict = dict(name='DiceCELoss', batch=True, smooth_nr=1.0, smooth_dr=1.0),
        data_preprocessor: dict | None = None,
        **kwargs,
    ) -> None:
        super().__init__(data_preprocessor, **kwargs)
        check('model.num_classes', num_classes, least=2)
        self.num_classes = num_classes
        self.backbone = MODELS.build(backbone)
        # Of two classes the second one's logit is enough.
        self.is_binary = num_classes == 2
        channels = 1 if self.is_binary else num_classes
        logits_a_patch = channels * math.prod(self.backbone.patch_size)
        embed_dims = self.backbone.pos_embed.shape[-1]
        self.head = nn.Linear(embed_dims, logits_a_patch)
        defaults = dict(type='lm4ve.MonaiLoss', num_classes=num_classes)
        self.loss = MODELS.build({**defaults, **loss})

    def forward(
        self, inputs: Tensor | list[Tensor], data_samples=None, mode: str = 'tensor'
    ):
        """Compute logits, and of them what the mode asks for.

        Args:
            inputs (Tensor | list[Tensor]): ``[B, C, H, W, D]``, or a list of B.
            data_samples (list[VolumeDataSample], optional): With ``gt_seg`` for 'loss'.
            mode (str): 'loss' gives a dict of losses, 'predict' the samples with
                predictions, 'tensor' (or anything else) the logits ``[B, channels, H,
                W, D]``; there is one channel for two classes.
        """
        if isinstance(inputs, list):
            inputs = torch.stack(inputs)
        for sample in data_samples or ():
            self._check_labels(sample)
        tokens = self.backbone(inputs)
        # The head turns each token into the logits of its patch's voxels.
        logits = self.fold(self.head(tokens))
        if mode == 'loss':
            labels = torch.stack([sample.gt_seg for sample in data_samples])
            # MONAI's losses take a channel, and floats beside a sigmoid.
            truth = labels[:, None]
            if self.is_binary:
                truth = truth.float()
            return dict(loss=self.loss(logits, truth))
        if mode == 'predict':
            return self._predict(logits, data_samples)
        return logits

    def _check_labels(self, sample: VolumeDataSample) -> None:
        """Refuse labels that are no class: a sigmoid would learn any number."""
        if 'gt_seg' not in sample:
            return
        highest = sample.get('highest_label')
        if highest is None:
            # A sample that PackVolume did not make.
            highest = int(sample.gt_seg.max())
        check('labels with model.num_classes', highest, most=self.num_classes - 1)

    def _predict(
        self, logits: Tensor, data_samples: list[VolumeDataSample] | None
    ) -> list[VolumeDataSample]:
        """Return the samples, or new ones, with the class of each voxel."""
        if self.is_binary:
            labels = (logits[:, 0] > 0).long()
        else:
            labels = logits.argmax(1)
        if not data_samples:
            data_samples = [VolumeDataSample() for _ in range(len(labels))]
        for sample, label in zip(data_samples, labels, strict=True):
            sample.pred_seg = label
            sample.set_metainfo(dict(num_classes=self.num_classes))
        return data_samples

    def fold(self, patches: Tensor) -> Tensor:
        """Put patches back in their places: tokens become a volume.

        ``[B, N, channels * ph * pw * pd] -> [B, channels, H, W, D]``, where ph, pw and pd
        are the sides of a patch.
        """
        _, *size = self.backbone.shape
        patch_size = self.backbone.patch_size
        grid = [side // patch for side, patch in zip(size, patch_size, strict=True)]
        # [B, h, w, d, C, ph, pw, pd]
        x = patches.unflatten(-1, (-1, *patch_size)).unflatten(1, grid)
        # [B, C, h, ph, w, pw, d, pd]
        x = x.permute(0, 4, 1, 5, 2, 6, 3, 7)
        return x.reshape(x.shape[0], -1, *size)
