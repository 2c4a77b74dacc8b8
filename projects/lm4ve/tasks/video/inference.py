"""Recognize actions with mmaction2's inferencer, with a checkpoint that has to fit."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmaction.apis.inferencers import ActionRecogInferencer
from mmengine.config import Config
from torch import nn

from lm4ve.errors import UserError
from lm4ve.runner.devices import find_device
from lm4ve.tasks.base.analysis import label_result
from lm4ve.tasks.base.building import build_model, classes_of
from lm4ve.tasks.base.inferencer import warn_untrained
from lm4ve.tasks.video.corruption import find_defect
from lm4ve.tasks.video.visualization import SHOWN, write_annotated

Video = str | Path | np.ndarray


class VideoInferencer(ActionRecogInferencer):
    """mmaction2's inferencer for video files, decoded by decord.

    Args:
        config (Config): That the model was trained with.
        checkpoint (str | Path, optional): Default: random weights, with a warning.
        device (str, optional): Default: a GPU if there is one.
        allow_partial (bool): Load what fits of a checkpoint of another model.
        show_progress (bool): Show a bar.

    Raises:
        CheckpointError: The checkpoint is missing, damaged, unsafe, or of another model.
    """

    def __init__(
        self,
        config: Config,
        checkpoint: str | Path | None = None,
        device: str | None = None,
        allow_partial: bool = False,
        show_progress: bool = False,
    ) -> None:
        self.allow_partial = allow_partial
        super().__init__(config, checkpoint, find_device(device, 'device'))
        self.show_progress = show_progress

    def _init_model(self, cfg: Config, weights: str | Path | None, device: Any) -> nn.Module:
        model, content = build_model(cfg, weights, self.allow_partial)
        if weights is None:
            warn_untrained()
        self.classes = classes_of(cfg, content)
        return model.to(device).eval()

    def __call__(  # type: ignore[override]
        self,
        inputs: str | Path | Sequence[str | Path],
        batch_size: int = 1,
        show: bool = False,
        wait_time: float = 0.0,
        out_dir: str | Path | None = None,
    ) -> list[dict]:
        """Classify.

        Args:
            inputs (str | Path | Sequence): Videos.
            batch_size (int): Videos at a time.
            show (bool): Show frames in a window, each for ``wait_time`` seconds.
            wait_time (float): Seconds.
            out_dir (str | Path, optional): Write each video here with its likeliest classes.

        Returns:
            list[dict]: ``pred_label``, ``pred_score``, ``pred_scores`` and, if classes are
            known, ``pred_class``.

        Raises:
            UserError: A video cannot be read.
        """
        files = [inputs] if isinstance(inputs, (str, Path)) else list(inputs)
        for file in files:
            defect = find_defect(str(file))
            if defect is not None:
                raise UserError(f"The video '{file}' {defect}. Fix: give another one.")
        given = [str(f) for f in files]
        with torch.no_grad():
            found = super().__call__(given, True, batch_size, show=show, wait_time=wait_time)
        results = [label_result(s, self.classes) for s in found['predictions']]
        if out_dir is not None:
            for number, (file, result) in enumerate(zip(files, results, strict=True)):
                out = Path(out_dir) / f'{number:05d}_{Path(file).stem}.mp4'
                write_annotated(file, self._ranking(result['pred_scores']), out)
        return results

    def _ranking(self, scores: np.ndarray) -> list[tuple[str, float]]:
        """Return the likeliest classes with their probabilities."""
        best = np.argsort(-scores)[:SHOWN]
        return [(self.classes[i] if self.classes else f'class {i}', float(scores[i])) for i in best]
