"""A batch of METER of full size, without a data set, for the cost of a training step."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.utils import to_2tuple

from lm4ve.tasks.base.batches import TaskBatches, trained_dataset
from lm4ve.tasks.vqa import TASK
from lm4ve.text.preprocessor import PlaceholderTokenizer
from lm4ve.text.structures import VisionLanguageDataSample

#: Tokens of a text, special ones included. In a batch the longest text counts.
WORDS = 20
#: Answers of VQAv2 that occur at least nine times.
ANSWERS = 3129


class METERBatches(TaskBatches):
    """Images with texts of :data:`WORDS` tokens."""

    def imagine(self, model: ConfigDict) -> None:
        preprocessor = model.get('data_preprocessor') or {}
        if preprocessor.get('tokenizer') is not None:
            config = model.text_encoder.get('config') or {}
            pad_token_id = config.get('pad_token_id', 0)
            preprocessor['tokenizer'] = PlaceholderTokenizer(pad_token_id)
        if isinstance(model.head.get('vocabulary'), str):
            model.head.vocabulary = [f'answer {i}' for i in range(ANSWERS)]

    def sample(self, cfg: Config, training: bool) -> dict[str, Any]:
        height, width = to_2tuple(_image_size(cfg.model.image_encoder))
        pixels = torch.zeros(3, height, width, dtype=torch.uint8)
        count = _texts_per_image(trained_dataset(cfg)) if training else 1
        vocabulary = cfg.model.head.get('vocabulary')
        answers = [vocabulary[0] if isinstance(vocabulary, list) else '']
        metainfo = dict(
            text=[' '.join(['word'] * WORDS)] * count,
            gt_answers=answers if count == 1 else [answers] * count,
        )
        sample = VisionLanguageDataSample(metainfo=metainfo)
        return dict(inputs=pixels, data_samples=sample)


def _image_size(encoder: ConfigDict) -> int | Sequence[int]:
    """Return the size of the images that an encoder's config names; 224 without one."""
    for fields in (encoder, encoder.get('config') or {}):
        for name in ('image_size', 'img_size'):
            if fields.get(name):
                return fields[name]
    return 224


def _texts_per_image(dataset: ConfigDict) -> int:
    """Return how many questions, or true and false captions, a training sample has."""
    questions = dataset.get('questions_per_image')
    if questions:
        return questions
    return 1 + dataset.get('num_negatives', 0)


BATCHES = METERBatches(TASK)
