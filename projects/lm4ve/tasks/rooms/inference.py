"""``RoomInferencer``: a trained SQA3D answers questions about rooms in files or arrays."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose

from lm4ve.draw.figures import to_image
from lm4ve.errors import UserError, first_line
from lm4ve.registry import TRANSFORMS
from lm4ve.tasks.base.answering import AnsweringInferencer, name_of
from lm4ve.tasks.base.inputs import find_inputs
from lm4ve.tasks.base.tested import pipeline_of
from lm4ve.tasks.rooms import TASK
from lm4ve.tasks.rooms.datasets.scene_files import RoomFile
from lm4ve.tasks.rooms.visualization import draw_sample
from lm4ve.text.words import list_texts


class RoomReader:
    """A test pipeline that begins with any file or array instead of a data set's scene.

    Args:
        pipeline (Sequence[dict]): Its first step is ``LoadScene`` or ``LoadObjects``.
    """

    def __init__(self, pipeline: Sequence[dict]) -> None:
        first, *rest = pipeline
        self.loader = TRANSFORMS.build(dict(first))
        self.rest = Compose([dict(transform) for transform in rest])

    def __call__(self, entry: dict) -> dict:
        """Return the sample of a ``room``, with ``text`` and ``sample_idx``."""
        path = Path(name_of(entry['room']))
        # As in the data set, where a scene's name is the seed of the sampled points.
        scene = path.stem.removesuffix('_vert').removesuffix('_aligned')
        results = dict(entry)
        results['scene_id'] = scene
        results['scene_path'] = str(path.with_name(scene))
        results['gt_answers'] = []
        results |= self.loader.read_room(entry['room'])
        return self.rest(results)


class RoomInferencer(AnsweringInferencer):
    """Answers questions of somebody who stands in a room::

        inferencer = RoomInferencer(config, checkpoint)
        inferencer('scene0000_00_aligned_vert.npy', 'I am facing the bed.', 'What is behind me?')

    Its arguments are those of every inferencer: ``config``, ``checkpoint``, ``device``,
    ``allow_partial``, ``show_progress`` and ``strict_config``.
    """

    task = TASK.name
    source = 'room'
    texts = ('situation', 'question')

    def _init_pipeline(self, cfg: Config) -> Any:
        return RoomReader(pipeline_of(cfg))

    def __call__(
        self,
        rooms: RoomFile | Sequence[RoomFile],
        situation: str | Sequence[str] = (),
        question: str | Sequence[str] = (),
        **kwargs: Any,
    ) -> list:
        """Answer.

        Args:
            rooms (str | Path | np.ndarray | Sequence): For a model that reads points, a
                colored .ply, or numbers ``[V, 6 or 9]`` (x, y, z in meters, z up; red,
                green, blue from 0 to 255; normals), as an array or as .npy
                (``_aligned_vert.npy``). For one that reads stored objects, ``[O, C]``. Of
                folders and patterns, damaged files are skipped with a warning.
            situation (str | Sequence[str]): What the asker does and sees, one for each
                question.
            question (str | Sequence[str]): The questions. A single room, situation or
                question belongs to all others.
            **kwargs: See :meth:`AnsweringInferencer.ask`.

        Returns:
            list[dict]: For each question ``room``, ``situation``, ``question``,
            ``pred_answer``, ``pred_score`` (0 to 1), ``answers``, the best ones with
            their scores, and from a model that predicts it ``pred_pose`` (7 numbers).

        Raises:
            ValueError, OSError, EOFError: A room cannot be read, a text is empty, or
                the numbers of rooms and texts differ.
        """
        rows: dict[str, list[Any]] = dict(
            room=self._list_rooms(rooms),
            situation=list_texts(situation, 'situation'),
            question=list_texts(question, 'question'),
        )
        return self.ask(rows, **kwargs)

    def _list_rooms(
        self, rooms: RoomFile | Sequence[RoomFile]
    ) -> list[Path | np.ndarray]:
        """Return rooms, those of folders and patterns without damaged ones."""
        found = find_inputs(rooms, TASK)
        if not found.found:
            return found.sources  # the pipeline reads them
        return [found.sources[place] for place, _ in found.read_each(self._read_room)]

    def _read_room(self, room: RoomFile) -> dict:
        """Read a room.

        Raises:
            UserError: It is damaged, in whatever words.
        """
        try:
            content: dict = self.pipeline.loader.read_room(room)
        except (ValueError, LookupError, OSError) as error:
            raise UserError(
                f"The room '{name_of(room)}' cannot be read: {first_line(error)}"
            ) from error
        return content

    def draw(self, entry: dict, sample: Any) -> np.ndarray:
        """Draw a room with a question and its best answers."""
        points = self.pipeline(entry)['inputs'].get('points')
        return to_image(draw_sample(points, sample, self.model.head.vocabulary))
