"""Heads that read METER's pooled features: answers, matches, and ranks of captions.

All compute in fp32, also under mixed precision: 16 bits would tie the scores of many
pairs, and ranks would depend on their order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from lm4ve.errors import build_from, check, require
from lm4ve.registry import MODELS
from lm4ve.tasks.vqa.datasets.answers import read_vocabulary, soft_scores
from lm4ve.tasks.vqa.models.fusion import init_as_bert
from lm4ve.text.structures import VisionLanguageDataSample
from lm4ve.text.vocabulary import VocabularyHead, in_fp32

Samples = list[VisionLanguageDataSample]


@MODELS.register_module()
class VQAHead(VocabularyHead, BaseModule):
    """Choose an answer out of a vocabulary: Linear, LayerNorm, GELU, Linear.

    Args:
        vocabulary (str | Sequence[str]): The A answers, or the file that holds them.
        in_channels (int): 2 C.
        **kwargs: Passed to MMEngine's ``BaseModule``.

    The loss is the binary cross-entropy with
    :func:`lm4ve.tasks.vqa.datasets.answers.soft_scores`, mean over answers and samples, times A.
    A fingerprint of the vocabulary is a part of every checkpoint.

    Raises:
        UserError: The vocabulary cannot be read.
    """

    def __init__(
        self, vocabulary: str | Sequence[str], in_channels: int = 1536, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.in_channels = in_channels
        answers = read_vocabulary(vocabulary, self.vocabulary_field)
        self.layers = nn.Sequential(
            nn.Linear(in_channels, in_channels),
            nn.LayerNorm(in_channels),
            nn.GELU(),
            nn.Linear(in_channels, len(answers)),
        )
        init_as_bert(self)
        self.set_vocabulary(answers)

    @staticmethod
    def portable(node: dict) -> dict:
        """Put the answers themselves in the place of their file, for a release."""
        answers = read_vocabulary(node['vocabulary'], 'model.head.vocabulary')
        return dict(vocabulary=list(answers))

    def forward(self, features: Tensor) -> Tensor:
        """``[..., 2 C]`` to logits, fp32 ``[..., A]``."""
        return in_fp32(self.layers, features)

    def loss(self, features: Tensor, data_samples: Samples) -> dict:
        """Loss of questions.

        Args:
            features (Tensor): ``[B, S, 2 C]``, of S questions an image.
            data_samples (list[VisionLanguageDataSample]): With ``gt_answers``, for S >
                1 a list for each question.
        """
        logits = self(features.flatten(0, 1))
        answers = _answers_of(data_samples)
        require(
            len(answers) == len(logits),
            f'A batch has {len(answers)} lists of gt_answers for {len(logits)} questions. Fix: one '
            'list of answers for each question.',
        )
        # On the CPU: each access to a GPU's tensor would wait for the GPU, and so would
        # a copy that blocks.
        targets = torch.zeros(logits.shape)
        for row, answers_of_question in enumerate(answers):
            for answer, score in soft_scores(answers_of_question).items():
                if answer in self.index:
                    targets[row, self.index[answer]] = score
        targets = targets.to(logits, non_blocking=True)
        loss = F.binary_cross_entropy_with_logits(logits, targets)
        return dict(loss_vqa=loss * len(self.vocabulary))

    def predict(self, features: Tensor, data_samples: Samples) -> Samples:
        """Add ``pred_answer``, ``pred_label`` and ``pred_scores`` (sigmoid, ``[A]``).

        Raises:
            UserError: There are several questions a sample, which is for training.
        """
        check('questions of a test sample', features.shape[1], most=1)
        # On the CPU, where the best answer is looked up.
        rows = self(features[:, 0]).sigmoid().cpu()
        answered = []
        for sample, scores in zip(data_samples, rows, strict=True):
            answered.append(sample.set_answer(scores, self.vocabulary))
        return answered


def _answers_of(data_samples: Samples) -> list[list[str]]:
    """Return the annotators' answers to each question of a batch, one list a question.

    ``gt_answers`` of a sample with several questions is a list for each question; of a
    sample with one question it is the list of its answers, empty if nobody gave one.
    """
    answers_by_question: list[list[str]] = []
    for sample in data_samples:
        gt_answers = sample.gt_answers
        is_one_question = all(isinstance(answer, str) for answer in gt_answers)
        if is_one_question:
            answers_by_question.append(gt_answers)
        else:
            answers_by_question += gt_answers
    return answers_by_question


@MODELS.register_module()
class MatchingHead(BaseModule):
    """Image-text matching: two classes, of which 1 is a pair that matches.

    Args:
        in_channels (int): 2 C.
        **kwargs: Passed to MMEngine's ``BaseModule``.
    """

    def __init__(self, in_channels: int = 1536, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.in_channels = in_channels
        self.fc = nn.Linear(in_channels, 2)
        init_as_bert(self)

    def forward(self, features: Tensor) -> Tensor:
        """``[..., 2 C]`` to logits, fp32 ``[..., 2]``."""
        return in_fp32(self.fc, features)

    def score(self, features: Tensor) -> Tensor:
        """``[P, 2 C]`` to log-odds of a match, fp32 ``[P]``."""
        logits = self(features)
        return logits[..., 1] - logits[..., 0]

    def loss(self, features: Tensor, data_samples: Samples) -> dict:
        """Cross-entropy over all pairs ``[B, S, 2 C]``; the first of S texts is true."""
        logits = self(features)
        target = torch.zeros(logits.shape[:-1], dtype=torch.long, device=logits.device)
        target[:, 0] = 1
        return dict(loss_itm=F.cross_entropy(logits.flatten(0, 1), target.flatten()))

    def predict(self, features: Tensor, data_samples: Samples) -> Samples:
        """Add ``pred_scores``, the probability of a match ``[S]``."""
        return _with_scores(data_samples, self.score(features).sigmoid())


@dataclass(frozen=True)
class _Matching:
    """The fields of ``itm``: the weight of the loss, and whether its head stays as it is."""

    weight: float = 1.0
    frozen: bool = True


@MODELS.register_module()
class RetrievalHead(BaseModule):
    """Rank the texts of an image: one logit a pair, the first of S texts is the true one.

    Args:
        in_channels (int): 2 C.
        itm (dict, optional): Also a matching loss: ``dict(weight=1.0, frozen=True)``.
            METER runs it with a head that its pre-training left and that does not
            train. The ranking begins with that head's weights of a match.
        **kwargs: Passed to MMEngine's ``BaseModule``.

    Raises:
        UserError: ``itm`` has a field that does not exist.
    """

    def __init__(
        self, in_channels: int = 1536, itm: dict | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.in_channels = in_channels
        self.rank_output = nn.Linear(in_channels, 1)
        init_as_bert(self)
        self.itm = None
        if itm is not None:
            matching = build_from(_Matching, itm, 'model.head.itm')
            self.itm_weight = matching.weight
            self.itm = MatchingHead(in_channels).requires_grad_(not matching.frozen)
            # As in METER, ranking begins as the logit of a match.
            with torch.no_grad():
                self.rank_output.weight.copy_(self.itm.fc.weight[1:])
                self.rank_output.bias.copy_(self.itm.fc.bias[1:])

    def forward(self, features: Tensor) -> Tensor:
        """``[..., 2 C]`` to scores, fp32 ``[...]``."""
        return in_fp32(self.rank_output, features)[..., 0]

    score = forward

    def loss(self, features: Tensor, data_samples: Samples) -> dict:
        """Losses of images with their texts.

        Args:
            features (Tensor): ``[B, S, 2 C]``; the first text of each image is true.
            data_samples (list[VisionLanguageDataSample]): Not used.

        Raises:
            UserError: There is no false text to compare with.
        """
        check(
            'texts of a training sample (1 + num_negatives)', features.shape[1], least=2
        )
        scores = self(features)
        target = torch.zeros(len(scores), dtype=torch.long, device=scores.device)
        losses = dict(loss_rank=F.cross_entropy(scores, target))
        if self.itm is not None:
            matching = self.itm.loss(features, data_samples)
            losses['loss_itm'] = self.itm_weight * matching['loss_itm']
        return losses

    def predict(self, features: Tensor, data_samples: Samples) -> Samples:
        """Add ``pred_scores`` ``[S]``, one score a text."""
        return _with_scores(data_samples, self(features))


def _with_scores(data_samples: Samples, rows: Tensor) -> Samples:
    """Set ``pred_scores`` of each sample to its row."""
    for sample, scores in zip(data_samples, rows, strict=True):
        sample.pred_scores = scores
    return data_samples
