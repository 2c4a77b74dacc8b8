"""Image and text encoders of transformers and timm, which give tokens ``[B, N, C]``.

CLIP is used as METER uses it (arXiv 2111.02387, section 3.1): without its last block,
with its final norm on every token, and with a position grid that is resized
bicubically when weights of another image size are loaded.
"""

import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmengine.utils import to_2tuple
from torch import Tensor, nn
from transformers import AutoModel

from lm4ve.errors import UserError, check, require
from lm4ve.registry import MODELS
from lm4ve.text.pretrained_encoders import (
    build_bare,
    build_config,
    load_weights,
    portable_fields,
    read_model_config,
)

_IMAGE_FAMILIES = ('clip', 'clip_vision_model', 'siglip', 'siglip_vision_model')


class _Encoder(BaseModule):
    """An encoder that may be frozen, and loads pre-trained weights when training starts.

    Args:
        frozen (bool): No parameter trains, dropout and the like stay off.
    """

    model: Any
    _is_init: bool

    def __init__(self, frozen: bool) -> None:
        super().__init__()
        self.frozen = frozen

    def _use(self, model: nn.Module) -> None:
        """Set the encoder's model."""
        self.model = model
        if self.frozen:
            self.requires_grad_(False).train(False)

    def train(self, mode: bool = True) -> '_Encoder':
        """Switch to training; a frozen encoder stays as in a test."""
        return super().train(mode and not self.frozen)

    def init_weights(self) -> None:
        """Load the pre-trained weights, once. Random ones stay as they are."""
        if not self._is_init:
            self._load_pretrained()
            self._is_init = True


class _TransformersEncoder(_Encoder):
    """An encoder of ``transformers``.

    Args:
        checkpoint (str, optional): A local folder, ``package:<name>`` or a hub id. Its
            ``config.json`` is read at once, its weights by :meth:`init_weights`.
        config (dict, optional): Instead: fields with ``model_type``, for random
            weights.
        pretrained (bool): False gives the checkpoint's shape with random weights.
        frozen (bool): No parameter trains.
        with_cp (bool): Recompute layers in the backward pass instead of storing
            activations.
    """

    #: Where the encoder stands in the config.
    field = ''

    def __init__(
        self,
        checkpoint: str | None = None,
        config: dict | None = None,
        pretrained: bool = True,
        frozen: bool = False,
        with_cp: bool = False,
    ) -> None:
        super().__init__(frozen)
        fields, files = read_model_config(checkpoint, config, self.field)
        self._config = build_config(fields, self.field)
        self._files = files if pretrained else None
        self.with_cp = with_cp

    def _build(self, config: Any, **options: Any) -> None:
        self._use(build_bare(config, **options))
        self.embed_dims: int = config.hidden_size
        if self.with_cp:
            self.model.gradient_checkpointing_enable(dict(use_reentrant=False))

    def _load_pretrained(self) -> None:
        if self._files is not None:
            load_weights(self.model, self._files, self.field)

    @classmethod
    def portable(cls, node: dict) -> dict:
        """See :func:`portable_fields`."""
        return portable_fields(node, cls.field, vision='image' in cls.field)


@MODELS.register_module()
class TransformersImageEncoder(_TransformersEncoder):
    """The vision transformer of CLIP or SigLIP, from ``transformers``.

    Args:
        image_size (int, optional): Height and width of the images in pixels; default:
            as in pre-training. Positions of other sizes are resized when loaded.
        drop_layers (int): How many of the last blocks are left out; METER drops one.
        head_token (bool): Put the output of SigLIP's own pooling head before the
            tokens, as a class token. CLIP has a class token and takes no such head.
        **kwargs: ``checkpoint``, ``config``, ``pretrained``, ``frozen`` and
            ``with_cp``; see :class:`_TransformersEncoder`.

    Attributes:
        embed_dims (int): C.
        num_prefix_tokens (int): Tokens before the grid: 1 with a class token, else 0.

    Raises:
        UserError: The model is of another family, or a size is impossible.
    """

    field = 'model.image_encoder'

    def __init__(
        self,
        image_size: int | None = None,
        drop_layers: int = 1,
        head_token: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check(
            f'{self.field}.model_type', self._config.model_type, choices=_IMAGE_FAMILIES
        )
        self.is_clip = 'siglip' not in self._config.model_type
        config = getattr(self._config, 'vision_config', self._config)
        if self.is_clip:
            require(
                not head_token,
                f'{self.field}.head_token=True is for SigLIP; CLIP has a class token. Fix: False.',
            )
        else:
            config.vision_use_head = head_token
        most = config.num_hidden_layers - 1
        check(f'{self.field}.drop_layers', drop_layers, kind=int, least=0, most=most)
        config.num_hidden_layers -= drop_layers
        config.image_size = image_size or config.image_size
        rest = config.image_size % config.patch_size
        require(
            rest == 0,
            f'{self.field}.image_size={config.image_size} is no multiple of its patches of '
            f'{config.patch_size}.',
        )
        self.head_token = head_token
        self.num_prefix_tokens = int(self.is_clip or head_token)
        self._build(config)
        self.model.register_load_state_dict_pre_hook(_resize_positions)

    def forward(self, images: Tensor) -> Tensor:
        """Encode images.

        Args:
            images (Tensor): float ``[B, 3, H, W]``, normalized.

        Returns:
            Tensor: ``[B, N, C]``, with the class token first if there is one.
        """
        out = self.model(pixel_values=images)
        # SigLIP's tokens have gone through its norm already.
        tokens = out.last_hidden_state
        if self.is_clip:
            tokens = self.model.post_layernorm(tokens)
        if self.head_token:
            tokens = torch.cat((out.pooler_output[:, None], tokens), 1)
        return tokens


def _resize_positions(model: Any, state_dict: dict, prefix: str, *others: Any) -> None:
    """Resize the positions of weights that were trained at another image size."""
    key = f'{prefix}embeddings.position_embedding.weight'
    stored = state_dict.get(key)
    if stored is None or stored.dim() != 2:
        return
    count = model.embeddings.position_embedding.num_embeddings
    if len(stored) == count:
        return
    print_log(
        f"The position grid '{key}' has {len(stored)} rows, this model's {count}: resized "
        'bicubically.',
        logger='current',
    )
    state_dict[key] = resize_grid(stored, count)


@MODELS.register_module()
class TimmImageEncoder(_Encoder):
    """Any image model of timm, without its classifier.

    Args:
        model_name (str): timm's name, for example 'vit_small_patch16_224'.
        pretrained (bool): Download the weights that timm knows for this name when
            training starts. They come at the model's image size, resized by timm.
        frozen (bool): No parameter trains.
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
        **options: Any,
    ) -> None:
        super().__init__(frozen)
        self.pretrained = pretrained
        self._arguments = dict(
            model_name=model_name, num_classes=0, global_pool='', **options
        )
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
        out = self.model.forward_features(images)
        if out.dim() != 4:
            return out
        # Swin gives [B, H, W, C], convolutions [B, C, H, W].
        if out.shape[-1] == self.embed_dims:
            return out.flatten(1, 2)
        return out.flatten(2).mT


@MODELS.register_module()
class TransformersTextEncoder(_TransformersEncoder):
    """Any text encoder of ``transformers``: RoBERTa, BERT, MiniLM and their kin.

    Args:
        **kwargs: ``checkpoint``, ``config``, ``pretrained``, ``frozen`` and
            ``with_cp``; see :class:`_TransformersEncoder`.

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

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        config = self._config.get_text_config()
        require(
            not config.is_encoder_decoder,
            f"{self.field}: '{config.model_type}' is an encoder and a decoder, of which only an "
            'encoder alone can be used here. Fix: another model.',
        )
        # A pooler that nobody reads would stop distributed training.
        family: Any = AutoModel._model_mapping[type(config)]
        if 'add_pooling_layer' in inspect.signature(family).parameters:
            self._build(config, add_pooling_layer=False)
        else:
            self._build(config)
        self.model_type: str = config.model_type
        self.vocab_size: int = config.vocab_size
        self.pad_id: int | None = config.pad_token_id
        self.max_length = config.max_position_embeddings
        counts_from_padding = self.model_type in ('roberta', 'xlm-roberta', 'camembert')
        if counts_from_padding and self.pad_id is not None:
            # The first position comes after the padding's.
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
        return self.model(input_ids=input_ids, attention_mask=mask).last_hidden_state


@MODELS.register_module()
class ConvStem(nn.Sequential):
    """Convolutions of 3 x 3 pixels, each of stride 2, then one of 1 x 1.

    Takes the place of the one large convolution that embeds patches, with arguments
    like it, for example in mmpretrain's ``VisionTransformer(patch_cfg=dict(
    conv_type='lm4ve.ConvStem'))``. Channels double from layer to layer. Source: Xiao et
    al., "Early Convolutions Help Transformers See Better", arXiv 2106.14881, section 4;
    with group norms in the place of batch norms, so that nothing depends on the batch
    or on the process that sees it.

    Args:
        in_channels (int): Channels of the image.
        out_channels (int): C.
        kernel_size (int | Sequence[int]): Pixels a side of a patch, a power of two.
        stride (int | Sequence[int]): The same.
        **kwargs: ``padding``, ``dilation`` and ``bias`` of the convolution that it
            replaces; patches do not overlap, so the first two must be as they are
            there.

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
        padding = kwargs.get('padding', 0)
        side = max(sides)
        count = side.bit_length() - 1  # each halves the sides
        is_power_of_two = count > 0 and 2**count == side
        overlaps = len(sides) > 1 or to_2tuple(padding) != (0, 0)
        require(
            is_power_of_two and not overlaps,
            'lm4ve.ConvStem takes patches without overlap or padding whose side is a power of two, '
            f'not sides {sorted(sides)} and padding={padding}.',
        )
        layers: list[nn.Module] = []
        for halvings in range(count - 1, -1, -1):
            width = out_channels
            if halvings > 0:
                width = max(16, out_channels >> halvings)
            layers += [
                nn.Conv2d(in_channels, width, 3, stride=2, padding=1, bias=False),
                nn.GroupNorm(_num_groups(width), width),
                nn.GELU(),
            ]
            in_channels = width
        super().__init__(*layers, nn.Conv2d(in_channels, out_channels, 1))


def _num_groups(width: int) -> int:
    """Return the largest number of groups of at least eight channels that divides a width."""
    for groups in range(width // 8, 1, -1):
        if width % groups == 0:
            return groups
    return 1


def resize_grid(table: Tensor, count: int) -> Tensor:
    """Resize a table of positions bicubically, as METER does when it loads one.

    Args:
        table (Tensor): ``[P + G * G, C]``: P prefix tokens (0 or 1), then a square
            grid.
        count (int): The number of positions wanted.

    Returns:
        Tensor: ``[P + H * H, C]`` with H * H + P = ``count``.

    Raises:
        UserError: One of the numbers is no square with a class token or without.
    """
    for prefix in (1, 0):
        before = math.isqrt(len(table) - prefix)
        after = math.isqrt(count - prefix)
        are_squares = before**2 + prefix == len(table) and after**2 + prefix == count
        if are_squares:
            grid = table[prefix:].float().unflatten(0, (before, before))
            resized = F.interpolate(
                grid.permute(2, 0, 1)[None],
                size=(after, after),
                mode='bicubic',
                align_corners=False,
            )
            rows = resized[0].flatten(1).T
            return torch.cat((table[:prefix].float(), rows)).to(table.dtype)
    raise UserError(
        f'Positions of {len(table)} rows cannot become {count}: no square grids.'
    )
