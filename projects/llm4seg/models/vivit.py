"""ViViT with factorized encoders, in the form that LLMBoostMedical classifies volumes with."""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from lm4ve.errors import UserError, check, require
from lm4ve.registry import MODELS


class Attention(nn.Module):
    """Pre-norm self-attention whose heads have a width of their own: ``[B, N, C] -> [B, N, C]``."""

    def __init__(self, dims: int, heads: int, head_dims: int) -> None:
        """Build the layers for tokens of width ``dims``; all heads are ``head_dims`` wide."""
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dims)
        self.qkv = nn.Linear(dims, 3 * heads * head_dims, bias=False)
        self.out = nn.Linear(heads * head_dims, dims)

    def forward(self, x: Tensor) -> Tensor:
        """Attend; the caller adds the residual connection."""
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
        attended = nn.functional.scaled_dot_product_attention(
            self._split_heads(q), self._split_heads(k), self._split_heads(v)
        )
        return self.out(attended.transpose(1, 2).flatten(2))

    def _split_heads(self, x: Tensor) -> Tensor:
        """Give each head its part: ``[B, N, heads * head_dims] -> [B, heads, N, head_dims]``."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Encoder(nn.Module):
    """``depth`` layers and a final norm: ``[B, N, C] -> [B, N, C]``."""

    def __init__(
        self, dims: int, depth: int, heads: int, head_dims: int, hidden: int
    ) -> None:
        """Build the layers for tokens of width ``dims``; their MLPs are ``hidden`` wide."""
        super().__init__()
        self.attentions = nn.ModuleList(
            Attention(dims, heads, head_dims) for _ in range(depth)
        )
        self.mlps = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(dims),
                nn.Linear(dims, hidden),
                nn.GELU(),
                nn.Linear(hidden, dims),
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dims)

    def forward(self, x: Tensor) -> Tensor:
        """Run the layers."""
        for attention, mlp in zip(self.attentions, self.mlps, strict=True):
            x = attention(x) + x
            x = mlp(x) + x
        return self.norm(x)


@MODELS.register_module()
class ViViT(BaseModule):
    """Encode volumes or clips: first within slabs of slices, then across them.

    ``[B, in_channels, D, H, W]`` becomes ``[B, embed_dims]``, the class token, in a
    tuple.

    Args:
        image_size (int): H and W.
        frames (int): D.
        patch_size (int): Side of a patch.
        frame_patch_size (int): Slices of a slab.
        in_channels (int): Channels.
        embed_dims (int): Width of the tokens.
        depth (int): Layers of each of the two encoders.
        num_heads (int): Heads of their attention.
        head_dims (int): Width of a head.
        hidden_dims (int, optional): Width of the MLPs. Default: ``embed_dims``.
        out_type (str): 'cls_token', or 'raw' for a neck: ``[B, 1 + slabs,
            embed_dims]``, of which token 0 is the class token.
        init_cfg (dict, optional): Passed to MMEngine's ``BaseModule``. Default:
            PyTorch's own, and positions and class tokens from a normal distribution, as
            in the released code.

    Raises:
        UserError: Patches do not divide the volume, or another volume comes in.
    """

    def __init__(
        self,
        image_size: int = 28,
        frames: int = 28,
        patch_size: int = 4,
        frame_patch_size: int = 4,
        in_channels: int = 3,
        embed_dims: int = 1024,
        depth: int = 8,
        num_heads: int = 8,
        head_dims: int = 64,
        hidden_dims: int | None = None,
        out_type: str = 'cls_token',
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        require(
            image_size % patch_size == 0,
            f'backbone.image_size={image_size} is no multiple of patch_size={patch_size}.',
        )
        require(
            frames % frame_patch_size == 0,
            f'backbone.frames={frames} is no multiple of frame_patch_size={frame_patch_size}.',
        )
        check('backbone.out_type', out_type, choices=('cls_token', 'raw'))
        self.out_type = out_type
        #: The shape of an input, and the sides of a patch in it.
        self.shape = (in_channels, frames, image_size, image_size)
        self.sides = (frame_patch_size, patch_size, patch_size)
        voxels = in_channels * frame_patch_size * patch_size**2
        slabs = frames // frame_patch_size
        patches = (image_size // patch_size) ** 2
        self.embed = nn.Sequential(
            nn.LayerNorm(voxels),
            nn.Linear(voxels, embed_dims),
            nn.LayerNorm(embed_dims),
        )
        self.pos_embed = nn.Parameter(torch.randn(1, slabs, patches, embed_dims))
        #: The first token of the encoder `across`, which stands for the volume.
        self.cls_token = nn.Parameter(torch.randn(1, 1, embed_dims))
        #: The first token of the encoder `within`, which stands for a slab.
        self.slab_token = nn.Parameter(torch.randn(1, 1, embed_dims))
        if hidden_dims is None:
            hidden_dims = embed_dims
        sizes = (embed_dims, depth, num_heads, head_dims, hidden_dims)
        #: Reads the patches of one slab.
        self.within = Encoder(*sizes)
        #: Reads one token for each slab.
        self.across = Encoder(*sizes)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Encode volumes ``[B, C, D, H, W]``.

        Returns:
            tuple[Tensor]: The class token ``[B, embed_dims]``, or with 'raw' all tokens
            of the second encoder ``[B, 1 + slabs, embed_dims]``.
        """
        if x.shape[1:] != self.shape:
            raise UserError(
                f'ViViT takes volumes [B, C, D, H, W] of {list(self.shape)}, got {list(x.shape)}. '
                'Fix: in_channels, frames and image_size of the backbone.'
            )
        # [B, slabs, patches, C]
        tokens = self.embed(self._cut(x)) + self.pos_embed
        num_slabs = tokens.shape[1]
        # Each slab by itself, as if it were a sample.
        tokens = _with_first(self.slab_token, tokens.flatten(0, 1))
        slabs = self.within(tokens)[:, 0].unflatten(0, (-1, num_slabs))
        x = self.across(_with_first(self.cls_token, slabs))
        if self.out_type == 'raw':
            return (x,)
        return (x[:, 0],)

    def _cut(self, x: Tensor) -> Tensor:
        """Cut volumes into patches, ``[B, C, D, H, W] -> [B, slabs, patches, voxels]``."""
        for axis, side in enumerate(self.sides, start=2):
            x = x.unfold(axis, side, side)
        # From [B, C, f, h, w, pf, ph, pw]: the channels of a voxel are next to each
        # other.
        x = x.permute(0, 2, 3, 4, 6, 7, 5, 1)
        return x.flatten(4).flatten(2, 3)


def _with_first(token: Tensor, tokens: Tensor) -> Tensor:
    """Put a token ``[1, 1, C]`` before those of each sample ``[B, N, C]``."""
    first = token.expand(tokens.shape[0], -1, -1)
    return torch.cat((first, tokens), dim=1)
