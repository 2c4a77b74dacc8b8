"""``METER``: image encoder, text encoder, co-attention, optional language model block, head.

The block takes the tokens after the fusion and before the poolers (arXiv 2310.12973,
section 4.5 and figure H). Source of the model: METER, arXiv 2111.02387.
"""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from lm4ve.errors import check, require
from lm4ve.registry import MODELS
from lm4ve.tasks.base.token_neck import build_token_neck
from lm4ve.tasks.vqa.models.fusion import init_as_bert
from lm4ve.text.preprocessor import check_tokenizer
from lm4ve.text.structures import VisionLanguageDataSample


class Pooler(nn.Module):
    """One token to a feature: Linear, then tanh. ``[B, C] -> [B, C]``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dense = nn.Linear(channels, channels)

    def forward(self, token: Tensor) -> Tensor:
        return torch.tanh(self.dense(token))


@MODELS.register_module()
class METER(BaseModel):
    """A model of images and texts.

    Args:
        image_encoder (dict): Config of a module from images ``[B, 3, H, W]`` to tokens
            ``[B, N, C_i]`` (or to a tuple whose last entry is that) with
            ``embed_dims``.
        text_encoder (dict): Config of a module ``(input_ids, text_padding) -> [B, L,
            C_t]`` with ``embed_dims``.
        head (dict): Config of :class:`VQAHead`, :class:`MatchingHead` or
            :class:`RetrievalHead`.
        fusion (dict): Config of :class:`CoAttentionFusion`.
        neck (dict, optional): ``LLMBlockNeck``, between fusion and poolers.
        tokens (str): What the neck takes: 'visual', the image's tokens, as the paper's
            figure H has it; or 'joint', image and text in one sequence.
        image_pool (str): What the image's pooler reads: 'first', the class token, or
            'mean', the mean over tokens, for encoders without a class token.
        data_preprocessor (dict, optional): :class:`VisionLanguagePreprocessor`.
        init_cfg (dict | list, optional): Passed to MMEngine's ``BaseModel``.

    Raises:
        UserError: Parts do not fit each other.
    """

    def __init__(
        self,
        image_encoder: dict,
        text_encoder: dict,
        head: dict,
        fusion: dict = dict(type='lm4ve.CoAttentionFusion'),
        neck: dict | None = None,
        tokens: str = 'visual',
        image_pool: str = 'first',
        data_preprocessor: dict | None = None,
        init_cfg: dict | Sequence[dict] | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        check('model.tokens', tokens, choices=('visual', 'joint'))
        check('model.image_pool', image_pool, choices=('first', 'mean'))
        self.tokens = tokens
        self.image_pool = image_pool
        self.image_encoder = MODELS.build(image_encoder)
        self.text_encoder = MODELS.build(text_encoder)
        self.fusion = MODELS.build(fusion)
        channels = self.fusion.embed_dims
        self.image_transform = nn.Linear(self.image_encoder.embed_dims, channels)
        self.text_transform = nn.Linear(self.text_encoder.embed_dims, channels)
        self.token_types = nn.Embedding(2, channels)
        self.image_pooler = Pooler(channels)
        self.text_pooler = Pooler(channels)
        own_parts = [
            self.image_transform,
            self.text_transform,
            self.token_types,
            self.image_pooler,
            self.text_pooler,
        ]
        init_as_bert(nn.ModuleList(own_parts))
        self.neck = build_token_neck(neck)
        self.head = MODELS.build(head)
        check_parts(self)

    def encode_images(self, image: Tensor) -> Tensor:
        """Images, float ``[B, 3, H, W]``, to tokens ``[B, N, C]`` that have seen no text."""
        tokens = self.image_encoder(image)
        if not isinstance(tokens, Tensor):
            tokens = tokens[-1]
        return self.image_transform(tokens) + self._token_type(1, tokens)

    def encode_texts(self, input_ids: Tensor, text_padding: Tensor) -> Tensor:
        """Texts, int64 ``[B, L]`` with their padding, to tokens ``[B, L, C]``."""
        tokens = self.text_encoder(input_ids, text_padding)
        return self.text_transform(tokens) + self._token_type(0, tokens)

    def _token_type(self, index: int, like: Tensor) -> Tensor:
        # Through the module, which sharded training gathers.
        return self.token_types(torch.full((), index, device=like.device))

    def pool(self, fused: dict[str, Tensor], text_padding: Tensor) -> Tensor:
        """Neck and poolers; the neck computes only the tokens that the poolers read.

        Args:
            fused (dict[str, Tensor]): What the fusion gives.
            text_padding (Tensor): bool ``[P, L]``, True = padding.

        Returns:
            Tensor: ``[P, 2 C]``, text first, as METER has it.
        """
        image = fused['image']
        text_token = fused['text'][:, 0]
        if self.neck is not None and self.tokens == 'visual':
            read = slice(0, 1) if self.image_pool == 'first' else None
            image = self.neck(image, queries=read)
        elif self.neck is not None:
            image, text_token = self._run_joint(image, fused['text'], text_padding)
        pooled_text = self.text_pooler(text_token)
        if self.image_pool == 'first':
            image_token = image[:, 0]
        else:
            image_token = image.mean(dim=1)
        pooled_image = self.image_pooler(image_token)
        return torch.cat((pooled_text, pooled_image), dim=-1)

    def _run_joint(
        self, image: Tensor, text: Tensor, text_padding: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Run the neck on image and text in one sequence.

        Returns:
            tuple[Tensor, Tensor]: The image's tokens that its pooler reads, ``[P, N,
            C]`` or ``[P, 1, C]``, and the text's first token ``[P, C]``.
        """
        count = image.shape[1]
        joint = torch.cat((image, text), dim=1)
        no_padding = text_padding.new_zeros(image.shape[:2])
        mask = torch.cat((no_padding, text_padding), dim=1)
        # All of the image, and the first token of the text.
        read: slice | Tensor = slice(0, count + 1)
        if self.image_pool == 'first':
            # Made on the device: a list would be copied to it, for which the CPU waits.
            both = torch.arange(0, count + 1, count, device=joint.device)
            read = both.expand(len(joint), 2)
        out = self.neck(joint, padding_mask=mask, queries=read)
        return out[:, :-1], out[:, -1]

    def score_pairs(
        self, image_tokens: Tensor, text_tokens: Tensor, text_padding: Tensor
    ) -> Tensor:
        """Score how well images and texts match, for pairs that are encoded already.

        Args:
            image_tokens (Tensor): ``[P, N, C]``, of :meth:`encode_images`.
            text_tokens (Tensor): ``[P, L, C]``, of :meth:`encode_texts`.
            text_padding (Tensor): bool ``[P, L]``, True = padding.

        Returns:
            Tensor: fp32 ``[P]``, higher for a better match.

        Raises:
            UserError: The head answers questions.
        """
        fused = self.fusion(image_tokens, text_tokens, text_padding)
        return self.head.score(self.pool(fused, text_padding))

    def forward(
        self,
        inputs: dict[str, Tensor],
        data_samples: list[VisionLanguageDataSample] | None = None,
        mode: str = 'tensor',
    ) -> Tensor | dict[str, Tensor] | list[VisionLanguageDataSample]:
        """Run on a batch. Each image is encoded once for its S texts.

        Args:
            inputs (dict[str, Tensor]): ``image`` ``[B, 3, H, W]``, ``input_ids`` and
                ``text_padding`` ``[B, S, L]``, of the preprocessor.
            data_samples (list[VisionLanguageDataSample], optional): One an image.
            mode (str): 'tensor' gives features ``[B, S, 2 C]``, 'loss' a dict of
                losses, 'predict' the samples with predictions.
        """
        shape = inputs['input_ids'].shape[:2]
        ids = inputs['input_ids'].flatten(0, 1)
        padding = inputs['text_padding'].flatten(0, 1)
        image_tokens = self.encode_images(inputs['image'])
        text_tokens = self.encode_texts(ids, padding)
        _, num_texts = shape
        image_of_text = image_tokens
        if num_texts > 1:
            image_of_text = image_tokens.repeat_interleave(num_texts, dim=0)
        fused = self.fusion(image_of_text, text_tokens, padding)
        features = self.pool(fused, padding).unflatten(0, shape)
        if mode == 'tensor':
            return features
        if mode == 'loss':
            return self.head.loss(features, data_samples)
        if not data_samples:
            data_samples = [VisionLanguageDataSample() for _ in features]
        return self.head.predict(features, data_samples)


def check_parts(model: METER) -> None:
    """Refuse parts that do not fit each other, before anything is computed.

    Checked are the widths of neck and head beside the fusion's, that the neck gives all
    tokens, that the image encoder has the class token that is pooled, and that the
    tokenizer is the text encoder's. A part of the user's own that does not state such a
    property passes.

    Raises:
        UserError: Two parts do not fit; the message names a field and its fix.
    """
    channels = model.fusion.embed_dims
    _check_width('neck', model.neck, channels)
    _check_width('head', model.head, 2 * channels)
    # METER pools by itself.
    out_type = getattr(model.neck, 'out_type', 'raw')
    require(
        out_type == 'raw',
        f"model.neck.out_type='{out_type}' gives a vector, and METER pools by itself. Fix: "
        "model.neck.out_type='raw'.",
    )
    has_class_token = getattr(model.image_encoder, 'num_prefix_tokens', 1) > 0
    require(
        has_class_token or model.image_pool == 'mean',
        f"model.image_pool='{model.image_pool}' needs a class token, which this image encoder "
        "does not have. Fix: model.image_pool='mean'.",
    )
    if hasattr(model.data_preprocessor, 'tokenizer'):
        check_tokenizer(model.data_preprocessor, model.text_encoder)


def _check_width(name: str, part: nn.Module | None, width: int) -> None:
    """Refuse a part of the model that reads another width; no part reads any."""
    in_channels = getattr(part, 'in_channels', width)
    require(
        in_channels == width,
        f'model.{name}.in_channels={in_channels} does not fit the fusion. '
        f'Fix: in_channels={width}.',
    )
