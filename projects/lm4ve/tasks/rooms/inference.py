"""``RoomInferencer``: a trained SQA3D answers questions about rooms in files or arrays."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose

from lm4ve.registry import TRANSFORMS
from lm4ve.tasks.base.analysis import tested_dataset
from lm4ve.tasks.base.building import collate
from lm4ve.tasks.base.inferencer import TaskInferencer
from lm4ve.tasks.base.language.rankings import SHOWN, answer_fields
from lm4ve.tasks.base.language.words import file_name, list_texts
from lm4ve.tasks.base.pictures import to_image
from lm4ve.tasks.rooms import TASK
from lm4ve.tasks.rooms.datasets.scene_files import RoomFile


class RoomReader:
    """A test pipeline that begins with any file or array instead of a data set's scene.

    Args:
        pipeline (Sequence[dict]): Its first step is ``LoadScene`` or ``LoadObjects``.
    """

    def __init__(self, pipeline: Sequence[dict]) -> None:
        first, *rest = (dict(t) for t in pipeline)
        self.loader = TRANSFORMS.build(first)
        self.rest = Compose(rest)

    def __call__(self, entry: dict) -> dict:
        """Return the sample of a ``room``, with ``text`` and ``sample_idx``."""
        path = Path(name_of(entry['room']))
        # As in the data set, where a scene's name is the seed of the sampled points.
        scene = path.stem.removesuffix('_vert').removesuffix('_aligned')
        meta = dict(scene_id=scene, scene_path=str(path.with_name(scene)), gt_answers=[])
        return self.rest({**entry, **meta, **self.loader.read_room(entry['room'])})


def name_of(room: RoomFile) -> str:
    """Return a room's path, or 'array'."""
    return 'array' if isinstance(room, np.ndarray) else str(room)


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
        return RoomReader(tested_dataset(cfg).pipeline)

    def _init_collate(self, cfg: Config) -> Any:
        return partial(collate, cfg)

    def __call__(  # type: ignore[override]
        self,
        rooms: RoomFile | Sequence[RoomFile],
        situation: str | Sequence[str] = (),
        question: str | Sequence[str] = (),
        batch_size: int = 1,
        **kwargs: Any,
    ) -> list:
        """Answer.

        Args:
            rooms (str | Path | np.ndarray | Sequence): For a model that reads points, a colored
                .ply, or numbers ``[V, 6 or 9]`` (x, y, z in meters, z up; red, green, blue from
                0 to 255; normals), as an array or as .npy (``_aligned_vert.npy``). For one that
                reads stored objects, ``[O, C]``.
            situation (str | Sequence[str]): What the asker does and sees, one for each question.
            question (str | Sequence[str]): The questions. A single room, situation or
                question belongs to all others.
            batch_size (int): Questions per batch.
            topk (int): The number of answers. Default: 5.
            out_dir (str | Path, optional): Write a picture of each question here.
            show (bool): Show them in a window, each for ``wait_time`` seconds.

        Returns:
            list[dict]: For each question ``room``, ``situation``, ``question``,
            ``pred_answer``, ``pred_score`` (0 to 1), ``answers``, the best ones with their
            scores, and from a model that predicts it ``pred_pose`` (7 numbers).

        Raises:
            ValueError, OSError, EOFError: A room cannot be read, a text is empty, or the
                numbers of rooms and texts differ.
        """
        single = isinstance(rooms, (str, Path, np.ndarray))
        texts = list_texts(situation, 'situation'), list_texts(question, 'question')
        rows = [[rooms] if single else list(rooms), *texts]
        count = max(map(len, rows))
        rows = [row * count if len(row) == 1 else row for row in rows]
        inputs = [
            dict(room=room, text=text, sample_idx=i)
            for i, (room, *text) in enumerate(zip(*rows, strict=True))
        ]
        found = super().__call__(inputs, batch_size=batch_size, **kwargs)
        return [dict(room=name_of(i['room']), **f) for i, f in zip(inputs, found, strict=True)]

    def visualize(  # type: ignore[override]
        self, inputs: list, preds: list, show: bool = False, wait_time: float = 0, out_dir: Any = ''
    ) -> list[np.ndarray]:
        """Draw each room with its question and the best answers, if they are shown or written."""
        if not (show or out_dir):
            return []
        from lm4ve.tasks.rooms.visualization import draw_sample

        drawn = []
        for entry, sample in zip(inputs, preds, strict=True):
            points = self.pipeline(entry)['inputs'].get('points')
            drawn.append(to_image(draw_sample(points, sample, self.model.head.vocabulary)))
        names = [file_name(e['sample_idx'], e['room']) for e in inputs]
        return self._present(drawn, names, show, wait_time, out_dir or None)

    def postprocess(  # type: ignore[override]
        self, preds: list, visualization: list, return_datasamples: bool = False, topk: int = SHOWN
    ) -> list:
        """Convert predictions to plain data."""
        return [
            dict(
                zip(('situation', 'question'), sample.text, strict=True),
                **answer_fields(sample, self.model.head.vocabulary, topk),
                **({'pred_pose': sample.pred_pose.tolist()} if 'pred_pose' in sample else {}),
            )
            for sample in preds
        ]
