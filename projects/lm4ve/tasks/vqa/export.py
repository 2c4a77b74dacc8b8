"""The exported function of METER: images and token numbers to answers or scores."""

from typing import Any

from mmengine.config import Config
from torch import Tensor

from lm4ve.tasks.base.export import (
    TaskExport,
    array_samples,
    made_up_pictures,
    normalization_of,
)
from lm4ve.tasks.vqa import TASK

#: Texts of unequal lengths, for the padding.
_TEXTS = ('what is it', 'a picture of two red things on the left', 'yes')


class METERExport(TaskExport):
    """Raw images and numbers of words to logits of answers, or to the scores of pairs.

    Of retrieval the function scores image i with text i: repeat an image for each of
    its captions.
    """

    inputs = {
        'images': "pixels from 0 to 255 behind the test pipeline's resizing and cropping",
        'input_ids': "int64 [batch, words], of the config's tokenizer, padded at the end",
        'text_padding': 'bool [batch, words], True where there is no word',
    }
    outputs = {
        'logits': 'of each answer [batch, answers]; of retrieval, of each pair [batch]'
    }
    axes = {'input_ids': {1: 'words'}, 'text_padding': {1: 'words'}}

    def limits(self, model: Any) -> dict[str, int]:
        return dict(words=model.data_preprocessor.max_length)

    def samples(
        self, cfg: Config, count: int, pipeline: list[dict] | None = None
    ) -> list[dict]:
        kind = 'question' if str(cfg.model.head.type).endswith('VQAHead') else 'caption'
        texts = []
        for i in range(count):
            texts.append({kind: _TEXTS[i % len(_TEXTS)]})
        return array_samples(self.task, cfg, made_up_pictures(count), '.png', texts)

    def tensors(self, model: Any, data: Any) -> tuple[Tensor, ...]:
        (images,) = super().tensors(model, data)
        texts = [sample.text[0] for sample in data['data_samples']]
        ids, padding = model.data_preprocessor.tokenize(texts)
        return images, ids, padding

    def forward(self, model: Any, *tensors: Tensor) -> Tensor:
        image, ids, padding = tensors
        images = model.encode_images(model.data_preprocessor.normalize(image))
        fused = model.fusion(images, model.encode_texts(ids, padding), padding)
        return _read(model, model.pool(fused, padding))

    def expected(self, model: Any, data: Any) -> Tensor:
        features: Any = super().expected(model, data)
        return _read(model, features[:, 0])

    def meaning(self, model: Any, cfg: Config) -> dict[str, Any]:
        meaning = dict(
            normalization_of(model), tokenizer=model.data_preprocessor.describe()
        )
        if hasattr(model.head, 'vocabulary'):
            meaning['answers'] = model.head.vocabulary
        return meaning


def _read(model: Any, features: Tensor) -> Tensor:
    """Compute the head's logits or scores of features ``[B, 2 C]``."""
    if hasattr(model.head, 'vocabulary'):
        return model.head(features)
    return model.head.score(features)


EXPORT = METERExport(TASK)
