"""Image and text encoders out of libraries, as what METER wants: tokens ``[B, N, C]``.

CLIP is used as METER uses it (arXiv 2111.02387, section 3.1): without its last block,
with its final norm on every token, and with a position grid that is resized
bicubically when weights of another image size are loaded.
"""

import inspect
import logging
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn

from lm4ve.errors import UserError
from lm4ve.registry import MODELS
from lm4ve.tasks.base.language.pretrained import (
    build_bare,
    build_config,
    load_weights,
    portable_fields,
    read_model_config,
)
from lm4ve.tasks.vqa.models.positions import resize_grid
from lm4ve.tasks.vqa.models.text_memory import RemembersTexts

_IMAGE_FAMILIES = ('clip', 'clip_vision_model', 'siglip', 'siglip_vision_model')
InitCfg = dict | Sequence[dict] | None


class _Encoder(BaseModule):
    """An encoder that may be frozen, and loads pre-trained weights when training starts.

    Args:
        frozen (bool): No parameter trains, dropout and the like stay off.
        init_cfg (dict | list, optional): Passed to MMEngine's ``BaseModule``.
    """

    def __init__(self, frozen: bool, init_cfg: InitCfg) -> None:
        super().__init__(init_cfg)
        self.frozen = frozen

    def _freeze(self) -> None:
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
        raise NotImplementedError


class _GridEncoder(_Encoder):
    """An encoder with a table of positions, which may be loaded at another image size."""

    #: Name of the table below this module.
    positions = ''

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *others: Any) -> None:
        key = prefix + self.positions
        own = self.state_dict().get(self.positions) if self.positions else None
        stored = state_dict.get(key)
        alike = own is not None and stored is not None and stored.dim() == own.dim()
        if alike and stored.shape[-2] != own.shape[-2]:
            print_log(
                f"The checkpoint's position grid '{key}' has {stored.shape[-2]} rows, this model's "
                f'{own.shape[-2]}: resized bicubically.',
                logger='current',
                level=logging.INFO,
            )
            state_dict[key] = resize_grid(stored, own.shape[-2])
        super()._load_from_state_dict(state_dict, prefix, *others)


@MODELS.register_module()
class TransformersImageEncoder(_GridEncoder):
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

    positions = 'model.embeddings.position_embedding.weight'

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
        fields, files = read_model_config(checkpoint, config, 'model.image_encoder')
        self._files = files if pretrained else None
        built = self._vision_config(fields, image_size, drop_layers, head_token)
        self.model = build_bare(built, 'model.image_encoder')
        if with_cp:
            self.model.gradient_checkpointing_enable(dict(use_reentrant=False))
        self.is_clip = 'clip' in built.model_type and 'sig' not in built.model_type
        self.head_token = head_token
        self.embed_dims: int = built.hidden_size
        self.image_size: int = built.image_size
        self.grid_size = built.image_size // built.patch_size
        self.num_prefix_tokens = int(self.is_clip or head_token)
        self._freeze()

    @staticmethod
    def _vision_config(fields: dict, image_size: int | None, drop_layers: int, head: bool) -> Any:
        kind = fields['model_type']
        if kind not in _IMAGE_FAMILIES:
            raise UserError(
                f"model.image_encoder is of the family '{kind}'. Expected one of "
                f'{", ".join(_IMAGE_FAMILIES)}. Fix: use lm4ve.TimmImageEncoder, or any registered '
                'backbone that gives tokens [B, N, C].'
            )
        built = build_config(fields, 'model.image_encoder')
        built = getattr(built, 'vision_config', built)
        if head and 'siglip' not in kind:
            raise UserError(
                'model.image_encoder.head_token=True: CLIP has a class token and no pooling head. '
                'Fix: leave it out.'
            )
        if not 0 <= drop_layers < built.num_hidden_layers:
            raise UserError(
                f'model.image_encoder.drop_layers={drop_layers} leaves nothing of '
                f'{built.num_hidden_layers} blocks. Fix: choose less.'
            )
        built.num_hidden_layers -= drop_layers
        if image_size is not None:
            built.image_size = image_size
        if built.image_size % built.patch_size:
            raise UserError(
                f'model.image_encoder.image_size={built.image_size} is no multiple of its '
                f'{built.patch_size} pixel patches. Fix: choose a multiple.'
            )
        if 'siglip' in kind:
            built.vision_use_head = head
        return built

    @staticmethod
    def portable(node: dict) -> dict:
        """See :func:`portable_fields`."""
        return portable_fields(node, 'model.image_encoder', vision=True)

    def _load_pretrained(self) -> None:
        if self._files is not None:
            load_weights(
                self.model,
                self._files,
                'model.image_encoder',
                lambda name, stored, own: (
                    resize_grid(stored, len(own)) if 'position_embedding' in name else stored
                ),
            )

    def forward(self, images: Tensor) -> Tensor:
        """Encode images.

        Args:
            images (Tensor): float ``[B, 3, H, W]``, normalized.

        Returns:
            Tensor: ``[B, N, C]``, with the class token first if there is one.

        Raises:
            UserError: The images have another size than the encoder.
        """
        if images.shape[-2:] != (self.image_size,) * 2:
            found = 'x'.join(map(str, images.shape[-2:]))
            raise UserError(
                f'Images of {found} pixels, but model.image_encoder.image_size={self.image_size}. '
                'Fix: set the size of the pipelines and of the encoder to the same number.'
            )
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
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

    Raises:
        UserError: timm does not know the name or refuses an option.
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
        self.model = self._create(pretrained=False)
        self.embed_dims: int = self.model.num_features
        self.num_prefix_tokens: int = getattr(self.model, 'num_prefix_tokens', 0)
        self._freeze()

    def _create(self, pretrained: bool) -> nn.Module:
        import timm

        try:
            return timm.create_model(pretrained=pretrained, **self._arguments)
        except (RuntimeError, TypeError, ValueError, AssertionError) as e:
            raise UserError(
                f"model.image_encoder: timm cannot build '{self._arguments['model_name']}' "
                f'({type(e).__name__}: {e}). Fix: correct the name or the options '
                '(timm.list_models() lists the names).'
            ) from e

    def _load_pretrained(self) -> None:
        if self.pretrained:
            self.model.load_state_dict(self._create(pretrained=True).state_dict())

    def forward(self, images: Tensor) -> Tensor:
        """float ``[B, 3, H, W]``, normalized, to tokens ``[B, N, C]``."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            out = self.model.forward_features(images)
        if out.dim() == 4:
            # Convolutions give [B, C, H, W], Swin [B, H, W, C].
            out = out.flatten(1, 2) if out.shape[-1] == self.embed_dims else out.flatten(2).mT
        return out


@MODELS.register_module()
class TransformersTextEncoder(RemembersTexts, _Encoder):
    """Any text encoder of ``transformers``: RoBERTa, BERT, MiniLM and their kin.

    Args:
        checkpoint (str, optional): A local folder, ``package:<name>`` or a hub id. Its
            ``config.json`` is read at once, its weights by :meth:`init_weights`.
        config (dict, optional): Instead: fields with ``model_type``, for random weights.
        pretrained (bool): False gives the checkpoint's shape with random weights.
        frozen (bool): No parameter trains.
        remember (int): For how many texts a frozen encoder keeps its output, 4 C bytes a token.
        with_cp (bool): Recompute layers in the backward pass.
        init_cfg (dict | list, optional): Passed to MMEngine's ``BaseModule``.

    Attributes:
        embed_dims (int): C.
        vocab_size (int): Rows of the word embedding.
        max_length (int): The longest text in tokens, special ones included.
        pad_id (int | None): What the encoder takes for padding.
        model_type (str): The family.

    Raises:
        UserError: The model is no encoder of texts; one that trains is to remember.
    """

    def __init__(
        self,
        checkpoint: str | None = None,
        config: dict | None = None,
        pretrained: bool = True,
        frozen: bool = False,
        remember: int = 0,
        with_cp: bool = False,
        init_cfg: InitCfg = None,
    ) -> None:
        super().__init__(frozen, init_cfg)
        fields, files = read_model_config(checkpoint, config, 'model.text_encoder')
        self._files = files if pretrained else None
        built = build_config(fields, 'model.text_encoder').get_text_config()
        self.model_type: str = built.model_type
        if built.is_encoder_decoder or not hasattr(built, 'vocab_size'):
            raise UserError(
                f"model.text_encoder is of the family '{built.model_type}', which is no encoder of "
                "texts. Fix: use RoBERTa, BERT or another of transformers' encoders."
            )
        self.model = self._build(built)
        if with_cp:
            self.model.gradient_checkpointing_enable(dict(use_reentrant=False))
        self.embed_dims: int = built.hidden_size
        self.vocab_size: int = built.vocab_size
        self.pad_id: int | None = built.pad_token_id
        self.max_length = built.max_position_embeddings
        if self.model_type in ('roberta', 'xlm-roberta', 'camembert') and self.pad_id is not None:
            # Positions are counted from behind the padding's.
            self.max_length -= self.pad_id + 1
        self._freeze()
        self.remember_texts(remember, frozen)

    @staticmethod
    def _build(config: Any) -> nn.Module:
        from transformers import AutoModel

        # A pooler that nobody reads would stop distributed training.
        model_class = AutoModel._model_mapping[type(config)]
        takes = inspect.signature(model_class.__init__).parameters
        options = dict(add_pooling_layer=False) if 'add_pooling_layer' in takes else {}
        return build_bare(config, 'model.text_encoder', **options)

    @staticmethod
    def portable(node: dict) -> dict:
        """See :func:`portable_fields`."""
        return portable_fields(node, 'model.text_encoder', vision=False)

    def _load_pretrained(self) -> None:
        if self._files is not None:
            load_weights(self.model, self._files, 'model.text_encoder')
            self.forget_texts()

    def forward(self, input_ids: Tensor, text_padding: Tensor) -> Tensor:
        """Encode texts.

        Args:
            input_ids (Tensor): int64 ``[B, L]``.
            text_padding (Tensor): bool ``[B, L]``, True = padding.

        Returns:
            Tensor: ``[B, L, C]``; what stands at padded places means nothing.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            if self.memory is not None:
                return self.memory.encode(self._encode, input_ids, text_padding)
            return self._encode(input_ids, text_padding)

    def _encode(self, input_ids: Tensor, text_padding: Tensor) -> Tensor:
        mask = (~text_padding).long()
        return self.model(input_ids=input_ids, attention_mask=mask).last_hidden_state
