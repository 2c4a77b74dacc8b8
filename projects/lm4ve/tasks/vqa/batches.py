"""What the cost tool asks the vision-language task."""

from types import MappingProxyType
from typing import Any

import torch
from mmengine.config import Config, ConfigDict

from lm4ve.tasks.base.batches import TaskBatches, trained_dataset
from lm4ve.tasks.base.language.structures import VisionLanguageDataSample
from lm4ve.tasks.vqa import TASK

#: Tokens of a text, special ones included. In a batch the longest text counts.
WORDS = 20
#: Answers of VQAv2 that occur at least nine times, and of SQA3D's training set.
VQA_ANSWERS, SCENE_ANSWERS = 3129, 706
#: Points of a scanned room, its classes of objects, and boxes in it.
POINTS, CLASSES, BOXES = 40_000, 18, 16
#: Width of the vectors of words, of GloVe.
VECTOR = 300


class MadeUpTokenizer:
    """Gives every text as many tokens as it has words, all of number 5.

    Args:
        pad_token_id (int): Its padding.
    """

    all_special_ids = ()

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __len__(self) -> int:
        return 6

    def __call__(self, texts: list[str], **options: Any) -> dict[str, list[list[int]]]:
        return dict(input_ids=[[5] * len(text.split()) for text in texts])

    def get_vocab(self) -> dict[str, int]:
        """Return no words: nothing is looked up."""
        return {}

    def num_special_tokens_to_add(self) -> int:
        """Return 0: the made-up texts count theirs as words."""
        return 0


class VisionLanguageBatches(TaskBatches):
    """Pictures with texts of :data:`WORDS` tokens, or rooms of 40,000 points with two texts."""

    def imagine(self, model: ConfigDict) -> None:
        if 'remember' in model.text_encoder:
            model.text_encoder.remember = 0  # it looks texts up by their values
        preprocessor = model.get('data_preprocessor') or {}
        if preprocessor.get('tokenizer') is not None:
            config = model.text_encoder.get('config') or {}
            preprocessor['tokenizer'] = MadeUpTokenizer(config.get('pad_token_id', 0))
        if preprocessor.get('word_vectors') is not None:
            width = model.text_encoder.get('in_channels', VECTOR)
            preprocessor['word_vectors'] = MappingProxyType(dict(unk=[0.0] * width))
        if isinstance(model.head.get('vocabulary'), str):
            model.head.vocabulary = [f'answer {i}' for i in range(VQA_ANSWERS)]
        if isinstance(model.head.get('answers'), str):
            model.head.answers = [f'answer {i}' for i in range(SCENE_ANSWERS)]
        encoder = model.get('object_encoder') or {}
        if isinstance(encoder.get('mean_sizes'), str):
            encoder['mean_sizes'] = [[1.0, 1.0, 1.0]] * CLASSES

    def sample(self, cfg: Config, training: bool) -> dict:
        if 'object_encoder' in cfg.model:
            return _room(cfg)
        size = _image_size(cfg.model.image_encoder)
        dataset = trained_dataset(cfg) if training else {}
        texts = dataset.get('questions_per_image') or 1 + dataset.get('num_negatives', 0)
        answers = _answers(cfg)
        found = VisionLanguageDataSample(
            metainfo=dict(
                text=[' '.join(['word'] * WORDS)] * texts,
                gt_answers=answers if texts == 1 else [answers] * texts,
            )
        )
        return dict(inputs=torch.zeros(3, size, size, dtype=torch.uint8), data_samples=found)


def _answers(cfg: Config) -> list[str]:
    known = cfg.model.head.get('vocabulary') or cfg.model.head.get('answers') or ['']
    return [known[0] if isinstance(known, list) else 'answer 0']


def _image_size(encoder: ConfigDict) -> int:
    size = encoder.get('image_size') or encoder.get('img_size')
    if size is None:
        size = (encoder.get('config') or {}).get('image_size', 224)
    return size if isinstance(size, int) else size[0]


def _room(cfg: Config) -> dict:
    """Return a scanned room, or its stored objects, with all annotations."""
    encoder = cfg.model.object_encoder
    text = ' '.join(['word'] * WORDS)
    found = VisionLanguageDataSample(
        metainfo=dict(text=[text, text], scene_id='made up', gt_answers=_answers(cfg))
    )
    found.gt_pose = torch.zeros(7)
    if not str(encoder.type).endswith('VoteNet'):
        return dict(inputs=dict(objects=torch.zeros(256, encoder.in_channels)), data_samples=found)
    found.gt_boxes = torch.ones(BOXES, 6)
    found.gt_labels = torch.zeros(BOXES, dtype=torch.int64)
    found.gt_votes = torch.zeros(POINTS, 3)
    found.gt_vote_mask = torch.ones(POINTS, dtype=torch.bool)
    points = torch.zeros(POINTS, 3 + encoder.get('in_channels', 4))
    return dict(inputs=dict(points=points), data_samples=found)


BATCHES = VisionLanguageBatches(TASK)
