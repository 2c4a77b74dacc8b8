"""How pictures of predictions reach the backends, for tasks whose host has no visualizer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.visualization import Visualizer

from lm4ve.tasks.base.figures import save_picture


class PredictionVisualizer(Visualizer):  # type: ignore[misc]
    """MMEngine's visualizer for pictures that are drawn already; takes its arguments."""

    def present(
        self,
        name: str,
        image: np.ndarray,
        show: bool = False,
        wait_time: float = 0.0,
        out_file: str | Path | None = None,
        step: int = 0,
    ) -> np.ndarray:
        """Send a picture to the backends, a file or a window.

        Args:
            name (str): The picture's name.
            image (np.ndarray): uint8 ``[H, W, 3]``, RGB.
            show (bool): Show it in a window, for ``wait_time`` seconds.
            wait_time (float): Seconds.
            out_file (str | Path, optional): A PNG instead of the backends.
            step (int): Global step.

        Returns:
            np.ndarray: ``image``.
        """
        self.set_image(image)
        if show:
            self.show(image, win_name=name, wait_time=wait_time)
        if out_file is not None:
            save_picture(image, out_file)
        else:
            self.add_image(name, image, step=step)
        return image


class PredictionVisualizationHook(Hook):  # type: ignore[misc]
    """Draw every n-th sample in validation and testing. A task says how: :meth:`draw`.

    Args:
        enable (bool): Default: off.
        interval (int): Every n-th sample.
        show (bool): Show them in a window, for ``wait_time`` seconds each.
        wait_time (float): Seconds.
        out_dir (str, optional): PNG files here instead of the backends.
        **kwargs: Other hooks' arguments, which a config that is inherited may have.
    """

    priority = 'NORMAL'

    def __init__(
        self,
        enable: bool = False,
        interval: int = 500,
        show: bool = False,
        wait_time: float = 0.0,
        out_dir: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.enable, self.interval = enable, interval
        self.show, self.wait_time, self.out_dir = show, wait_time, out_dir

    def draw(
        self, runner: Runner, mode: str, number: int, index: int, batch: Any, sample: Any
    ) -> None:
        """Draw a sample.

        Args:
            runner (Runner): Its visualizer draws.
            mode (str): 'val' or 'test'.
            number (int): The sample's number in the data of this process.
            index (int): Its number in the batch.
            batch (dict): What the data loader gave.
            sample: The model's prediction.
        """
        raise NotImplementedError

    def options(self, runner: Runner, stem: str) -> dict[str, Any]:
        """Return where a picture goes, arguments of :meth:`PredictionVisualizer.present`."""
        out_file = self.out_dir and str(Path(self.out_dir) / f'{stem}.png')
        return dict(show=self.show, wait_time=self.wait_time, out_file=out_file, step=runner.iter)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Draw the samples of a batch whose turn it is."""
        self._draw_batch(runner, 'val', batch_idx, data_batch, outputs)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Draw the samples of a batch whose turn it is."""
        self._draw_batch(runner, 'test', batch_idx, data_batch, outputs)

    def _draw_batch(
        self, runner: Runner, mode: str, batch_idx: int, batch: Any, outputs: Sequence[Any]
    ) -> None:
        if not self.enable:
            return
        loader = runner.val_dataloader if mode == 'val' else runner.test_dataloader
        first = batch_idx * (loader.batch_size or len(outputs))
        for index, sample in enumerate(outputs):
            if (first + index) % self.interval == 0:
                self.draw(runner, mode, first + index, index, batch, sample)
