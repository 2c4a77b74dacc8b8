"""Pictures of answered questions about rooms, and the hook that draws them in training."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.model import is_model_wrapper

from lm4ve.registry import HOOKS, VISUALIZERS
from lm4ve.tasks.base.analysis import numbered
from lm4ve.tasks.base.figures import to_image
from lm4ve.tasks.base.prediction_pictures import PredictionVisualizationHook, PredictionVisualizer
from lm4ve.tasks.rooms.drawing import draw_sample


@VISUALIZERS.register_module()
class RoomVisualizer(PredictionVisualizer):
    """MMEngine's visualizer for answered questions about rooms; takes its arguments."""

    def add_datasample(
        self,
        name: str,
        points: np.ndarray | None,
        data_sample: Any,
        vocabulary: Sequence[str],
        show: bool = False,
        wait_time: float = 0.0,
        out_file: str | None = None,
        step: int = 0,
    ) -> np.ndarray:
        """Draw a room with its question and the best answers; send it to the backends.

        Args:
            name (str): The picture's name.
            points (np.ndarray, optional): ``[P, 3 + F]``; None where the model reads stored
                objects.
            data_sample (VisionLanguageDataSample): With its two texts and predictions.
            vocabulary (Sequence[str]): The answers.
            show (bool): Show it in a window, for ``wait_time`` seconds.
            wait_time (float): Seconds.
            out_file (str, optional): A PNG instead of the backends.
            step (int): Global step.

        Returns:
            np.ndarray: uint8 ``[H, W, 3]``, RGB.
        """
        drawn = to_image(draw_sample(points, data_sample, vocabulary))
        return self.present(name, drawn, show, wait_time, out_file, step)


@HOOKS.register_module()
class RoomVisualizationHook(PredictionVisualizationHook):
    """Draw answered questions about rooms in validation and testing.

    Args:
        interval (int): Every n-th question.
        **kwargs: Passed to :class:`PredictionVisualizationHook`.
    """

    def __init__(self, interval: int = 5000, **kwargs: Any) -> None:
        super().__init__(interval=interval, **kwargs)

    def draw(self, runner, mode: str, number: int, index: int, batch: Any, sample: Any) -> None:
        """Draw a question with its room and its best answers."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        rooms = batch['inputs'].get('points')
        name = f'{mode}_{numbered(number, sample.get("scene_id"))}'
        runner.visualizer.add_datasample(
            name,
            None if rooms is None else rooms[index].cpu().numpy(),
            sample,
            model.head.vocabulary,
            **self.options(runner, f'{name}_{runner.iter}'),
        )
