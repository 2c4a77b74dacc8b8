"""Activations of METER: tokens of an image on a grid, and a token for each word."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mmcv.transforms  # noqa: F401  (registers LoadImageFromFile)
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from torch import Tensor, nn

from lm4ve.data.image_files import MAX_PIXELS
from lm4ve.draw.pictures import pixels_of
from lm4ve.errors import require
from lm4ve.tasks.base.analysis import (
    Layout,
    Rows,
    TaskAnalysis,
    Watched,
    prefix_of,
    proportional_grid,
    tested_field,
)
from lm4ve.tasks.vqa import TASK
from lm4ve.tasks.vqa.inference import list_images
from lm4ve.tasks.vqa.visualization import ImageAndWords
from lm4ve.text.words import list_texts, words_of


class WordLayout(Layout):
    """The places of tokens of words, or of an image and then words.

    Its grid is ``(words,)``, or ``(rows, columns, words)`` of a joint sequence.
    """

    @property
    def num_placed(self) -> int:
        """How many tokens have a place: all words, and all cells of the image."""
        if len(self.grid) == 1:
            return self.grid[0]
        rows, columns, words = self.grid
        return rows * columns + words

    @property
    def times(self) -> int:
        """One, since there are no frames."""
        return 1


class ImageTextAnalysis(TaskAnalysis):
    """An image with a question or captions: tokens on a grid, and a token for each word.

    Of an image with several captions the first one is shown.
    """

    def read_input(
        self, cfg: Config, path: Path, pipeline: list[dict], **options: Any
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
        (image,) = list_images(path, tested_field(cfg, 'max_pixels', MAX_PIXELS))
        entry = dict(
            img_path=str(image),
            text=list_texts(texts, f'--{option}'),
            gt_answers=[],
            sample_idx=0,
        )
        return Compose(pipeline)(entry)

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
            layout = self.layout(model, inputs, image.shape[1])
            return Rows(weights.masked_fill(padding[..., None], 0.0), titles, layout)

        return [Watched('words to image', name, read)]

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

    # ---------------------------------------------------------------- where tokens lie
    def layout(
        self,
        model: nn.Module,
        inputs: dict,
        count: int,
        grid: tuple[int, ...] | None = None,
    ) -> Layout:
        """Find the places of an image's tokens by their number."""
        if grid is not None:
            return Layout(self.task.name, 0, grid)
        encoder: Any = model.image_encoder
        prefix = getattr(encoder, 'num_prefix_tokens', None)
        if prefix is None:
            prefix = prefix_of(encoder, count)
        height, width = inputs['image'].shape[-2:]
        grid = proportional_grid(max(count - prefix, 1), height, width)
        return Layout(self.task.name, prefix, grid).fitting(count)

    def layout_at(
        self, name: str, model: nn.Module, inputs: dict, count: int, grid: Any = None
    ) -> Layout:
        """Find the places of a module's tokens, words or image by the module's name."""
        padding = inputs['text_padding'].flatten(0, 1)
        words = padding.shape[1]
        if name.startswith(('text_', 'fusion.text_')):
            return WordLayout(self.task.name, 0, (words,), padding).fitting(count)
        if name.startswith('neck') and model.tokens == 'joint':
            image = self.layout(model, inputs, count - words)
            no_padding = padding.new_zeros(len(padding), image.num_placed)
            padding = torch.cat((no_padding, padding), dim=1)
            grid = (*image.grid, words)
            return WordLayout(self.task.name, image.prefix, grid, padding)
        return self.layout(model, inputs, count, grid)

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

    def facts(self, output: Any, classes: Sequence[str] | None) -> dict[str, str]:
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


def last_layer(fusion: Any) -> int | None:
    """Return the number of a fusion's last layer; None without layers of co-attention."""
    count = len(getattr(fusion, 'text_layers', ()))
    return count - 1 if count else None


def runs_joint(model: Any) -> bool:
    """Return whether a model's neck takes image and text in one sequence."""
    return model.neck is not None and model.tokens == 'joint'


def first_text(output: Any) -> str:
    """Return the first text of a sample; an empty one if it has none."""
    texts = output.get('text')
    return texts[0] if texts else ''


def cross_attention(module: Any, text: Tensor, image: Tensor) -> Tensor:
    """Compute the softmax attention of words to an image again, which fused kernels drop.

    Args:
        module (nn.Module): Has ``query``, ``key`` and ``num_attention_heads``.
        text (Tensor): ``[B, L, C]``.
        image (Tensor): ``[B, N, C]``.

    Returns:
        Tensor: fp32 ``[B, L, N]``, the mean over heads.
    """
    heads = module.num_attention_heads
    query = module.query(text).unflatten(-1, (heads, -1)).transpose(1, 2).float()
    key = module.key(image).unflatten(-1, (heads, -1)).transpose(1, 2).float()
    scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
    return scores.softmax(dim=-1).mean(dim=1)


ANALYSIS = ImageTextAnalysis(TASK)
