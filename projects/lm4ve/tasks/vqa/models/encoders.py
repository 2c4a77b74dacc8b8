"""Image and text encoders of transformers and timm, which give tokens ``[B, N, C]``.

CLIP is used as METER uses it (arXiv 2111.02387, section 3.1): without its last block,
with its final norm on every token, and with a position grid that is resized
bicubically when weights of another image size are loaded.
"""

import inspect
import logging
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmengine.utils import to_2tuple
from torch import Tensor, nn
from transformers import AutoModel

from lm4ve.errors import UserError, check
from lm4ve.registry import MODELS
from lm4ve.tasks.base.language.pretrained import (
    build_bare,
    build_config,
    load_weights,
    portable_fields,
    read_model_config,
)

_IMAGE_FAMILIES = ('clip', 'clip_vision_model', 'siglip', 'siglip_vision_model')
InitCfg = dict | Sequence[dict] | None


class _Encoder(BaseModule):
    """An encoder that may be frozen, and loads pre-trained weights when training starts.

    Args:
        frozen (bool): No parameter trains, dropout and the like stay off.
        init_cfg (dict | list, optional): Passed to MMEngine's ``BaseModule``.
    """

    #: Where the encoder stands in the config.
    field = ''

    def __init__(self, frozen: bool, init_cfg: InitCfg) -> None:
        super().__init__(init_cfg)
        self.frozen = frozen

    def _read(self, checkpoint: str | None, config: dict | None, pretrained: bool) -> Any:
        """Return the configuration of ``transformers``; keep where the weights are."""
        fields, files = read_model_config(checkpoint, config, self.field)
        self._files = files if pretrained else None
        return build_config(fields, self.field)

    def _use(self, model: nn.Module, with_cp: bool = False) -> None:
        """Set the encoder's model, frozen and with recomputed blocks where that is wanted."""
        self.model = model
        if with_cp:
            model.gradient_checkpointing_enable(dict(use_reentrant=False))
        if self.frozen:
            self.requires_grad_(False)
            self.train(False)

    def train(self, mode: bool = True) -> '_Encoder':
        """Switch to training; a frozen encoder stays as in a test."""
        return super().train(mode and not self.frozen)

    def init_weights(self) -> None:
        """Load the pre-trained weights, once. Random ones stay as they are."""
        if not self._is_init:
            self._load_pretrained()
            self._is_init = True

    def _load_pretrained(self) -> None:
        if self._files is not None:
            load_weights(self.model, self._files, self.field, self._adapt)

    @staticmethod
    def _adapt(name: str, stored: Tensor, own: Tensor) -> Tensor:
        """Return a stored weight whose shape differs, resized if it is a position table."""
        return resize_grid(stored, len(own)) if 'position_embedding.' in name else stored

    @classmethod
    def portable(cls, node: dict) -> dict:
        """See :func:`portable_fields`."""
        return portable_fields(node, cls.field, vision='image' in cls.field)

    def _grad(self) -> torch.set_grad_enabled:
        """Return a context without gradients for a frozen encoder."""
        return torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen)


@MODELS.register_module()
class TransformersImageEncoder(_Encoder):
    """The vision transformer of CLIP or SigLIP, from ``transformers``.

    Args:
        checkpoint (str, optional): A local folder, ``package:<name>`` or a hub id. Its
            ``config.json`` is read at once, its weights by :meth:`init_weights`.
        config (dict, optional): Instead: fields with ``model_type``, for random weights.
        pretrained (bool): False gives the checkpoint's shape with random weights.
        image_size (int, optional): Height and width of the images in pixels; default:
            as in pre-training. Positions of other sizes are resized when loaded.
        drop_layers (int): How many of the last blocks are left out; METER drops one.
        head_token (bool): Put the output of SigLIP's own pooling head before the tokens, as
            a class token. CLIP has a class token and takes no such head.
        frozen (bool): No parameter trains.
        with_cp (bool): Recompute blocks in the backward pass instead of storing
            activations.
        init_cfg (dict | list, optional): Passed to MMEngine's ``BaseModule``.

    Attributes:
        embed_dims (int): C.
        num_prefix_tokens (int): Tokens before the grid: 1 with a class token, else 0.
        grid_size (int): Patches a side.

    Raises:
        UserError: The model is of another family, or a size is impossible.
    """

    field = 'model.image_encoder'

    def __init__(
        self,
        checkpoint: str | None = None,
        config: dict | None = None,
        pretrained: bool = True,
        image_size: int | None = None,
        drop_layers: int = 1,
        head_token: bool = False,
        frozen: bool = False,
        with_cp: bool = False,
        init_cfg: InitCfg = None,
    ) -> None:
        super().__init__(frozen, init_cfg)
        built = self._read(checkpoint, config, pretrained)
        check('model.image_encoder.model_type', built.model_type, choices=_IMAGE_FAMILIES)
        self.is_clip = 'siglip' not in built.model_type
        built = getattr(built, 'vision_config', built)
        if self.is_clip:
            check('model.image_encoder.head_token of CLIP', head_token, choices=(False,))
        else:
            built.vision_use_head = head_token
        most = built.num_hidden_layers - 1
        check('model.image_encoder.drop_layers', drop_layers, kind=int, least=0, most=most)
        built.num_hidden_layers -= drop_layers
        built.image_size = image_size or built.image_size
        if built.image_size % built.patch_size:
            raise UserError(
                f'model.image_encoder.image_size={built.image_size} must be a multiple of the '
                f'{built.patch_size} pixels of a patch.'
            )
        self.head_token = head_token
        self.embed_dims: int = built.hidden_size
        self.image_size: int = built.image_size
        self.grid_size = built.image_size // built.patch_size
        self.num_prefix_tokens = int(self.is_clip or head_token)
        self._use(build_bare(built), with_cp)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *others: Any) -> None:
        """Resize the positions of a checkpoint that was trained at another image size."""
        key = f'{prefix}model.embeddings.position_embedding.weight'
        stored, count = state_dict.get(key), self.grid_size**2 + int(self.is_clip)
        if stored is not None and stored.dim() == 2 and len(stored) != count:
            print_log(
                f"The checkpoint's position grid '{key}' has {len(stored)} rows, this model's "
                f'{count}: resized bicubically.',
                logger='current',
                level=logging.INFO,
            )
            state_dict[key] = resize_grid(stored, count)
        super()._load_from_state_dict(state_dict, prefix, *others)

    def forward(self, images: Tensor) -> Tensor:
        """Encode images.

        Args:
            images (Tensor): float ``[B, 3, H, W]``, normalized.

        Returns:
            Tensor: ``[B, N, C]``, with the class token first if there is one.
        """
        with self._grad():
            out = self.model(pixel_values=images)
            tokens = out.last_hidden_state
            if self.is_clip:
                # SigLIP's has gone through it already.
                tokens = self.model.post_layernorm(tokens)
            if self.head_token:
                tokens = torch.cat((out.pooler_output[:, None], tokens), dim=1)
        return tokens


@MODELS.register_module()
class TimmImageEncoder(_Encoder):
    """Any image model of timm, without its classifier.

    Args:
        model_name (str): timm's name, for example 'vit_small_patch16_224'.
        pretrained (bool): Download the weights that timm knows for this name when training
            starts. They come at the model's image size, resized by timm.
        frozen (bool): No parameter trains.
        init_cfg (dict | list, optional): Passed to MMEngine's ``BaseModule``.
        **options: Passed to ``timm.create_model``, for example ``img_size=224``.

    Attributes:
        embed_dims (int): C.
        num_prefix_tokens (int): Tokens before the grid.
    """

    def __init__(
        self,
        model_name: str,
        pretrained: bool = False,
        frozen: bool = False,
        init_cfg: InitCfg = None,
        **options: Any,
    ) -> None:
        super().__init__(frozen, init_cfg)
        self.pretrained = pretrained
        self._arguments = dict(model_name=model_name, num_classes=0, global_pool='', **options)
        self._use(self._create(pretrained=False))
        self.embed_dims: int = self.model.num_features
        self.num_prefix_tokens: int = getattr(self.model, 'num_prefix_tokens', 0)

    def _create(self, pretrained: bool) -> nn.Module:
        import timm

        return timm.create_model(pretrained=pretrained, **self._arguments)

    def _load_pretrained(self) -> None:
        if self.pretrained:
            self.model.load_state_dict(self._create(pretrained=True).state_dict())

    def forward(self, images: Tensor) -> Tensor:
        """float ``[B, 3, H, W]``, normalized, to tokens ``[B, N, C]``."""
        with self._grad():
            out = self.model.forward_features(images)
        if out.dim() == 4:
            # Convolutions give [B, C, H, W], Swin [B, H, W, C].
            out = out.flatten(1, 2) if out.shape[-1] == self.embed_dims else out.flatten(2).mT
        return out


@MODELS.register_module()
class TransformersTextEncoder(_Encoder):
    """Any text encoder of ``transformers``: RoBERTa, BERT, MiniLM and their kin.

    Args:
        checkpoint (str, optional): A local folder, ``package:<name>`` or a hub id. Its
            ``config.json`` is read at once, its weights by :meth:`init_weights`.
        config (dict, optional): Instead: fields with ``model_type``, for random weights.
        pretrained (bool): False gives the checkpoint's shape with random weights.
        frozen (bool): No parameter trains.
        with_cp (bool): Recompute layers in the backward pass.
        init_cfg (dict | list, optional): Passed to MMEngine's ``BaseModule``.

    Attributes:
        embed_dims (int): C.
        vocab_size (int): Rows of the word embedding.
        max_length (int): The longest text in tokens, special ones included.
        pad_id (int | None): The number of the padding token.
        model_type (str): The family.

    Raises:
        UserError: The model is no encoder of texts.
    """

    field = 'model.text_encoder'

    def __init__(
        self,
        checkpoint: str | None = None,
        config: dict | None = None,
        pretrained: bool = True,
        frozen: bool = False,
        with_cp: bool = False,
        init_cfg: InitCfg = None,
    ) -> None:
        super().__init__(frozen, init_cfg)
        built = self._read(checkpoint, config, pretrained).get_text_config()
        self.model_type: str = built.model_type
        check('model.text_encoder.is_encoder_decoder', built.is_encoder_decoder, choices=(False,))
        # A pooler that nobody reads would stop distributed training.
        parameters = inspect.signature(AutoModel._model_mapping[type(built)].__init__).parameters
        pooler = 'add_pooling_layer' in parameters
        self._use(build_bare(built, **(dict(add_pooling_layer=False) if pooler else {})), with_cp)
        self.embed_dims: int = built.hidden_size
        self.vocab_size: int = built.vocab_size
        self.pad_id: int | None = built.pad_token_id
        self.max_length = built.max_position_embeddings
        if self.model_type in ('roberta', 'xlm-roberta', 'camembert') and self.pad_id is not None:
            # Positions are counted from behind the padding's.
            self.max_length -= self.pad_id + 1

    def forward(self, input_ids: Tensor, text_padding: Tensor) -> Tensor:
        """Encode texts.

        Args:
            input_ids (Tensor): int64 ``[B, L]``.
            text_padding (Tensor): bool ``[B, L]``, True = padding.

        Returns:
            Tensor: ``[B, L, C]``; the values at padded places have no meaning.
        """
        mask = (~text_padding).long()
        with self._grad():
            return self.model(input_ids=input_ids, attention_mask=mask).last_hidden_state


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


def resize_grid(table: Tensor, count: int) -> Tensor:
    """Resize a table of positions bicubically, as METER does when it loads one.

    Args:
        table (Tensor): ``[P + G * G, C]`` or ``[1, P + G * G, C]``: P prefix tokens (0 or
            1), then a square grid.
        count (int): The number of positions wanted.

    Returns:
        Tensor: ``[P + H * H, C]`` with H * H + P = ``count``, in the layout that came in.

    Raises:
        UserError: One of the numbers is no square with a class token or without.
    """
    rows = table[0] if table.dim() == 3 else table
    for prefix in (1, 0):
        before, after = round((len(rows) - prefix) ** 0.5), round((count - prefix) ** 0.5)
        if before**2 + prefix == len(rows) and after**2 + prefix == count:
            break
    else:
        raise UserError(
            f'A position table of {len(rows)} rows cannot be resized to {count}: these are no '
            'square grids. Fix: use square images and an encoder of square patches.'
        )
    grid = rows[prefix:].float().unflatten(0, (before, before)).permute(2, 0, 1)[None]
    grid = F.interpolate(grid, size=(after, after), mode='bicubic', align_corners=False)
    out = torch.cat((rows[:prefix].float(), grid[0].flatten(1).T)).to(table.dtype)
    return out[None] if table.dim() == 3 else out
