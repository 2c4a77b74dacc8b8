"""A trained model that takes files and gives plain data, for every task.

:class:`TaskInferencer` is what all inferencers of ours are built on;
:class:`FileInferencer` asks a task's analysis how a file is read, drawn and told of, so that
a task needs no inferencer of its own.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from mmengine.config import Config
from mmengine.infer import BaseInferencer
from mmengine.logging import print_log
from torch import nn

from lm4ve.errors import UserError
from lm4ve.runner.config import read_config
from lm4ve.runner.devices import find_device
from lm4ve.tasks.base.building import build_model, classes_of
from lm4ve.tasks.base.inputs import Given, collate, each_sample
from lm4ve.tasks.base.progress import progress
from lm4ve.tasks.base.table import require_task, task_of_config

T = TypeVar('T')


def warn_untrained() -> None:
    """Say that a model without a checkpoint knows nothing."""
    text = 'No checkpoint: the model is untrained, and its results say nothing.'
    print_log(text, logger='current', level=logging.WARNING)


class TaskInferencer(BaseInferencer):  # type: ignore[misc]
    """A model with its checkpoint, and the config's test pipeline.

    Args:
        config (str | Path | Config): That the model was trained with.
        checkpoint (str | Path, optional): Its checkpoint; default: random weights, with
            a warning.
        device (str, optional): Default: a GPU if there is one.
        allow_partial (bool): Load what fits of a checkpoint of another model.
        show_progress (bool): Show a bar.

    Raises:
        UserError: The config is of another task; there is no such device.
        CheckpointError: The checkpoint is missing, damaged, unsafe, or of another model.
    """

    visualize_kwargs = {'show', 'wait_time', 'out_dir'}
    #: The name of the only task that it serves; empty: any.
    task = ''
    visualizer: Any

    def __init__(
        self,
        config: str | Path | Config,
        checkpoint: str | Path | None = None,
        device: str | None = None,
        allow_partial: bool = False,
        show_progress: bool = False,
    ) -> None:
        cfg = config if isinstance(config, Config) else read_config(config)
        if self.task:
            require_task(cfg, self.task)
        self.allow_partial = allow_partial
        super().__init__(
            cfg,
            checkpoint,
            find_device(device, 'device'),
            scope=cfg.get('default_scope') or 'mmengine',
            show_progress=show_progress,
        )

    def check_model(self, model: nn.Module) -> None:
        """Refuse a model of the task that this inferencer cannot ask."""

    def _init_model(
        self, cfg: Config, weights: str | Path | None, device: torch.device
    ) -> nn.Module:
        model, content = build_model(cfg, weights, self.allow_partial)
        self.check_model(model)
        self.classes = classes_of(cfg, content)
        if weights is None:
            warn_untrained()
        return model.to(device).eval()

    def _init_visualizer(self, cfg: Config) -> None:
        """Make none before a window is to be shown."""

    def _present(
        self,
        drawn: Sequence[np.ndarray],
        names: Sequence[str],
        show: bool,
        wait_time: float,
        out_dir: str | Path | None,
    ) -> list[np.ndarray]:
        """Write pictures, uint8 ``[H, W, 3]`` RGB, to files, a window or both."""
        # Both need packages that the core lacks.
        from lm4ve.tasks.base.figures import save_picture
        from lm4ve.tasks.base.prediction_pictures import PredictionVisualizer

        for image, name in zip(drawn, names, strict=True):
            if out_dir is not None:
                save_picture(image, Path(out_dir) / f'{name}.png')
            if show:
                self.visualizer = self.visualizer or PredictionVisualizer()
                self.visualizer.show(image, win_name=name, wait_time=wait_time)
        return list(drawn)

    def visualize(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Do nothing: :meth:`__call__` draws."""
        return []

    def postprocess(self, preds: list[Any], *args: Any, **kwargs: Any) -> list[Any]:
        """Return the predictions as they are."""
        return preds


class FileInferencer(TaskInferencer):
    """Say what a model predicts of files, for any task with an analysis.

    The inputs are what the task's analysis reads::

        inferencer = FileInferencer(config, checkpoint)
        inferencer('cloud.ply')[0]['pred_class']
    """

    def _init_pipeline(self, cfg: Config) -> None:
        """Leave it to the task, which reads files."""

    def _init_collate(self, cfg: Config) -> None:
        """Leave it to the config's test data loader."""

    def __call__(
        self,
        inputs: str | Path | Sequence[str | Path],
        batch_size: int = 1,
        show: bool = False,
        wait_time: float = 0.0,
        out_dir: str | Path | None = None,
        **options: Any,
    ) -> list[dict[str, Any]]:
        """Predict.

        Args:
            inputs (str | Path | Sequence): Files of the kinds that the task declares. All of
                them are looked at before anything is computed.
            batch_size (int): Files at a time.
            show (bool): Show pictures in a window, each for ``wait_time`` seconds.
            wait_time (float): Seconds.
            out_dir (str | Path, optional): Write a picture of each file here.
            **options: The task's ``input_options``.

        Returns:
            list[dict]: Plain data of each file: its ``name`` and what
            :meth:`lm4ve.tasks.base.analysis.TaskAnalysis.result` says.

        Raises:
            UserError: A file is missing, unreadable, or of another task.
        """
        files = [inputs] if isinstance(inputs, (str, Path)) else list(inputs)
        if not files or batch_size < 1:
            raise UserError(
                f'{len(files)} inputs and batch_size={batch_size}: both must be at least 1.'
            )
        batches = batched(each_sample(self.cfg, files, **options), batch_size)
        if self.show_progress:
            batches = progress(batches, 'inference', -(-len(files) // batch_size))
        results = []
        for given in batches:
            outputs, drawn = self._predict(given, show or out_dir is not None)
            for sample, output in zip(given, outputs, strict=True):
                found = self.analysis.result(output, self.classes)
                results.append(dict(name=sample.name, **found))
            if drawn:
                self._present(drawn, [g.name for g in given], show, wait_time, out_dir)
        return results

    @property
    def analysis(self) -> Any:
        """What the config's task says of reading, drawing and telling."""
        return task_of_config(self.cfg).analysis

    @torch.no_grad()
    def _predict(
        self, given: Sequence[Given], drawn: bool
    ) -> tuple[Sequence[Any], list[np.ndarray]]:
        data = self.analysis.runnable(collate(self.cfg, [g.data for g in given]))
        outputs = self.model.test_step(data)
        if not drawn:
            return outputs, []
        inputs = self.model.data_preprocessor(data, False)['inputs']
        pictures = self.analysis.pictures(self.model, inputs, outputs, 0)
        facts = [self.analysis.facts(o, self.classes) for o in outputs]
        names = [g.name for g in given]
        return outputs, [_draw(*x) for x in zip(pictures, names, facts, strict=True)]


def _draw(picture: Any, name: str, facts: dict[str, str]) -> np.ndarray:
    """Draw an input under what is said of it, uint8 ``[H, W, 3]``, RGB."""
    from matplotlib.figure import Figure

    from lm4ve.tasks.base.figures import to_image

    figure = Figure(figsize=(4.5, 5.0), dpi=110, layout='constrained')
    picture.draw_input(figure.subplots())
    lines = [name, *(f'{k}: {v}' for k, v in facts.items())]
    figure.suptitle('\n'.join(lines), fontsize=8)
    return to_image(figure)


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of ``size`` items, the last of which may be shorter."""
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some
