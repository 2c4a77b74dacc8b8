"""``RoomInferencer``: a trained SQA3D answers questions about rooms in files or arrays."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose

from lm4ve.errors import check
from lm4ve.registry import TRANSFORMS
from lm4ve.tasks.base.analysis import tested_dataset
from lm4ve.tasks.base.building import collate
from lm4ve.tasks.base.inferencer import TaskInferencer
from lm4ve.tasks.base.language.rankings import SHOWN, answer_fields
from lm4ve.tasks.base.language.words import file_name, list_texts
from lm4ve.tasks.rooms import TASK
from lm4ve.tasks.rooms.datasets.scene_files import (
    read_mesh,
    read_objects,
    read_points,
    vertex_normals,
)
from lm4ve.tasks.rooms.transforms import LoadScene, SceneLoader

RoomFile = str | Path | np.ndarray


class RoomReader:
    """The test pipeline of a config, for any file or array instead of a data set's scene.

    Args:
        cfg (Config): Its pipeline begins with ``LoadScene`` or ``LoadObjects``.
        pipeline (list[dict], optional): Its steps. Default: the config's.

    Raises:
        UserError: It begins with something else.
    """

    def __init__(self, cfg: Config, pipeline: list[dict] | None = None) -> None:
        first, *rest = (dict(t) for t in pipeline or tested_dataset(cfg).pipeline)
        self.loader = TRANSFORMS.build(first)
        check('the first step of the test pipeline', self.loader, kind=SceneLoader)
        self.rest = Compose(rest)

    def __call__(self, room: RoomFile, texts: Sequence[str], number: int = 0) -> dict:
        """Apply the pipeline to a room, the situation and the question, and a sample's index."""
        path = Path(name_of(room))
        # As in the data set, where a scene's name is the seed of the sampled points.
        scene = path.stem.removesuffix('_vert').removesuffix('_aligned')
        meta = dict(scene_id=scene, scene_path=str(path.with_name(scene)), gt_answers=[])
        return self.rest(dict(meta, sample_idx=number, text=list(texts), **self.read(room)))

    def read(self, room: RoomFile) -> dict:
        """Read the points or the stored objects of a room.

        Args:
            room (str | Path | np.ndarray): For a model that reads points, a colored .ply, or
                numbers ``[V, 6 or 9]`` (x, y, z in meters, z up; red, green, blue from 0 to
                255; normals), as an array or as .npy (``_aligned_vert.npy``). For one that
                reads stored objects, ``[O, C]``, .npy or .npz.

        Raises:
            ValueError, OSError, EOFError: It cannot be read, or holds something else.
        """
        if not isinstance(self.loader, LoadScene):
            return dict(objects=read_objects(room))
        if isinstance(room, np.ndarray) or Path(room).suffix.lower() != '.ply':
            return self.loader.columns_of(read_points(room))
        vertices, triangles = read_mesh(room)
        if self.loader.normals:
            vertices = np.hstack([vertices, vertex_normals(vertices[:, :3], triangles)])
        return self.loader.columns_of(vertices.astype(np.float32))


def name_of(room: RoomFile) -> str:
    """Return a room's path, or 'array'."""
    return 'array' if isinstance(room, np.ndarray) else str(room)


def read_texts(question: str | None = None, situation: str | None = None) -> list[str]:
    """Return the situation and the question.

    Raises:
        UserError: One is missing or empty.
    """
    given = dict(situation=situation, question=question)
    return [list_texts(text or '', f'--{name}')[0] for name, text in given.items()]


class RoomInferencer(TaskInferencer):
    """Answers questions of somebody who stands in a room::

        inferencer = RoomInferencer(config, checkpoint)
        inferencer('scene0000_00_aligned_vert.npy', 'I am facing the bed.', 'What is behind me?')

    Its arguments are those of every inferencer: ``config``, ``checkpoint``, ``device``,
    ``allow_partial`` and ``show_progress``.
    """

    postprocess_kwargs = {'topk'}
    task = TASK.name

    def _init_pipeline(self, cfg: Config) -> Any:
        reader = RoomReader(cfg)
        return lambda entry: reader(entry['room'], entry['texts'], entry['number'])

    def _init_collate(self, cfg: Config) -> Any:
        """Collate as the config's test data loader does."""
        return partial(collate, cfg)

    def __call__(  # type: ignore[override]
        self,
        rooms: RoomFile | Sequence[RoomFile],
        situations: str | Sequence[str] = (),
        questions: str | Sequence[str] = (),
        poses: Sequence[Sequence[float]] | None = None,
        return_datasamples: bool = False,
        batch_size: int = 1,
        *,
        situation: str | Sequence[str] = (),
        question: str | Sequence[str] = (),
        **kwargs: Any,
    ) -> list:
        """Answer.

        Args:
            rooms (str | Path | np.ndarray | Sequence): Files or arrays of points, or of
                stored objects, whichever the model reads; see :meth:`RoomReader.read`.
            situations (str | Sequence[str]): What the asker does and sees, one for each
                question.
            questions (str | Sequence[str]): The questions. A single room, situation or
                question belongs to all others.
            poses (Sequence, optional): Where each asker stands, in the room's frame, and a
                quaternion x, y, z, w, 7 numbers: drawn in pictures, not an input of the model.
            return_datasamples (bool): Return data samples instead of dicts.
            batch_size (int): Questions per batch.
            situation, question (str | Sequence[str]): Other names of ``situations`` and
                ``questions``, for :func:`lm4ve.apis.inference`.
            topk (int): The number of answers. Default: 5.
            out_dir (str | Path, optional): Write a picture of each question here.
            show (bool): Show them in a window, each for ``wait_time`` seconds.

        Returns:
            list[dict]: For each question ``room``, ``situation``, ``question``,
            ``pred_answer``, ``pred_score`` (0 to 1), ``answers``, the best ones with their
            scores, and from a model that predicts it ``pred_pose`` (7 numbers).

        Raises:
            ValueError, OSError, EOFError: A room cannot be read, a text is empty, or the
                numbers of rooms, texts and poses differ.
        """
        single = isinstance(rooms, (str, Path, np.ndarray))
        rows = [
            [rooms] if single else list(rooms),
            list_texts(situations or situation, 'situation'),
            list_texts(questions or question, 'question'),
        ]
        count = max(map(len, rows))
        rows = [row * count if len(row) == 1 else row for row in rows]
        inputs = [
            dict(room=r, texts=texts, number=i, pose=pose)
            for i, (r, *texts, pose) in enumerate(zip(*rows, poses or [None] * count, strict=True))
        ]
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
        """Draw each room with its question and the best answers, if they are shown or written."""
        if not show and out_dir is None:
            return []
        from lm4ve.tasks.rooms.visualization import draw_sample

        drawn = []
        for entry, sample in zip(inputs, preds, strict=True):
            if entry['pose'] is not None:
                sample.gt_pose = torch.tensor(entry['pose'], dtype=torch.float32)
            points = self.pipeline(entry)['inputs'].get('points')
            drawn.append(draw_sample(points, sample, self.model.head.vocabulary))
        names = [file_name(i, e['room']) for i, e in enumerate(inputs)]
        return self._present(drawn, names, show, wait_time, out_dir)

    def postprocess(
        self,
        preds: list,
        visualization: list[np.ndarray],
        return_datasamples: bool = False,
        topk: int = SHOWN,
    ) -> list:
        """Convert predictions to plain data."""
        if return_datasamples:
            return preds
        return [
            dict(
                zip(('situation', 'question'), sample.text, strict=True),
                **answer_fields(sample, self.model.head.vocabulary, topk),
                **({'pred_pose': sample.pred_pose.tolist()} if 'pred_pose' in sample else {}),
            )
            for sample in preds
        ]
