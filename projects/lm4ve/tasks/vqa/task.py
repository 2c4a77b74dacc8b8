"""What the package asks of METER's tasks: reads, makes up, describes, exports samples."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.utils import to_2tuple
from torch import Tensor, nn

from lm4ve.draw.pictures import pixels_of
from lm4ve.errors import require
from lm4ve.tasks.base.layouts import (
    Layout,
    Rows,
    Watched,
    prefix_of,
    proportional_grid,
)
from lm4ve.tasks.base.made_up import made_up_picture
from lm4ve.tasks.base.protocol import TaskProtocol
from lm4ve.tasks.base.tested import pipeline_of, trained_dataset
from lm4ve.tasks.vqa import TASK
from lm4ve.tasks.vqa.inference import ImageReader, list_images, max_pixels_of
from lm4ve.tasks.vqa.tokens import WordLayout, cross_attention, last_layer, runs_joint
from lm4ve.tasks.vqa.visualization import ImageAndWords
from lm4ve.text.preprocessor import PlaceholderTokenizer
from lm4ve.text.words import list_texts, words_of

#: Words of the longest made-up text.
WORDS = 20
#: Answers of VQAv2 that occur at least nine times.
ANSWERS = 3129


class ImageTextProtocol(TaskProtocol):
    """An image with a question or captions: tokens on a grid, and a token for each word.

    Of an image with several captions the first one is shown. An exported function maps
    raw images and numbers of words to logits of answers, or to the scores of pairs: it
    scores image i with text i, so an image is repeated for each of its captions.
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

    def read(
        self, source: Any, cfg: Config, pipeline: list[dict], **options: Any
    ) -> dict:
        """Read an image with a ``question``, or a ``caption`` (``|`` between several)."""
        asks = str(cfg.model.head.type).endswith('VQAHead')
        option = 'question' if asks else 'caption'
        given_options = [f'--{name}' for name in options]
        if not given_options:
            given_options = ['missing']
        require(
            list(options) == [option],
            f'The text beside an image is --{option} for {cfg.model.head.type}, not '
            f'{" and ".join(given_options)}.',
        )
        texts = [options[option]] if asks else options[option].split('|')
        (image,) = list_images(source, max_pixels_of(cfg))
        entry = dict(
            img_path=image,
            text=list_texts(texts, f'--{option}'),
            gt_answers=[],
            sample_idx=0,
        )
        return ImageReader(pipeline)(entry)

    def example(self, cfg: Config, number: int = 0, training: bool = False) -> dict:
        """Return a made-up picture with texts; the first has :data:`WORDS` words.

        For a training it has as many texts as a sample of the data set.
        """
        height, width = to_2tuple(_image_size(cfg.model.image_encoder))
        words = ['word'] * max(WORDS - 7 * number, 1)
        count = _texts_per_image(trained_dataset(cfg)) if training else 1
        vocabulary = cfg.model.head.get('vocabulary')
        answers = [vocabulary[0] if isinstance(vocabulary, list) else '']
        entry = dict(
            img_path=made_up_picture(number, height, width),
            text=[' '.join(words)] * count,
            gt_answers=answers if count == 1 else [answers] * count,
            sample_idx=number,
        )
        return ImageReader(pipeline_of(cfg, training))(entry)

    def imagine(self, model: Any) -> None:
        preprocessor = model.get('data_preprocessor') or {}
        if preprocessor.get('tokenizer') is not None:
            config = model.text_encoder.get('config') or {}
            pad_token_id = config.get('pad_token_id', 0)
            preprocessor['tokenizer'] = PlaceholderTokenizer(pad_token_id)
        if isinstance(model.head.get('vocabulary'), str):
            model.head.vocabulary = [f'answer {i}' for i in range(ANSWERS)]

    def runnable(self, data: Any) -> Any:
        """Return a batch that the model can run: one text an image.

        A sample of retrieval has several captions. The copies here have the first one;
        their other fields stay.
        """
        samples = []
        for sample in data['data_samples']:
            meta = dict(sample.metainfo, text=sample.text[:1])
            samples.append(sample.new(metainfo=meta))
        return data | dict(data_samples=samples)

    # ----------------------------------------------------------------- where to look
    def further_points(self, model: nn.Module) -> dict[str, str]:
        """Return modules to look at beside the neck: the last layers of the fusion.

        A neck on both streams gives the words' tokens itself; otherwise the last layer
        of the text stream does.
        """
        last = last_layer(model.fusion)
        if last is None:
            return {}
        points = dict(encoder=f'fusion.image_layers.{last}')
        if not runs_joint(model):
            points['words'] = f'fusion.text_layers.{last}'
        return points

    def watched(self, model: nn.Module) -> list[Watched]:
        """Watch how words attend to the image in the last layer of the fusion."""
        last = last_layer(model.fusion)
        if last is None:
            return []
        name = f'fusion.text_layers.{last}.crossattention.self'

        def read(module: nn.Module, inputs: dict, arguments: Mapping[str, Any]) -> Rows:
            """Return the attention of each word to the image's tokens."""
            image = arguments['encoder_hidden_states']
            weights = cross_attention(module, arguments['hidden_states'], image)
            padding = inputs['text_padding'].flatten(0, 1)
            texts = words_of(model, inputs['input_ids'].flatten(0, 1), padding)
            titles = []
            for words in texts:
                # Without the last special token.
                titles.append(words[:-1] if len(words) > 2 else words)
            layout = self._layout_of_image(model, inputs, image.shape[1])
            return Rows(weights.masked_fill(padding[..., None], 0.0), titles, layout)

        return [Watched('words to image', name, read)]

    # ---------------------------------------------------------------- where tokens lie
    def layout(
        self,
        name: str,
        model: Any,
        inputs: dict,
        count: int,
        grid: tuple[int, ...] | None = None,
    ) -> Layout:
        """Find the places of a module's tokens, words or image by the module's name."""
        padding = inputs['text_padding'].flatten(0, 1)
        words = padding.shape[1]
        if name.startswith(('text_', 'fusion.text_')):
            return WordLayout(self.task.name, 0, (words,), padding).fitting(count)
        if name.startswith('neck') and model.tokens == 'joint':
            image = self._layout_of_image(model, inputs, count - words)
            no_padding = padding.new_zeros(len(padding), image.num_placed)
            padding = torch.cat((no_padding, padding), dim=1)
            joint_grid = (*image.grid, words)
            return WordLayout(self.task.name, image.prefix, joint_grid, padding)
        if grid is not None:
            return Layout(self.task.name, 0, grid)
        return self._layout_of_image(model, inputs, count)

    def _layout_of_image(self, model: Any, inputs: dict, count: int) -> Layout:
        """Find the places of an image's tokens by their number."""
        encoder: Any = model.image_encoder
        prefix = getattr(encoder, 'num_prefix_tokens', None)
        if prefix is None:
            prefix = prefix_of(encoder, count)
        height, width = inputs['image'].shape[-2:]
        grid = proportional_grid(max(count - prefix, 1), height, width)
        return Layout(self.task.name, prefix, grid).fitting(count)

    # ------------------------------------------------------------ how a sample looks
    def pictures(
        self, model: nn.Module, inputs: dict, outputs: Sequence[Any], frames: int
    ) -> list[ImageAndWords]:
        """Return a picture of each sample: its image, and the words of its first text."""
        pixels = pixels_of(inputs['image'], model.data_preprocessor)
        if not getattr(model.data_preprocessor, 'to_rgb', True):
            pixels = pixels[..., ::-1]
        words = words_of(model, inputs['input_ids'][:, 0], inputs['text_padding'][:, 0])
        joint = runs_joint(model)
        pictures = []
        for image, tokens, output in zip(pixels, words, outputs, strict=True):
            picture = ImageAndWords(image[None], tokens, first_text(output), joint)
            pictures.append(picture)
        return pictures

    def describe(
        self, output: Any, classes: Sequence[str] | None, evaluator: Any
    ) -> dict[str, str]:
        """Return the question, the answer with its score, and the annotators' answers."""
        text = first_text(output)
        answer = output.get('pred_answer')
        scores = output.get('pred_scores')
        if answer is None:
            return dict(caption=text, score=f'{float(scores[0]):.3f}')
        percent = 100 * float(scores.max())
        facts = dict(question=text, prediction=f'{answer} ({percent:.1f} %)')
        truth = output.get('gt_answers')
        if truth:
            counted = []
            for true_answer, count in Counter(truth).most_common(3):
                counted.append(f'{true_answer} ({count} of {len(truth)})')
            facts['truth'] = ', '.join(counted)
        return facts

    # ------------------------------------------------------- the model as a function
    def limits(self, model: Any) -> dict[str, int]:
        return dict(words=model.data_preprocessor.max_length)

    def tensors(self, model: Any, data: Any) -> tuple[Tensor, ...]:
        (images,) = super().tensors(model, data)
        texts = [sample.text[0] for sample in data['data_samples']]
        ids, padding = model.data_preprocessor.tokenize(texts)
        return images, ids, padding

    def forward(self, model: Any, *tensors: Tensor) -> Tensor:
        image, ids, padding = tensors
        images = model.encode_images(model.data_preprocessor.normalize(image))
        fused = model.fusion(images, model.encode_texts(ids, padding), padding)
        return _scores_of(model, model.pool(fused, padding))

    def expected(self, model: Any, data: Any) -> Tensor:
        features: Any = super().expected(model, data)
        return _scores_of(model, features[:, 0])

    def meaning(self, model: Any, cfg: Config) -> dict[str, Any]:
        meaning = super().meaning(model, cfg)
        meaning['tokenizer'] = model.data_preprocessor.describe()
        if hasattr(model.head, 'vocabulary'):
            meaning['answers'] = model.head.vocabulary
        return meaning


def first_text(output: Any) -> str:
    """Return the first text of a sample; an empty one if it has none."""
    texts = output.get('text')
    return texts[0] if texts else ''


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


def _scores_of(model: Any, features: Tensor) -> Tensor:
    """Compute the head's logits or scores of features ``[B, 2 C]``."""
    if hasattr(model.head, 'vocabulary'):
        return model.head(features)
    return model.head.score(features)


PROTOCOL = ImageTextProtocol(TASK)
