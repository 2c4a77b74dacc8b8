"""Activations of METER: tokens of an image on a grid, and a token for each word."""

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mmcv.transforms  # noqa: F401  (registers LoadImageFromFile)
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from torch import Tensor, nn

from lm4ve.errors import UserError
from lm4ve.tasks.base.analysis import (
    Layout,
    Rows,
    TaskAnalysis,
    Watched,
    prefix_of,
    proportional_grid,
)
from lm4ve.tasks.base.language.words import words_of
from lm4ve.tasks.base.pictures import pixels_of
from lm4ve.tasks.vqa import TASK
from lm4ve.tasks.vqa.inference_inputs import list_images
from lm4ve.tasks.vqa.visualization import ImageAndWords

#: How many of the annotators' answers are named.
_MOST_ANSWERS = 3


class WordLayout(Layout):
    """The places of words: their number, or rows, columns and words of a joint sequence."""

    @property
    def num_placed(self) -> int:
        *image, words = self.grid
        return words + (image[0] * image[1] if image else 0)

    @property
    def times(self) -> int:
        return 1


class ImageTextAnalysis(TaskAnalysis):
    """An image with a question or captions: tokens on a grid, and a token for each word.

    Of an image with several captions the first one is shown.
    """

    def read_input(self, cfg: Config, path: Path, pipeline: list[dict], **options: Any) -> dict:
        """Read an image; ``question`` or ``caption`` is what the config's model takes."""
        text = read_texts(cfg, **options)
        (path,) = list_images(path)
        entry = dict(img_path=str(path), text=text, gt_answers=[], sample_idx=0)
        return Compose(pipeline)(entry)

    # ----------------------------------------------------------------- where to look
    def further_points(self, model: nn.Module) -> dict[str, str]:
        """Look at both streams behind the fusion; a neck on both of them has the words."""
        if not hasattr(model.fusion, 'text_layers'):
            return {}
        last = len(model.fusion.text_layers) - 1
        points = dict(encoder=f'fusion.image_layers.{last}')
        if model.neck is None or model.tokens == 'visual':
            points['words'] = f'fusion.text_layers.{last}'
        return points

    def watched(self, model: nn.Module) -> list[Watched]:
        """Watch how words attend to the image in the last layer of the fusion."""
        layers = getattr(model.fusion, 'text_layers', ())
        if not len(layers) or not hasattr(layers[-1], 'crossattention'):
            return []
        name = f'fusion.text_layers.{len(layers) - 1}.crossattention.self'

        def read(module: nn.Module, inputs: dict, arguments: Mapping[str, Any]) -> Rows:
            image = arguments['encoder_hidden_states']
            weights = cross_attention(module, arguments['hidden_states'], image)
            padding = inputs['text_padding'].flatten(0, 1)
            titles = [
                words[:-1] if len(words) > 2 else words
                for words in words_of(model, inputs['input_ids'].flatten(0, 1), padding)
            ]
            layout = self._of_image(model, inputs, image.shape[1])
            return Rows(weights.masked_fill(padding[..., None], 0.0), titles, layout)

        return [Watched('words to image', name, read)]

    def runnable(self, data: Any) -> Any:
        """Leave as many captions of each image as all images of the batch have."""
        samples = data['data_samples']
        least = min(len(s.text) for s in samples)
        if all(len(s.text) == least for s in samples):
            return data
        samples = [copy.copy(s) for s in samples]
        for s in samples:
            s.set_metainfo(dict(text=s.text[:least]))
        return {**data, 'data_samples': samples}

    # ---------------------------------------------------------------- where tokens lie
    def layout(
        self, model: nn.Module, inputs: dict, count: int, grid: tuple[int, ...] | None = None
    ) -> Layout:
        """Find the places of tokens by their number: as many as there are words are words."""
        if count == inputs['text_padding'].shape[-1]:
            return self._of_words(inputs)
        return self._of_image(model, inputs, count, grid)

    def layout_at(
        self,
        name: str,
        model: nn.Module,
        inputs: dict,
        count: int,
        grid: tuple[int, ...] | None = None,
    ) -> Layout:
        """Find the places of a module's tokens, words or image by the module's name."""
        if name.startswith(('text_', 'fusion.text_')):
            return self._of_words(inputs).fitting(count)
        if name.startswith('neck') and model.tokens == 'joint':
            words = self._of_words(inputs)
            image = self._of_image(model, inputs, count - words.num_placed)
            padding = words.padding_mask
            free = padding.new_zeros(len(padding), image.num_placed)
            return WordLayout(
                self.task.name,
                image.prefix,
                (*image.grid, words.num_placed),
                torch.cat((free, padding), dim=1),
            ).fitting(count)
        return self._of_image(model, inputs, count, grid)

    def _of_words(self, inputs: dict) -> WordLayout:
        padding = inputs['text_padding'].flatten(0, 1)
        return WordLayout(self.task.name, 0, (padding.shape[1],), padding)

    def _of_image(
        self, model: nn.Module, inputs: dict, count: int, grid: tuple[int, ...] | None = None
    ) -> Layout:
        if grid is not None:
            return Layout(self.task.name, 0, grid)
        encoder = model.image_encoder
        prefix = getattr(encoder, 'num_prefix_tokens', None)
        prefix = prefix_of(encoder, count) if prefix is None else prefix
        grid = proportional_grid(max(count - prefix, 1), *inputs['image'].shape[-2:])
        return Layout(self.task.name, prefix, grid).fitting(count)

    # ------------------------------------------------------------ how a sample looks
    def pictures(
        self, model: nn.Module, inputs: dict, outputs: Sequence[Any], frames: int
    ) -> list[ImageAndWords]:
        pixels = pixels_of(inputs['image'], model.data_preprocessor)
        if not getattr(model.data_preprocessor, 'to_rgb', True):
            pixels = pixels[..., ::-1]
        words = words_of(model, inputs['input_ids'][:, 0], inputs['text_padding'][:, 0])
        joint = model.neck is not None and model.tokens == 'joint'
        texts = [o.get('text') or [''] for o in outputs]
        return [
            ImageAndWords(p[None], w, t[0], joint)
            for p, w, t in zip(pixels, words, texts, strict=True)
        ]

    def facts(self, output: Any, classes: Sequence[str] | None) -> dict[str, str]:
        """Say the question, the answer with its score, and what annotators answered."""
        text, scores = output.get('text') or [''], output.get('pred_scores')
        if (answer := output.get('pred_answer')) is None:
            facts = dict(caption=text[0])
            if scores is not None:
                rank = 1 + int((scores > scores[0]).sum())
                among = f' (number {rank} of {len(scores)} captions)' if len(scores) > 1 else ''
                facts['score'] = f'{float(scores[0]):.3f}{among}'
            return facts
        facts = dict(question=text[0], prediction=f'{answer} ({100 * float(scores.max()):.1f} %)')
        if answers := output.get('gt_answers'):
            facts['truth'] = summarize_answers(answers)
        return facts


def read_texts(cfg: Config, question: str | None = None, caption: str | None = None) -> list[str]:
    """Return the user's texts about an image, one or several.

    Args:
        cfg (Config): Its head answers questions or ranks captions.
        question (str, optional): The question.
        caption (str, optional): The caption; ``|`` between several.

    Raises:
        UserError: It is missing, empty, or of the other kind.
    """
    asks = str(cfg.model.head.type).endswith('VQAHead')
    wanted, given, other = ('question', question, caption)
    if not asks:
        wanted, given, other = ('caption', caption, question)
    texts = [t.strip() for t in ([given or ''] if asks else (given or '').split('|'))]
    if other is not None or not all(texts):
        raise UserError(f"The config's model needs an image and --{wanted}, and no other text.")
    return texts


def summarize_answers(answers: Sequence[str]) -> str:
    """Name the most frequent answers, with how many annotators gave each."""
    if len(answers) == 1:
        return answers[0]
    common = Counter(answers).most_common(_MOST_ANSWERS)
    return ', '.join(f'{answer} ({n} of {len(answers)})' for answer, n in common)


def cross_attention(module: nn.Module, text: Tensor, image: Tensor) -> Tensor:
    """Compute the softmax attention of words to an image again, which fused kernels drop.

    Args:
        module (nn.Module): Has ``query``, ``key`` and ``num_attention_heads``.
        text (Tensor): ``[B, L, C]``.
        image (Tensor): ``[B, N, C]``.

    Returns:
        Tensor: fp32 ``[B, L, N]``, the mean over heads.
    """
    heads = module.num_attention_heads
    q, k = (
        layer(x).unflatten(-1, (heads, -1)).transpose(1, 2).float()
        for layer, x in ((module.query, text), (module.key, image))
    )
    return torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, dim=-1).mean(dim=1)


ANALYSIS = ImageTextAnalysis(TASK)
