"""``SQA3D``: objects of a room, a situation and a question in it, and the answer.

Objects attend to the situation, then to the question; the block of a language model
comes after that and before the pooling (arXiv 2310.12973, section 4.5 and C.6). Source
of the model: SQA3D (Ma et al., ICLR 2023, arXiv 2210.07474) and ScanQA (arXiv
2112.10482).
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import Tensor, nn

from lm4ve.errors import build_from, check, require
from lm4ve.registry import MODELS
from lm4ve.tasks.base.token_neck import build_token_neck
from lm4ve.tasks.rooms.models.fusion import AttentionPool
from lm4ve.tasks.rooms.models.objects import Objects, Samples
from lm4ve.tasks.rooms.models.preprocessor import TEXTS
from lm4ve.text.preprocessor import check_tokenizer
from lm4ve.text.structures import VisionLanguageDataSample

#: The three sequences that the model fuses, in the order of a joint one.
STREAMS = ('objects', *TEXTS)
#: What each part of the loss counts. The release multiplies all of them by ten.
LOSS_WEIGHTS = {
    'vote': 10.0,
    'objectness': 5.0,
    'box': 10.0,
    'semantic': 1.0,
    'pose': 1.0,
    'answer': 1.0,
}


@MODELS.register_module()
class SQA3D(BaseModel):
    """Answers questions about a room, asked by somebody who stands in it.

    Args:
        object_encoder (dict): Config of :class:`VoteNet`, which reads points, or of
            :class:`StoredObjects`, which reads features of objects.
        text_encoder (dict): Config of :class:`LSTMTextEncoder`, which reads vectors of
            words, or of :class:`TransformersTextEncoder`. It reads situation and
            question.
        head (dict): Config of :class:`SceneAnswerHead`.
        pose_head (dict, optional): Config of :class:`PoseHead`, the auxiliary task.
        fusion (dict): Config of :class:`GuidedFusion`.
        neck (dict, optional): ``LLMBlockNeck``, between fusion and pooling. Proposals
            that are no objects are its padding.
        tokens (str): Input of the neck: 'visual', the objects, as the paper's figure H
            has it for images; or 'joint', objects, situation and question in one
            sequence.
        pool (dict): Sizes of the three :class:`AttentionPool`: ``hidden_channels`` and
            ``out_channels`` (E).
        loss_weights (dict, optional): Weights that differ from :data:`LOSS_WEIGHTS`.
        data_preprocessor (dict, optional): :class:`SQA3DPreprocessor`.
        init_cfg (dict | list, optional): Passed to MMEngine's ``BaseModel``.

    Raises:
        UserError: Parts do not fit each other.
    """

    def __init__(
        self,
        object_encoder: dict,
        text_encoder: dict,
        head: dict,
        pose_head: dict | None = None,
        fusion: dict = dict(type='lm4ve.GuidedFusion'),
        neck: dict | None = None,
        tokens: str = 'visual',
        pool: Mapping[str, int] = dict(hidden_channels=256, out_channels=512),
        loss_weights: Mapping[str, float] | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | Sequence[dict] | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        check('model.tokens', tokens, choices=('visual', 'joint'))
        self.tokens = tokens
        self.object_encoder = MODELS.build(object_encoder)
        self.text_encoder = MODELS.build(text_encoder)
        self.fusion = MODELS.build(fusion)
        channels = self.fusion.embed_dims
        self.object_transform = nn.Linear(self.object_encoder.embed_dims, channels)
        self.text_transform = nn.Linear(self.text_encoder.embed_dims, channels)
        self.neck = build_token_neck(neck)
        build_pool = functools.partial(AttentionPool, channels)
        self.pools = nn.ModuleDict()
        for name in STREAMS:
            self.pools[name] = build_from(build_pool, pool, 'model.pool')
        self.head = MODELS.build(head)
        self.pose_head = None if pose_head is None else MODELS.build(pose_head)
        self.loss_weights = dict(LOSS_WEIGHTS)
        for name, weight in (loss_weights or {}).items():
            check('model.loss_weights', name, choices=LOSS_WEIGHTS)
            self.loss_weights[name] = weight
        out_type = getattr(self.neck, 'out_type', 'raw')
        require(
            out_type == 'raw',
            f"model.neck.out_type='{out_type}' gives a vector, and SQA3D pools by itself. Fix: "
            "model.neck.out_type='raw'.",
        )
        if getattr(self.data_preprocessor, 'tokenizer', None) is not None:
            check_tokenizer(self.data_preprocessor, self.text_encoder)

    def encode_objects(self, inputs: Mapping[str, Tensor]) -> Objects:
        """Encode the objects of scenes as tokens ``[B, K, C_o]``."""
        kind = self.object_encoder.reads
        return self.object_encoder(inputs[kind], inputs[f'{kind}_padding'])

    def fuse(
        self,
        objects: Tensor,
        texts: Mapping[str, Tensor],
        padding: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """Attend from objects to the texts, then apply the neck.

        Args:
            objects (Tensor): ``[B, K, C_o]``, of :meth:`encode_objects`.
            texts (Mapping[str, Tensor]): ``situation`` and ``question``, ``[B, L,
                C_t]``, of the text encoder.
            padding (Mapping[str, Tensor]): bool of ``objects`` and of the texts.

        Returns:
            dict[str, Tensor]: ``objects`` ``[B, K, C]``, ``situation`` and
            ``question``.
        """
        tokens = {'objects': F.gelu(self.object_transform(objects))}
        for name, text in texts.items():
            tokens[name] = F.gelu(self.text_transform(text))
        fused = self.fusion(tokens, padding)
        if self.neck is None:
            return fused
        if self.tokens == 'visual':
            mask = mask_of_objects(padding['objects'])
            fused['objects'] = self.neck(fused['objects'], padding_mask=mask)
            return fused
        joint = torch.cat([fused[name] for name in STREAMS], dim=1)
        mask = torch.cat([padding[name] for name in STREAMS], dim=1)
        counts = [fused[name].shape[1] for name in STREAMS]
        parts = self.neck(joint, padding_mask=mask).split(counts, dim=1)
        return dict(zip(STREAMS, parts, strict=True))

    def forward(
        self,
        inputs: dict[str, Tensor],
        data_samples: Samples | None = None,
        mode: str = 'tensor',
    ) -> Tensor | dict[str, Tensor] | Samples:
        """Run on a batch.

        Args:
            inputs (dict[str, Tensor]): Of :class:`SQA3DPreprocessor`.
            data_samples (list[VisionLanguageDataSample], optional): One a question.
            mode (str): 'tensor' returns features ``[B, 3 E]`` (situation, question,
                objects), 'loss' a dict of losses, 'predict' the samples with
                predictions.
        """
        objects = self.encode_objects(inputs)
        pooled = self._pool(objects, inputs)
        features = torch.cat([pooled[name] for name in (*TEXTS, 'objects')], dim=-1)
        if mode == 'tensor':
            return features
        # Each part that has losses and predictions, with the input of its methods.
        parts: list[tuple[Any, Any]] = [(self.object_encoder, objects)]
        if self.pose_head is not None:
            pose = torch.cat((pooled['situation'], pooled['objects']), dim=-1)
            parts.append((self.pose_head, pose))
        parts.append((self.head, features))
        if mode == 'loss':
            losses = {}
            for part, features_of_part in parts:
                for name, loss in part.loss(features_of_part, data_samples).items():
                    losses[f'loss_{name}'] = self.loss_weights[name] * loss
            return losses
        if not data_samples:
            data_samples = [VisionLanguageDataSample() for _ in features]
        for part, features_of_part in parts:
            part.predict(features_of_part, data_samples)
        return data_samples

    def _pool(self, objects: Objects, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Encode situation and question, fuse them with the objects, and pool all three.

        Returns:
            dict[str, Tensor]: ``[B, E]`` for each of :data:`STREAMS`: the objects and
            the two texts.
        """
        padding = {'objects': objects.padding}
        texts = {}
        for name in TEXTS:
            padding[name] = inputs[f'{name}_padding']
            texts[name] = self.text_encoder(inputs[name], padding[name])
        fused = self.fuse(objects.tokens, texts, padding)
        pooled = {}
        for name in STREAMS:
            pooled[name] = self.pools[name](fused[name], padding[name])
        return pooled


def mask_of_objects(padding: Tensor) -> Tensor:
    """Return the objects' padding, bool ``[B, K]``, as the neck reads it.

    Where nothing is an object, it sees all proposals, as the fusion does.
    """
    nothing_there = padding.all(dim=1, keepdim=True)
    return padding & ~nothing_there
