"""Ask a trained SQA3D about rooms of one's own, in the style of MMEngine's inferencers."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config

from lm4ve.errors import UserError
from lm4ve.tasks.base.figures import to_image
from lm4ve.tasks.base.inferencer import TaskInferencer
from lm4ve.tasks.base.inputs import collate
from lm4ve.tasks.base.language.rankings import SHOWN, answer_fields
from lm4ve.tasks.base.language.words import file_name, list_texts
from lm4ve.tasks.rooms import TASK
from lm4ve.tasks.rooms.given import RoomFile, RoomReader, name_of


class RoomInferencer(TaskInferencer):
    """Ask questions of somebody who stands in a room::

        inferencer = RoomInferencer(config, checkpoint)
        inferencer('scene0000_00_aligned_vert.npy', 'I am facing the bed.', 'What is behind me?')

    Takes what every inferencer here takes: ``config``, ``checkpoint``, ``device``,
    ``allow_partial`` and ``show_progress``.
    """

    postprocess_kwargs = {'topk'}
    task = TASK.name

    def _init_pipeline(self, cfg: Config) -> Any:
        reader = RoomReader(cfg)
        return lambda entry: reader(entry['room'], entry['texts'], entry['number'])

    def _init_collate(self, cfg: Config) -> Any:
        """Make batches as the config's test data loader does."""
        return partial(collate, cfg)

    def __call__(  # type: ignore[override]
        self,
        rooms: RoomFile | Sequence[RoomFile],
        situations: str | Sequence[str] | None = None,
        questions: str | Sequence[str] | None = None,
        poses: Sequence[Sequence[float]] | None = None,
        return_datasamples: bool = False,
        batch_size: int = 1,
        *,
        situation: str | Sequence[str] | None = None,
        question: str | Sequence[str] | None = None,
        **kwargs: Any,
    ) -> list:
        """Answer.

        Args:
            rooms (str | Path | np.ndarray | Sequence): Files or arrays of points, or of
                stored objects, whichever the model reads; see :meth:`RoomReader.read`.
            situations (str | Sequence[str]): What the asker does and sees, one for each
                question.
            questions (str | Sequence[str]): The questions. Of rooms, situations and
                questions those of which there is one belong to all others.
            poses (Sequence, optional): Where each asker stands, in the room's frame, and a
                quaternion x, y, z, w, 7 numbers: for pictures, the model does not see it.
            return_datasamples (bool): Return data samples instead of dicts.
            batch_size (int): Questions at a time.
            situation, question (str | Sequence[str]): Other names of ``situations`` and
                ``questions``, as :func:`lm4ve.apis.inference` has them.
            topk (int): How many answers are returned. Default: 5.
            out_dir (str | Path, optional): Write a picture of each question here.
            show (bool): Show them in a window, each for ``wait_time`` seconds.

        Returns:
            list[dict]: For each question ``room``, ``situation``, ``question``,
            ``pred_answer``, ``pred_score`` (0 to 1), ``answers``, the best ones with their
            scores, and of a model that predicts it ``pred_pose`` (7 numbers).

        Raises:
            UserError: A room cannot be read, a text is empty, or numbers do not fit.
        """
        situations = situation if situations is None else situations
        questions = question if questions is None else questions
        if situations is None or questions is None:
            raise UserError('The model needs situation= and question= beside the rooms.')
        single = isinstance(rooms, (str, Path, np.ndarray))
        given = dict(
            rooms=[rooms] if single else list(rooms),
            situations=list_texts(situations, 'situation'),
            questions=list_texts(questions, 'question'),
        )
        count = max(map(len, given.values()))
        wrong = [k for k, v in given.items() if len(v) not in (1, count)]
        if wrong or not given['rooms'] or (poses is not None and len(poses) != count):
            told = ', '.join(f'{len(v)} {k}' for k, v in given.items())
            raise UserError(f'There are {told}. Fix: give as many of each, and of poses, or one.')
        rows = [v * count if len(v) == 1 else v for v in given.values()]
        inputs = [
            dict(room=r, texts=[s, q], number=i, pose=None if poses is None else poses[i])
            for i, (r, s, q) in enumerate(zip(*rows, strict=True))
        ]
        for room in given['rooms']:
            self.pipeline(dict(room=room, texts=['', ''], number=0))  # before anything is computed
        found = super().__call__(inputs, return_datasamples, batch_size, **kwargs)
        if return_datasamples:
            return found
        return [dict(room=name_of(i['room']), **f) for i, f in zip(inputs, found, strict=True)]

    def visualize(
        self,
        inputs: list[dict],
        preds: list,
        show: bool = False,
        wait_time: float = 0.0,
        out_dir: str | Path | None = None,
    ) -> list[np.ndarray]:
        """Draw each room with its question and the best answers, if somebody wants it."""
        if not show and out_dir is None:
            return []
        from lm4ve.tasks.rooms.drawing import draw_sample

        drawn = []
        for entry, sample in zip(inputs, preds, strict=True):
            if entry['pose'] is not None:
                sample.gt_pose = torch.tensor(entry['pose'], dtype=torch.float32)
            points = self.pipeline(entry)['inputs'].get('points')
            vocabulary = self.model.head.vocabulary
            drawn.append(to_image(draw_sample(points, sample, vocabulary)))
        names = [file_name(i, e['room']) for i, e in enumerate(inputs)]
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
        results = []
        for sample in preds:
            found = dict(
                situation=sample.text[0],
                question=sample.text[1],
                **answer_fields(sample, self.model.head.vocabulary, topk),
            )
            if 'pred_pose' in sample:
                found['pred_pose'] = sample.pred_pose.tolist()
            results.append(found)
        return results
