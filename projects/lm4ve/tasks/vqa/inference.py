"""Inferencers in MMEngine's style: answer questions about images, rank images or captions."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mmcv.transforms  # noqa: F401  (registers LoadImageFromFile)
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from torch import Tensor, nn

from lm4ve.data.image_files import find_defect, read_pixels
from lm4ve.draw.figures import to_image
from lm4ve.draw.file_names import file_name
from lm4ve.draw.rankings import SHOWN, best
from lm4ve.errors import check, require
from lm4ve.tasks.base.analysis import tested_dataset
from lm4ve.tasks.base.answering import AnsweringInferencer, name_of
from lm4ve.tasks.base.inference import TaskInferencer
from lm4ve.tasks.vqa import TASK
from lm4ve.tasks.vqa.loops import encode_captions, score_chosen
from lm4ve.tasks.vqa.visualization import INDEPENDENT, draw_images, draw_ranking
from lm4ve.text.words import list_texts

Image = str | Path | np.ndarray


def list_images(images: Image | Sequence[Image]) -> list[Image]:
    """Return images, those of a folder by their names, after all were looked at.

    Args:
        images (str | Path | np.ndarray | Sequence): Files, a folder, arrays uint8 ``[H,
            W, 3]`` (BGR), or a list of files and arrays.

    Raises:
        UserError: There is none, or one cannot be read.
    """
    found = [images] if isinstance(images, (str, Path, np.ndarray)) else list(images)
    if isinstance(images, (str, Path)) and Path(images).is_dir():
        found = sorted(
            p for p in Path(images).iterdir() if p.suffix.lower() in TASK.input_suffixes
        )
    check(f'images ({", ".join(TASK.input_suffixes)}) of {images}', len(found), least=1)
    for image in found:
        if isinstance(image, np.ndarray):
            kind = str(image.dtype), image.ndim, image.shape[-1]
            require(
                kind == ('uint8', 3, 3),
                f'An image is an array [H, W, 3] of uint8, not {image.dtype} {list(image.shape)}.',
            )
        else:
            defect = find_defect(str(image), decode=True)
            require(defect is None, f"'{image}' cannot be read: {defect}.")
    return found


def pixels_of_file(image: Image) -> np.ndarray:
    """Return an image as uint8 ``[H, W, 3]``, RGB."""
    pixels = image if isinstance(image, np.ndarray) else read_pixels(image)
    return np.ascontiguousarray(pixels[..., ::-1])


class _ImageInferencer(TaskInferencer):
    """A model of this task, with the config's test pipeline."""

    task = TASK.name
    #: Whether it needs a model that answers questions, or one that scores pairs.
    asks: bool

    def check_model(self, model: nn.Module) -> None:
        """Refuse a head of the other kind."""
        has_vocabulary = hasattr(model.head, 'vocabulary')
        require(
            has_vocabulary == self.asks,
            f'{type(self).__name__} takes a model.head {"with" if self.asks else "without"} a '
            f'vocabulary, not {type(model.head).__name__}. Fix: the inferencer of its task.',
        )

    def _init_pipeline(self, cfg: Config) -> Callable:
        """Return the config's test pipeline, for entries with a file or an array."""
        steps = tested_dataset(cfg).pipeline
        load = Compose([t for t in steps if 'LoadImage' in t['type']])
        rest = Compose([t for t in steps if 'LoadImage' not in t['type']])

        def pipeline(entry: dict) -> dict:
            image = entry['img_path']
            if isinstance(image, np.ndarray):
                return rest(dict(entry, img=image, ori_shape=image.shape[:2]))
            return rest(load(dict(entry, img_path=str(image))))

        return pipeline


class VQAInferencer(_ImageInferencer, AnsweringInferencer):
    """Ask questions about images::

        inferencer = VQAInferencer(config, checkpoint)
        inferencer('kitchen.jpg', 'How many cups are there?')[0]['pred_answer']

    Takes what every inferencer here takes: ``config``, ``checkpoint``, ``device``,
    ``allow_partial`` and ``show_progress``.
    """

    asks = True
    source = 'img_path'

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
            img_path=list_images(images), question=list_texts(question, 'question')
        )
        return self.ask(rows, **kwargs)

    def draw(self, entry: dict, sample: Any) -> np.ndarray:
        """Draw an image with a question and its best answers."""
        ranking = best(sample.pred_scores, self.model.head.vocabulary)
        pixels, question = pixels_of_file(entry['img_path']), sample.text[0]
        return to_image(draw_ranking(pixels, question, ranking, note=INDEPENDENT))


class RetrievalInferencer(_ImageInferencer):
    """Find the images that a text describes, or the captions that describe an image::

        inferencer = RetrievalInferencer(config, checkpoint)
        inferencer('photos/', 'two dogs on a beach')[0]['images'][0]['img_path']
        inferencer('beach.jpg', ['two dogs', 'a cat'], rank='captions')[0]['captions']

    Takes what every inferencer here takes: ``config``, ``checkpoint``, ``device``,
    ``allow_partial`` and ``show_progress``.
    """

    asks = False

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
        given, texts = list_images(images), list_texts(caption, 'caption')
        paths = [name_of(image) for image in given]
        table = self.score(given, texts, batch_size)
        sources: list[Any]
        if rank == 'captions':
            sources, found = given, [best(row, texts, topk) for row in table]
            results = [
                dict(
                    img_path=path, captions=[dict(text=t, score=s) for t, s in ranking]
                )
                for path, ranking in zip(paths, found, strict=True)
            ]
            figures = (
                draw_ranking(pixels_of_file(image), Path(path).name, ranking[:SHOWN])
                for image, path, ranking in zip(given, paths, found, strict=True)
            )
        else:
            sources = [None] * len(texts)
            found = [best(row, range(len(given)), topk) for row in table.T]
            results = [
                dict(
                    text=text,
                    images=[dict(img_path=paths[i], score=s) for i, s in ranking],
                )
                for text, ranking in zip(texts, found, strict=True)
            ]
            figures = (
                draw_images(
                    text, [(pixels_of_file(given[i]), paths[i], s) for i, s in ranking]
                )
                for text, ranking in zip(texts, (f[:SHOWN] for f in found), strict=True)
            )
        if show or out_dir is not None:
            names = [file_name(i, source) for i, source in enumerate(sources)]
            self._present(
                [to_image(f) for f in figures], names, show, wait_time, out_dir
            )
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
        entries = [dict(img_path=i, text=['']) for i in images]
        for chunk in self._get_chunk_data(entries, batch_size):
            pixels = [self.pipeline(entry)['inputs'] for entry in chunk]
            tokens += self.model.encode_images(
                self.model.data_preprocessor.normalize(pixels)
            ).cpu()
        captions = encode_captions(self.model, texts, batch_size)
        chosen = torch.ones(len(tokens), len(captions), dtype=torch.bool)
        return score_chosen(self.model, tokens, captions, chosen, batch_size)


def inferencer_of(config: Config, *args: Any, **kwargs: Any) -> _ImageInferencer:
    """Build the inferencer that fits a config's head."""
    asks = str(config.model.head.type).endswith('VQAHead')
    return (VQAInferencer if asks else RetrievalInferencer)(config, *args, **kwargs)
