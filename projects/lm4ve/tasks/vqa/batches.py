"""A batch of METER of full size, without a data set, for the cost of a training step."""

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
            preprocessor['tokenizer'] = PlaceholderTokenizer(
                config.get('pad_token_id', 0)
            )
        if isinstance(model.head.get('vocabulary'), str):
            model.head.vocabulary = [f'answer {i}' for i in range(ANSWERS)]

    def sample(self, cfg: Config, training: bool) -> dict[str, Any]:
        encoder = cfg.model.image_encoder
        sizes = encoder, encoder.get('config') or {}
        size = next(
            (s[k] for s in sizes for k in ('image_size', 'img_size') if s.get(k)), 224
        )
        height, width = to_2tuple(size)
        dataset = trained_dataset(cfg) if training else {}
        texts = dataset.get('questions_per_image') or 1 + dataset.get(
            'num_negatives', 0
        )
        vocabulary = cfg.model.head.get('vocabulary')
        answers = [vocabulary[0] if isinstance(vocabulary, list) else '']
        metainfo = dict(
            text=[' '.join(['word'] * WORDS)] * texts,
            gt_answers=answers if texts == 1 else [answers] * texts,
        )
        pixels = torch.zeros(3, height, width, dtype=torch.uint8)
        return dict(
            inputs=pixels, data_samples=VisionLanguageDataSample(metainfo=metainfo)
        )


BATCHES = METERBatches(TASK)
