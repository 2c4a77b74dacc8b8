"""Applies a trained model to files and returns plain data, for every task.

:class:`TaskInferencer` is the base of all our inferencers. :class:`FileInferencer`
reads and draws files through the task's protocol, so that a task needs no inferencer of
its own.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.infer import BaseInferencer
from torch import nn
from tqdm import tqdm

from lm4ve.draw.figures import save_picture, to_image
from lm4ve.draw.visualizer import PredictionVisualizer
from lm4ve.errors import check
from lm4ve.runner.config import read_config
from lm4ve.tasks.base.building import collate, each_sample, inference_model
from lm4ve.tasks.base.inputs import Input, find_inputs
from lm4ve.tasks.base.protocol import TaskProtocol
from lm4ve.tasks.base.task import require_task, task_of_config
from lm4ve.tasks.base.tested import tested_evaluator


class TaskInferencer(BaseInferencer):
    """A model with its checkpoint, and the config's test pipeline.

    Args:
        config (str | Path | Config): The config of the training.
        checkpoint (str | Path, optional): Its checkpoint. Default: random weights, with
            a warning.
        device (str, optional): Default: a GPU if there is one.
        allow_partial (bool): Load what fits of a checkpoint of another model.
        show_progress (bool): Show a bar.
        strict_config (bool): Raise an error, not a warning, if the checkpoint was trained
            with another model or preprocessing, or does not say so.

    Raises:
        UserError: The config is of another task, or there is no such device.
        CheckpointError: The checkpoint is missing, damaged, unsafe, or of another
            model.
    """

    visualize_kwargs = {'show', 'wait_time', 'out_dir'}
    #: The name of the only task that it serves; empty: it serves all.
    task = ''
    visualizer: Any

    def __init__(
        self,
        config: str | Path | Config,
        checkpoint: str | Path | None = None,
        device: str | None = None,
        allow_partial: bool = False,
        show_progress: bool = False,
        strict_config: bool = False,
    ) -> None:
        if not isinstance(config, Config):
            config = read_config(config)
        if self.task:
            require_task(config, self.task)
        self.allow_partial = allow_partial
        self.strict_config = strict_config
        # MMEngine's constructor builds model and pipeline from the registries of this scope.
        scope = config.get('default_scope') or 'mmengine'
        super().__init__(
            config, checkpoint, device, scope=scope, show_progress=show_progress
        )

    def check_model(self, model: nn.Module) -> None:
        """Refuse a model of the task that this inferencer does not support."""

    def _init_model(
        self, cfg: Config, weights: str | Path | None, device: str
    ) -> nn.Module:
        """Build the model for MMEngine's constructor, and keep its classes."""
        model, self.classes = inference_model(
            cfg, weights, device, self.allow_partial, self.strict_config
        )
        self.check_model(model)
        return model

    def _init_visualizer(self, cfg: Config) -> None:
        """Leave the visualizer out, which :meth:`_present` creates with the first window."""

    def _present(
        self,
        drawn: list[np.ndarray],
        names: list[str],
        show: bool,
        wait_time: float,
        out_dir: Any,
    ) -> list[np.ndarray]:
        """Write pictures to files, show them in a window, or both; return them.

        Args:
            drawn (list[np.ndarray]): uint8 ``[H, W, 3]``, RGB.
            names (list[str]): A name for each, of its file and window.
            show (bool): Show each in a window.
            wait_time (float): For so many seconds.
            out_dir (str | Path, optional): The folder of the files; None: no files.
        """
        for image, name in zip(drawn, names, strict=True):
            if out_dir is not None:
                save_picture(image, Path(out_dir) / f'{name}.png')
            if show:
                if self.visualizer is None:
                    self.visualizer = PredictionVisualizer()
                self.visualizer.show(image, win_name=name, wait_time=wait_time)
        return drawn

    def visualize(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Return nothing: :meth:`__call__` draws."""
        return []

    def postprocess(self, preds: list[Any], *args: Any, **kwargs: Any) -> list[Any]:
        """Return the predictions as they are."""
        return preds


class FileInferencer(TaskInferencer):
    """Predicts for files, for any task that reads them.

    Example::

        inferencer = FileInferencer(config, checkpoint)
        inferencer('cloud.ply')[0]['pred_class']
    """

    def _init_pipeline(self, cfg: Config) -> None:
        """Leave MMEngine's pipeline out: the task's protocol reads the files."""

    def _init_collate(self, cfg: Config) -> None:
        """Leave MMEngine's collate function out: :func:`collate` makes the batches."""

    @torch.no_grad()
    def __call__(
        self,
        inputs: Input | Sequence[Input],
        batch_size: int = 1,
        show: bool = False,
        wait_time: float = 0.0,
        out_dir: str | Path | None = None,
        **options: Any,
    ) -> list[dict[str, Any]]:
        """Predict.

        Args:
            inputs (str | Path | np.ndarray | Sequence): Files of the kinds that the
                task declares, folders or patterns of such, or images as uint8 ``[H, W,
                3]``, BGR. Damaged files of folders and patterns are skipped, with a
                warning that names them.
            batch_size (int): Files per batch.
            show (bool): Show pictures in a window, each for ``wait_time`` seconds.
            wait_time (float): Seconds.
            out_dir (str | Path, optional): Write a picture of each file here.
            **options: The task's ``input_options``.

        Returns:
            list[dict]: For each file that was read its ``name``, its ``path`` (None for
            an array) and the plain data of
            :meth:`lm4ve.tasks.base.protocol.TaskProtocol.result`.

        Raises:
            UserError: A file that is named itself is missing, unreadable, or of another
                task, or no file can be read.
        """
        check('batch_size', batch_size, least=1)
        task = task_of_config(self.cfg)
        found = find_inputs(inputs, task)
        samples = each_sample(self.cfg, found, **options)
        batches = self._get_chunk_data(samples, batch_size)
        count = math.ceil(len(found.sources) / batch_size)
        results = []
        for batch in self._with_progress(batches, count):
            names = [sample.name for sample in batch]
            collated = collate(self.cfg, [sample.data for sample in batch])
            data = task.protocol.runnable(collated)
            outputs = self.model.test_step(data)
            for sample, output in zip(batch, outputs, strict=True):
                result = task.protocol.result(output, self.classes)
                results.append(dict(name=sample.name, path=sample.path, **result))
            if show or out_dir is not None:
                drawn = self._draw(task.protocol, data, outputs, names)
                self._present(drawn, names, show, wait_time, out_dir)
        return results

    def _with_progress(self, batches: Iterable[Any], count: int) -> Iterable[Any]:
        """Return batches that show a bar on a terminal while they are read."""
        if not self.show_progress:
            return batches
        # None: tqdm shows nothing where the output is no terminal.
        return tqdm(batches, 'inference', count, disable=None)

    def _draw(
        self, protocol: TaskProtocol, data: Any, outputs: list[Any], names: list[str]
    ) -> list[np.ndarray]:
        """Draw the inputs of a batch under their names and facts, uint8 ``[H, W, 3]``, RGB."""
        from matplotlib.figure import Figure

        inputs = self.model.data_preprocessor(data, False)['inputs']
        pictures = protocol.pictures(self.model, inputs, outputs, 0)
        drawn = []
        for picture, name, output in zip(pictures, names, outputs, strict=True):
            evaluator = tested_evaluator(self.cfg)
            facts = protocol.describe(output, self.classes, evaluator)
            lines = [name]
            for fact, value in facts.items():
                lines.append(f'{fact}: {value}')
            figure = Figure(figsize=(4.5, 5.0), dpi=110, layout='constrained')
            picture.draw_input(figure.subplots())
            figure.suptitle('\n'.join(lines), fontsize=8)
            drawn.append(to_image(figure))
        return drawn
