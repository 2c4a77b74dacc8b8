"""Classifies images with mmpretrain's inferencer and a checkpoint that has to fit."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.apis import ImageClassificationInferencer

from lm4ve.errors import UserError
from lm4ve.tasks.base.building import inference_model
from lm4ve.tasks.base.image_files import find_defect

Image = str | Path | np.ndarray


class ImageInferencer(ImageClassificationInferencer):
    """mmpretrain's inferencer for paths and arrays, uint8 ``[H, W, 3]`` (BGR).

    The arguments are those of :class:`lm4ve.tasks.base.inferencer.TaskInferencer`.
    """

    def __init__(
        self,
        config: Config,
        checkpoint: str | Path | None = None,
        device: str | None = None,
        allow_partial: bool = False,
        show_progress: bool = False,
    ) -> None:
        model, classes = inference_model(config, checkpoint, device, allow_partial)
        model._config = config
        self.show_progress = show_progress
        super().__init__(model, False, classes=classes)

    def __call__(
        self,
        inputs: Image | Sequence[Image],
        batch_size: int = 1,
        show: bool = False,
        wait_time: float = 0.0,
        out_dir: str | Path | None = None,
        **options: Any,
    ) -> list[dict]:
        """Classify.

        Args:
            inputs (str | Path | np.ndarray | Sequence): Images.
            batch_size (int): Images per batch.
            show (bool): Show pictures in a window, each for ``wait_time`` seconds.
            wait_time (float): Seconds.
            out_dir (str | Path, optional): Write a picture of each image here.
            **options: Further ones of mmpretrain's inferencer.

        Returns:
            list[dict]: ``pred_label``, ``pred_score``, ``pred_scores`` and, if classes are
            known, ``pred_class``.

        Raises:
            UserError: An image cannot be read.
        """
        images = [inputs] if isinstance(inputs, (str, Path, np.ndarray)) else list(inputs)
        images = [i if isinstance(i, np.ndarray) else str(i) for i in images]
        for image in images:
            if isinstance(image, str) and (defect := find_defect(image, decode=True)):
                raise UserError(f"The image '{image}' {defect}.")
        if out_dir is not None:
            Path(out_dir).mkdir(parents=True, exist_ok=True)
            options['show_dir'] = out_dir
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            return super().__call__(
                images, batch_size=batch_size, show=show, wait_time=wait_time, **options
            )
