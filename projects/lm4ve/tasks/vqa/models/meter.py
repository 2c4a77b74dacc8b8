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
        self.tokens, self.image_pool = tokens, image_pool
        self.image_encoder = MODELS.build(image_encoder)
        self.text_encoder = MODELS.build(text_encoder)
        self.fusion = MODELS.build(fusion)
        channels = self.fusion.embed_dims
        self.image_transform = nn.Linear(self.image_encoder.embed_dims, channels)
        self.text_transform = nn.Linear(self.text_encoder.embed_dims, channels)
        self.token_types = nn.Embedding(2, channels)
        self.image_pooler = Pooler(channels)
        self.text_pooler = Pooler(channels)
        parts = self.image_transform, self.text_transform, self.token_types
        init_as_bert(nn.ModuleList([*parts, self.image_pooler, self.text_pooler]))
        self.neck = None if neck is None else MODELS.build(neck)
        self.head = MODELS.build(head)
        check_parts(self)

    def encode_images(self, image: Tensor) -> Tensor:
        """Images, float ``[B, 3, H, W]``, to tokens ``[B, N, C]`` that have seen no text."""
        tokens = self.image_encoder(image)
        tokens = tokens if isinstance(tokens, Tensor) else tokens[-1]
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
        image, text = fused['image'], fused['text'][:, :1]
        count = image.shape[1]
        if self.neck is not None and self.tokens == 'visual':
            image = self.neck(
                image, queries=slice(0, 1) if self.image_pool == 'first' else None
            )
        elif self.neck is not None:
            joint = torch.cat((image, fused['text']), dim=1)
            mask = torch.cat(
                (text_padding.new_zeros(image.shape[:2]), text_padding), dim=1
            )
            read: slice | Tensor = slice(0, count + 1)
            if self.image_pool == 'first':
                read = torch.tensor([0, count], device=joint.device).expand(
                    len(joint), 2
                )
            out = self.neck(joint, padding_mask=mask, queries=read)
            image, text = out[:, :-1], out[:, -1:]
        pooled = (
            self.text_pooler(text[:, 0]),
            self.image_pooler(self.image_token(image)),
        )
        return torch.cat(pooled, dim=-1)

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

    def image_token(self, tokens: Tensor) -> Tensor:
        """Pool tokens ``[P, N, C]`` of images to ``[P, C]``."""
        return tokens[:, 0] if self.image_pool == 'first' else tokens.mean(dim=1)

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
        ids, padding = (inputs[k].flatten(0, 1) for k in ('input_ids', 'text_padding'))
        shape = inputs['input_ids'].shape[:2]
        image_tokens = self.encode_images(inputs['image'])
        text_tokens = self.encode_texts(ids, padding)
        pairs = (
            image_tokens.repeat_interleave(shape[1], dim=0)
            if shape[1] > 1
            else image_tokens
        )
        features = self.pool(
            self.fusion(pairs, text_tokens, padding), padding
        ).unflatten(0, shape)
        if mode == 'tensor':
            return features
        if mode == 'loss':
            unimodal = (
                self.image_token(image_tokens),
                text_tokens[:, 0].unflatten(0, shape),
            )
            return self.head.loss(features, data_samples, unimodal)
        samples = data_samples or [
            VisionLanguageDataSample() for _ in range(len(features))
        ]
        return self.head.predict(features, samples)


def check_parts(model: METER) -> None:
    """Refuse parts that do not fit each other, before anything is computed.

    Raises:
        UserError: It names both fields.
    """
    neck, encoder, channels = model.neck, model.image_encoder, model.fusion.embed_dims
    widths = (('neck', neck, channels), ('head', model.head, 2 * channels))
    for name, part, width in widths:
        found = getattr(part, 'in_channels', width)
        require(
            found == width,
            f'model.{name}.in_channels={found} does not fit the fusion. Fix: in_channels={width}.',
        )
    # METER pools by itself.
    out_type = getattr(neck, 'out_type', 'raw')
    require(
        out_type == 'raw',
        f"model.neck.out_type='{out_type}' gives a vector, and METER pools by itself. Fix: "
        "model.neck.out_type='raw'.",
    )
    if getattr(encoder, 'num_prefix_tokens', 1) == 0:  # no class token
        require(
            model.image_pool == 'mean',
            f"model.image_pool='{model.image_pool}' needs a class token, which this image encoder "
            "does not have. Fix: model.image_pool='mean'.",
        )
    if hasattr(model.data_preprocessor, 'tokenizer'):
        check_tokenizer(model.data_preprocessor, model.text_encoder)
