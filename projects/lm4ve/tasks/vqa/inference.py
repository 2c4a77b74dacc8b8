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

from lm4ve.errors import UserError, check
from lm4ve.tasks.base.analysis import tested_dataset
from lm4ve.tasks.base.inferencer import TaskInferencer
from lm4ve.tasks.base.language.rankings import SHOWN, answer_fields, best
from lm4ve.tasks.base.language.words import file_name, list_texts
from lm4ve.tasks.base.pictures import to_image
from lm4ve.tasks.vqa import TASK
from lm4ve.tasks.vqa.inference_inputs import Image, list_images, name_of, pixels_of_file
from lm4ve.tasks.vqa.visualization import draw_images, draw_ranking


class _Inferencer(TaskInferencer):
    """A model of this task, with the config's test pipeline."""

    task = TASK.name
    #: Whether it needs a model that answers questions, or one that scores pairs.
    asks: bool

    def check_model(self, model: nn.Module) -> None:
        if hasattr(model.head, 'vocabulary') != self.asks:
            does = 'answers questions' if self.asks else 'compares images with texts'
            raise UserError(
                f'{type(self).__name__} needs a model that {does}, not the head '
                f'{type(model.head).__name__}.'
            )

    def _init_pipeline(self, cfg: Config) -> Callable:
        """Return the config's test pipeline, for entries with a file or an array as ``image``."""
        steps = tested_dataset(cfg).pipeline
        load = Compose([t for t in steps if 'LoadImage' in t['type']])
        rest = Compose([t for t in steps if 'LoadImage' not in t['type']])

        def pipeline(entry: dict) -> dict:
            image = entry['image']
            if isinstance(image, np.ndarray):
                return rest(dict(entry, img=image, ori_shape=image.shape[:2]))
            return rest(load(dict(entry, img_path=str(image))))

        return pipeline


class VQAInferencer(_Inferencer):
    """Ask questions about images::

        inferencer = VQAInferencer(config, checkpoint)
        inferencer('kitchen.jpg', 'How many cups are there?')[0]['pred_answer']

    Takes what every inferencer here takes: ``config``, ``checkpoint``, ``device``,
    ``allow_partial`` and ``show_progress``.
    """

    postprocess_kwargs = {'topk'}
    asks = True

    def __call__(  # type: ignore[override]
        self,
        images: Image | Sequence[Image],
        questions: str | Sequence[str],
        return_datasamples: bool = False,
        batch_size: int = 1,
        **kwargs: Any,
    ) -> list:
        """Answer.

        Args:
            images (str | Path | np.ndarray | Sequence): See :func:`list_images`.
            questions (str | Sequence[str]): One for each image. A single question is asked
                about every image, a single image is asked every question.
            return_datasamples (bool): Return data samples instead of dicts.
            batch_size (int): Questions at a time.
            topk (int): How many answers are returned. Default: 5.
            out_dir (str | Path, optional): Write a picture of each question here.
            show (bool): Show them in a window, each for ``wait_time`` seconds.

        Returns:
            list[dict]: For each question ``img_path``, ``question``, ``pred_answer``,
            ``pred_score`` (0 to 1) and ``answers``, the best ones with their scores.

        Raises:
            UserError: An image cannot be read, a question is empty, or there are not as
                many questions as images.
        """
        shown, asked = list_images(images), list_texts(questions, 'question')
        count = max(len(shown), len(asked))
        shown, asked = (x * count if len(x) == 1 else x for x in (shown, asked))
        check('the number of questions', len(asked), choices=(len(shown),))
        inputs = [
            dict(image=image, text=[question], gt_answers=[], sample_idx=i)
            for i, (image, question) in enumerate(zip(shown, asked, strict=True))
        ]
        return super().__call__(inputs, return_datasamples, batch_size, **kwargs)

    def visualize(
        self,
        inputs: list[dict],
        preds: list,
        show: bool = False,
        wait_time: float = 0.0,
        out_dir: str | Path | None = None,
    ) -> list[np.ndarray]:
        """Draw each question with its best answers, if somebody wants to see them."""
        if not show and out_dir is None:
            return []
        drawn = []
        for entry, sample in zip(inputs, preds, strict=True):
            ranking = best(sample.pred_scores, self.model.head.vocabulary)
            figure = draw_ranking(pixels_of_file(entry['image']), sample.text[0], ranking)
            drawn.append(to_image(figure))
        names = [file_name(i, e['image']) for i, e in enumerate(inputs)]
        return self._present(drawn, names, show, wait_time, out_dir)

    def postprocess(
        self,
        preds: list,
        visualization: list[np.ndarray],
        return_datasamples: bool = False,
        topk: int = SHOWN,
    ) -> list:
        """Turn predictions into plain data."""
        if return_datasamples:
            return preds
        vocabulary = self.model.head.vocabulary
        return [
            dict(
                img_path=sample.get('img_path'),
                question=sample.text[0],
                **answer_fields(sample, vocabulary, topk),
            )
            for sample in preds
        ]


class RetrievalInferencer(_Inferencer):
    """Find the images that a text describes, or the captions that describe an image::

        inferencer = RetrievalInferencer(config, checkpoint)
        inferencer('photos/', 'two dogs on a beach')[0]['images'][0]['img_path']
        inferencer('beach.jpg', ['two dogs', 'a cat'], rank='captions')[0]['captions']

    Takes what every inferencer here takes: ``config``, ``checkpoint``, ``device``,
    ``allow_partial`` and ``show_progress``.
    """

    asks = False

    def __call__(  # type: ignore[override]
        self,
        images: Image | Sequence[Image],
        texts: str | Sequence[str],
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
            texts (str | Sequence[str]): Captions, or what is looked for.
            rank (str): 'images' ranks them for each text, 'captions' the texts for each
                image.
            topk (int): How many of them are returned.
            batch_size (int): Images, texts and pairs at a time.
            out_dir (str | Path, optional): Write a picture of each ranking here.
            show (bool), wait_time (float): Show them in a window, for so many seconds.

        Returns:
            list[dict]: For each text ``text`` and ``images`` (``img_path`` and ``score``,
            best first); for each image ``img_path`` and ``captions`` (``text``,
            ``score``). Scores compare within one ranking only.

        Raises:
            UserError: An image cannot be read, or a text is empty.
        """
        check('rank', rank, choices=('images', 'captions'))
        shown, said = list_images(images), list_texts(texts, 'text')
        scores = self.score(shown, said, batch_size)
        results, drawn, names = [], [], []
        for i, row in enumerate(scores.T if rank == 'images' else scores):
            values, places = row.topk(min(topk, len(row)))
            found = list(zip(places.tolist(), values.tolist(), strict=True))
            if rank == 'images':
                ranked = [dict(img_path=name_of(shown[p]), score=v) for p, v in found]
                results.append(dict(text=said[i], images=ranked))
            else:
                ranked = [dict(text=said[p], score=v) for p, v in found]
                results.append(dict(img_path=name_of(shown[i]), captions=ranked))
            if not show and out_dir is None:
                continue
            if rank == 'images':
                best_ones = [
                    (pixels_of_file(shown[p]), Path(name_of(shown[p])).name, v)
                    for p, v in found[:SHOWN]
                ]
                drawn.append(to_image(draw_images(said[i], best_ones)))
                names.append(file_name(i))
            else:
                ranking = [(said[p], v) for p, v in found[:SHOWN]]
                heading = Path(name_of(shown[i])).name
                drawn.append(to_image(draw_ranking(pixels_of_file(shown[i]), heading, ranking)))
                names.append(file_name(i, shown[i]))
        self._present(drawn, names, show, wait_time, out_dir)
        return results

    @torch.no_grad()
    def score(self, images: Sequence[Image], texts: Sequence[str], batch_size: int = 64) -> Tensor:
        """Score all pairs; each image and each text is encoded once.

        Returns:
            Tensor: fp32 ``[I, T]``, on the CPU; higher for a better match.
        """
        model, prepare = self.model, self.model.data_preprocessor
        tokens = []
        for start in range(0, len(images), batch_size):
            some = images[start : start + batch_size]
            pixels = [self.pipeline(dict(image=i, text=[''], sample_idx=0))['inputs'] for i in some]
            tokens.append(model.encode_images(prepare.normalize(pixels)).cpu())
        seen = torch.cat(tokens)
        ids, padding = prepare.tokenize(list(texts))
        parts = zip(ids.split(batch_size), padding.split(batch_size), strict=True)
        said = torch.cat([model.encode_texts(*part).cpu() for part in parts])
        pairs = torch.cartesian_prod(torch.arange(len(images)), torch.arange(len(texts)))
        scores = [
            model.score_pairs(
                seen[i].to(ids.device), said[t].to(ids.device), padding[t.to(ids.device)]
            ).cpu()
            for i, t in (part.T for part in pairs.split(batch_size))
        ]
        return torch.cat(scores).unflatten(0, (len(images), len(texts)))


class TextInferencer:
    """Answer questions about images or rank captions, whichever the config's head does.

    Takes what every inferencer here takes.
    """

    def __init__(self, config: Config, checkpoint: Any = None, **options: Any) -> None:
        self.asks = answers_questions(config)
        kind = VQAInferencer if self.asks else RetrievalInferencer
        self.inferencer = kind(config, checkpoint, **options)

    def __call__(
        self,
        inputs: Image | Sequence[Image],
        question: str | Sequence[str] | None = None,
        caption: str | Sequence[str] | None = None,
        **options: Any,
    ) -> list[dict]:
        """Answer questions about images, or rank captions or images.

        Args:
            inputs (str | Path | np.ndarray | Sequence): Images; see :func:`list_images`.
            question (str | Sequence[str]): Questions, which :class:`VQAInferencer` answers.
            caption (str | Sequence[str]): Captions, which :class:`RetrievalInferencer` ranks.
            **options: The other arguments of these.

        Raises:
            UserError: The text that the model takes is missing, or there is the other one.
        """
        wanted, other = (question, caption) if self.asks else (caption, question)
        if wanted is None or other is not None:
            noun = 'question' if self.asks else 'caption'
            raise UserError(
                f"The config's model needs {noun}= beside the images, and no other text."
            )
        return self.inferencer(inputs, wanted, **options)


def answers_questions(cfg: Config) -> bool:
    """Return whether a config's model answers questions."""
    return str(cfg.model.head.type).endswith('VQAHead')
