"""Inferencers in MMEngine's style: answer questions about images, rank images or captions."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import mmcv.transforms  # noqa: F401  (registers LoadImageFromFile)
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from torch import Tensor, nn

from lm4ve.data.image_files import MAX_PIXELS, MOST_PIXELS, find_defect, read_pixels
from lm4ve.draw.figures import to_image
from lm4ve.draw.file_names import file_name
from lm4ve.draw.rankings import SHOWN, Ranking, best
from lm4ve.errors import UserError, check, require
from lm4ve.tasks.base.answering import AnsweringInferencer, name_of
from lm4ve.tasks.base.inference import TaskInferencer
from lm4ve.tasks.base.inputs import find_inputs
from lm4ve.tasks.base.tested import pipeline_of, tested_field
from lm4ve.tasks.vqa import TASK
from lm4ve.tasks.vqa.loops import encode_captions, score_images
from lm4ve.tasks.vqa.visualization import INDEPENDENT, draw_images, draw_ranking
from lm4ve.text.words import list_texts

Image = str | Path | np.ndarray


def list_images(
    images: Image | Sequence[Image], max_pixels: int = MAX_PIXELS
) -> list[Image]:
    """Return images, those of a folder by their names, after all were looked at.

    Args:
        images (str | Path | np.ndarray | Sequence): Files, folders or patterns of such,
            or arrays uint8 ``[H, W, 3]`` (BGR). Damaged files of folders and patterns
            are left out, with a warning that names them.
        max_pixels (int): The most pixels of an image.

    Raises:
        UserError: There is none, or one that is named itself cannot be read.
    """
    found = find_inputs(images, TASK)
    check('the number of images', len(found.sources), least=1)
    check_image = partial(_check_image, max_pixels)
    return [found.sources[place] for place, _ in found.read_each(check_image)]


def _check_image(max_pixels: int, image: Image) -> None:
    """Refuse a file that cannot be read, and an array of another kind."""
    if not isinstance(image, np.ndarray):
        defect = find_defect(str(image), decode=True, max_pixels=max_pixels)
        require(defect is None, f"'{image}' cannot be read: {defect}.")
        return
    is_image = image.ndim == 3 and image.shape[-1] == 3 and image.dtype == np.uint8
    require(
        is_image,
        f'An image is an array [H, W, 3] of uint8, not {image.dtype} {list(image.shape)}.',
    )


def pixels_of_file(image: Image) -> np.ndarray:
    """Return an image of :func:`list_images` as uint8 ``[H, W, 3]``, RGB."""
    if isinstance(image, np.ndarray):
        pixels = image
    else:
        # Its size was looked at when it was listed.
        pixels = read_pixels(image, MOST_PIXELS)
    return np.ascontiguousarray(pixels[..., ::-1])


class ImageReader:
    """A pipeline for entries whose image is in a file or an array.

    Args:
        pipeline (Sequence[dict]): With ``LoadImageFromFile``, for files.
    """

    def __init__(self, pipeline: Sequence[dict]) -> None:
        loading = []
        others = []
        for step in pipeline:
            if 'LoadImage' in step['type']:
                loading.append(step)
            else:
                others.append(step)
        self.load = Compose(loading)
        self.rest = Compose(others)

    def __call__(self, entry: dict) -> dict:
        """Return the sample of an entry with ``img_path``, a file or an array, and ``text``."""
        image = entry['img_path']
        if isinstance(image, np.ndarray):
            results = dict(entry, img=image, ori_shape=image.shape[:2])
        else:
            results = self.load(dict(entry, img_path=str(image)))
        sample: dict = self.rest(results)
        return sample


def max_pixels_of(cfg: Config) -> int:
    """Return the most pixels of an image, by a config's test data set."""
    most: int = tested_field(cfg, 'max_pixels', MAX_PIXELS)
    return most


def _refuse_head(inferencer: TaskInferencer, model: nn.Module) -> None:
    """Refuse a model whose head is of the other kind.

    Raises:
        UserError: The message names the head.
    """
    raise UserError(
        f'{type(inferencer).__name__} does not take a model.head of the type '
        f"'{type(model.head).__name__}'. Fix: the inferencer of its task."
    )


class VQAInferencer(AnsweringInferencer):
    """Ask questions about images::

        inferencer = VQAInferencer(config, checkpoint)
        inferencer('kitchen.jpg', 'How many cups are there?')[0]['pred_answer']

    Takes what every inferencer here takes: ``config``, ``checkpoint``, ``device``,
    ``allow_partial``, ``show_progress`` and ``strict_config``.
    """

    task = TASK.name
    source = 'img_path'

    def check_model(self, model: nn.Module) -> None:
        """Refuse a model that answers no questions."""
        if not hasattr(model.head, 'vocabulary'):
            _refuse_head(self, model)

    def _init_pipeline(self, cfg: Config) -> ImageReader:
        return ImageReader(pipeline_of(cfg))

    def __call__(
        self,
        images: Image | Sequence[Image],
        question: str | Sequence[str],
        **kwargs: Any,
    ) -> list:
        """Answer.

        Args:
            images (str | Path | np.ndarray | Sequence): See :func:`list_images`.
            question (str | Sequence[str]): One for each image. A single question is
                asked about every image, a single image is asked every question.
            **kwargs: ``topk`` (5), the number of answers; ``batch_size`` (1), questions
                per batch; ``out_dir``, a folder for a picture of each question;
                ``show``, in a window, for ``wait_time`` seconds each;
                ``return_datasamples`` instead of dicts.

        Returns:
            list[dict]: For each question ``img_path``, ``question``, ``pred_answer``,
            ``pred_score`` (0 to 1) and ``answers``, the best ones with their scores.

        Raises:
            UserError: An image cannot be read, a question is empty, or there are not as
                many questions as images.
        """
        rows: dict[str, list[Any]] = dict(
            img_path=list_images(images, max_pixels_of(self.cfg)),
            question=list_texts(question, 'question'),
        )
        return self.ask(rows, **kwargs)

    def draw(self, entry: dict, sample: Any) -> np.ndarray:
        """Draw an image with a question and its best answers."""
        ranking = best(sample.pred_scores, self.model.head.vocabulary)
        pixels = pixels_of_file(entry['img_path'])
        figure = draw_ranking(pixels, sample.text[0], ranking, note=INDEPENDENT)
        return to_image(figure)


class RetrievalInferencer(TaskInferencer):
    """Find the images that a text describes, or the captions that describe an image::

        inferencer = RetrievalInferencer(config, checkpoint)
        inferencer('photos/', 'two dogs on a beach')[0]['images'][0]['img_path']
        inferencer('beach.jpg', ['two dogs', 'a cat'], rank='captions')[0]['captions']

    Takes what every inferencer here takes: ``config``, ``checkpoint``, ``device``,
    ``allow_partial``, ``show_progress`` and ``strict_config``.
    """

    task = TASK.name

    def check_model(self, model: nn.Module) -> None:
        """Refuse a model that answers questions and scores no pairs."""
        if hasattr(model.head, 'vocabulary'):
            _refuse_head(self, model)

    def _init_pipeline(self, cfg: Config) -> ImageReader:
        return ImageReader(pipeline_of(cfg))

    def __call__(
        self,
        images: Image | Sequence[Image],
        caption: str | Sequence[str],
        rank: str = 'images',
        topk: int = SHOWN,
        batch_size: int = 64,
        show: bool = False,
        wait_time: float = 0.0,
        out_dir: str | Path | None = None,
    ) -> list[dict]:
        """Score every image with every text, and rank.

        Args:
            images (str | Path | np.ndarray | Sequence): See :func:`list_images`.
            caption (str | Sequence[str]): Captions, or what is looked for.
            rank (str): 'images' ranks them for each text, 'captions' texts for each
                image.
            topk (int): How many of them are returned.
            batch_size (int): Images, texts and pairs at a time.
            out_dir (str | Path, optional): Write a picture of each ranking here.
            show (bool), wait_time (float): Show them in a window, for so many seconds.

        Returns:
            list[dict]: For each text ``text`` and ``images`` (``img_path`` and
            ``score``, best first); for each image ``img_path`` and ``captions``
            (``text``, ``score``). Scores compare within one ranking only.

        Raises:
            UserError: An image cannot be read, or a text is empty.
        """
        check('rank', rank, choices=('images', 'captions'))
        found = list_images(images, max_pixels_of(self.cfg))
        texts = list_texts(caption, 'caption')
        table = self.score(found, texts, batch_size)
        is_shown = show or out_dir is not None
        pictures = []
        names = []
        results = []
        if rank == 'captions':
            for i, (image, scores) in enumerate(zip(found, table, strict=True)):
                ranking = best(scores, texts, topk)
                results.append(_captions_of(image, ranking))
                if is_shown:
                    pictures.append(_draw_captions(image, ranking[:SHOWN]))
                    names.append(file_name(i, image))
        else:
            for i, (text, scores) in enumerate(zip(texts, table.T, strict=True)):
                numbers = best(scores, range(len(found)), topk)
                ranked = [(found[number], score) for number, score in numbers]
                results.append(_images_of(text, ranked))
                if is_shown:
                    pictures.append(_draw_images(text, ranked[:SHOWN]))
                    names.append(file_name(i, None))
        if is_shown:
            self._present(pictures, names, show, wait_time, out_dir)
        return results

    @torch.no_grad()
    def score(
        self, images: Sequence[Image], texts: Sequence[str], batch_size: int = 64
    ) -> Tensor:
        """Score all pairs; each image and each text is encoded once.

        Returns:
            Tensor: fp32 ``[I, T]``, on the CPU; higher for a better match.
        """
        tokens: list[Tensor] = []  # of each image
        entries = [dict(img_path=image, text=['']) for image in images]
        for chunk in self._get_chunk_data(entries, batch_size):
            pixels = [self.pipeline(entry)['inputs'] for entry in chunk]
            normalized = self.model.data_preprocessor.normalize(pixels)
            tokens += self.model.encode_images(normalized).cpu()
        captions = encode_captions(self.model, texts, batch_size)
        return score_images(self.model, tokens, captions, batch_size)


def _captions_of(image: Image, ranking: Ranking) -> dict:
    """Return the result of an image: its captions, best first."""
    captions = [dict(text=text, score=score) for text, score in ranking]
    return dict(img_path=name_of(image), captions=captions)


def _draw_captions(image: Image, ranking: Ranking) -> np.ndarray:
    """Draw an image beside its captions."""
    heading = Path(name_of(image)).name
    return to_image(draw_ranking(pixels_of_file(image), heading, ranking))


def _images_of(text: str, ranked: Sequence[tuple[Image, float]]) -> dict:
    """Return the result of a text: its images, best first."""
    images = [dict(img_path=name_of(image), score=score) for image, score in ranked]
    return dict(text=text, images=images)


def _draw_images(text: str, ranked: Sequence[tuple[Image, float]]) -> np.ndarray:
    """Draw a text above its images."""
    panels = []
    for image, score in ranked:
        panels.append((pixels_of_file(image), name_of(image), score))
    return to_image(draw_images(text, panels))


def inferencer_of(config: Config, *args: Any, **kwargs: Any) -> TaskInferencer:
    """Build the inferencer that fits a config's head."""
    if str(config.model.head.type).endswith('VQAHead'):
        return VQAInferencer(config, *args, **kwargs)
    return RetrievalInferencer(config, *args, **kwargs)
