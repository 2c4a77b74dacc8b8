"""Heads of :class:`SQA3D`: the answer to the question, and where its asker stands."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lm4ve.errors import UserError, check
from lm4ve.registry import MODELS
from lm4ve.tasks.rooms.models.fusion import two_layers
from lm4ve.text.structures import VisionLanguageDataSample
from lm4ve.text.vocabulary import SCORES, TARGETS, VocabularyHead, in_fp32

Samples = list[VisionLanguageDataSample]
Corpus = str | Path | Sequence[str] | Mapping[str, int]


def count_answers(source: Corpus, field: str) -> dict[str, int]:
    """Return how often each answer occurs, by the answers in alphabetical order.

    Args:
        source (str | Path | Sequence[str] | Mapping[str, int]): All answers of a
            corpus, one entry an occurrence, as ``answer_counter.json`` of SQA3D's
            release; or counts by answers; or the JSON file of either.
        field (str): The config's field, for messages.

    Raises:
        UserError: It is neither, or it is empty.
    """
    corpus: Any = source
    if isinstance(source, str | Path):
        corpus = json.loads(Path(source).read_text())
    counts = dict(corpus) if isinstance(corpus, Mapping) else Counter(corpus)
    are_texts = all(isinstance(answer, str) for answer in counts)
    # A truth value is no count, though it is an int.
    are_counts = all(type(count) is int for count in counts.values())
    if not counts or not are_texts or not are_counts:
        raise UserError(
            f'{field} must be all answers of a corpus, or the count of each.'
        )
    return dict(sorted(counts.items()))


@MODELS.register_module()
class SceneAnswerHead(VocabularyHead):
    """Classifies the answer: Linear, GELU, dropout, Linear.

    Args:
        answers (str | Sequence[str] | Mapping[str, int]): See :func:`count_answers`.
            The A answers that occur are the classes, in alphabetical order.
        in_channels (int): 3 E: situation, question and objects.
        hidden_channels (int): Width between the layers.
        dropout (float): Behind the first layer.
        targets (str): 'soft': the target of an answer is .3, .6, .9 or 1 for one to
            four occurrences or more in the corpus, as in the release; 'hard': 1.

    The loss is the binary cross-entropy, summed over answers, mean over questions. A
    fingerprint of the vocabulary is a part of every checkpoint.

    Source: the ScanQA baseline in SQA3D's code.
    """

    vocabulary_field = 'model.head.answers'

    def __init__(
        self,
        answers: Corpus,
        in_channels: int = 1536,
        hidden_channels: int = 256,
        dropout: float = 0.3,
        targets: str = 'soft',
    ) -> None:
        super().__init__()
        check('model.head.targets', targets, choices=TARGETS)
        self.in_channels = in_channels
        counts = count_answers(answers, self.vocabulary_field)
        self.scores = {}
        for answer, count in counts.items():
            score = SCORES[min(count, len(SCORES) - 1)]
            self.scores[answer] = score if targets == 'soft' else 1.0
        self.layers = two_layers(in_channels, hidden_channels, len(counts), dropout)
        self.set_vocabulary(list(counts))

    @staticmethod
    def portable(node: dict) -> dict:
        """Put the answers and their counts in the place of their file, for a release."""
        counts = count_answers(node['answers'], SceneAnswerHead.vocabulary_field)
        return dict(answers=counts)

    def forward(self, features: Tensor) -> Tensor:
        """``[B, 3 E]`` to logits, fp32 ``[B, A]``."""
        return in_fp32(self.layers, features)

    def loss(self, features: Tensor, data_samples: Samples) -> dict[str, Tensor]:
        """Loss of questions ``[B, 3 E]`` whose samples have ``gt_answers`` (list[str]).

        An answer that is not in the vocabulary is left out.
        """
        logits = self(features)
        targets = torch.zeros(logits.shape, device='cpu')
        for row, sample in enumerate(data_samples):
            for answer in sample.gt_answers:
                if answer in self.index:
                    targets[row, self.index[answer]] = self.scores[answer]
        targets = targets.to(logits, non_blocking=True)
        loss = F.binary_cross_entropy_with_logits(logits, targets, reduction='sum')
        return dict(answer=loss / len(logits))

    def predict(self, features: Tensor, data_samples: Samples) -> None:
        """Add predictions.

        ``pred_answer``, ``pred_label``, ``pred_scores`` (sigmoid, ``[A]``), and
        ``pred_top_answers``, the ten best ones (list[str], fewer if A is smaller).
        """
        # All of them at once: each sample below would wait for a GPU by itself.
        scores = self(features).sigmoid().cpu()
        best = scores.topk(min(10, len(self.vocabulary))).indices.tolist()
        for sample, row, top in zip(data_samples, scores, best, strict=True):
            sample.set_answer(row, self.vocabulary)
            sample.pred_top_answers = [self.vocabulary[i] for i in top]


@MODELS.register_module()
class PoseHead(nn.Module):
    """Predicts the position and heading of the asker, an auxiliary task.

    Args:
        in_channels (int): 2 E: situation and objects.
        hidden_channels (int): Width between the layers.
        dropout (float): Behind the first layer.

    Poses are float ``[7]``: x, y, z in meters and a quaternion x, y, z, w, in the frame
    of the points. The loss is the mean squared error of the position plus that of the
    quaternion, each a mean over numbers and questions (SQA3D, section 4.2, and its
    code).
    """

    def __init__(
        self, in_channels: int = 1024, hidden_channels: int = 256, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.layers = two_layers(in_channels, hidden_channels, 7, dropout)

    def forward(self, features: Tensor) -> Tensor:
        """``[B, 2 E]`` to poses, fp32 ``[B, 7]``."""
        return in_fp32(self.layers, features)

    def loss(self, features: Tensor, data_samples: Samples) -> dict[str, Tensor]:
        """Loss of poses; samples have ``gt_pose`` ``[7]``."""
        found = self(features)
        poses = torch.stack([sample.gt_pose for sample in data_samples])
        poses = poses.to(found, non_blocking=True)
        position = F.mse_loss(found[:, :3], poses[:, :3])
        heading = F.mse_loss(found[:, 3:], poses[:, 3:])
        return dict(pose=position + heading)

    def predict(self, features: Tensor, data_samples: Samples) -> None:
        """Add ``pred_pose``, ``[7]``; its quaternion is not of length 1."""
        poses = self(features).cpu()
        for sample, pose in zip(data_samples, poses, strict=True):
            sample.pred_pose = pose
