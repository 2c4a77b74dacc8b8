"""Sends pictures of predictions to MMEngine's backends, to files and to windows.

For tasks without a host's visualizer and hook.
"""

from pathlib import Path
from typing import Any

import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.visualization import Visualizer

from lm4ve.draw.figures import save_picture


# ---------------------------------------------------------------------- predictions
class PredictionVisualizer(Visualizer):
    """MMEngine's visualizer, with its arguments, for pictures that are already drawn."""

    def present(
        self,
        name: str,
        image: np.ndarray,
        show: bool = False,
        wait_time: float = 0.0,
        out_file: str | Path | None = None,
        step: int = 0,
    ) -> np.ndarray:
        """Send a picture to the backends, or to a file and a window, and return it.

        Args:
            name (str): The picture's name.
            image (np.ndarray): uint8 ``[H, W, 3]``, RGB.
            show (bool): Show it in a window, for ``wait_time`` seconds.
            wait_time (float): Seconds.
            out_file (str | Path, optional): A PNG instead of the backends.
            step (int): Global step.
        """
        self.set_image(image)
        if show:
            self.show(image, win_name=name, wait_time=wait_time)
        if out_file is None:
            self.add_image(name, image, step=step)
        else:
            save_picture(image, out_file)
        return image


class PredictionVisualizationHook(Hook):
    """Draws every n-th sample in validation and testing. A task implements :meth:`draw`.

    Args:
        enable (bool): Default: off.
        interval (int): Every n-th sample.
        show (bool): Show them in a window, for ``wait_time`` seconds each.
        wait_time (float): Seconds.
        out_dir (str, optional): PNG files here instead of the backends.
        **kwargs: Ignored: other hooks' arguments in an inherited config.
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
        self.enable = enable
        self.interval = interval
        self.show = show
        self.wait_time = wait_time
        self.out_dir = out_dir

    def draw(
        self,
        runner: Runner,
        mode: str,
        number: int,
        index: int,
        batch: Any,
        sample: Any,
    ) -> None:
        """Draw a sample.

        Args:
            runner (Runner): Its visualizer draws.
            mode (str): 'val' or 'test'.
            number (int): The sample's number in the data of this process.
            index (int): Its number in the batch.
            batch (dict): The data loader's batch.
            sample: The model's prediction.
        """
        raise NotImplementedError

    def options(self, runner: Runner, stem: str) -> dict[str, Any]:
        """Return the arguments of :meth:`PredictionVisualizer.present` for a picture."""
        out_file = None
        if self.out_dir:
            out_file = str(Path(self.out_dir) / f'{stem}.png')
        return dict(
            show=self.show,
            wait_time=self.wait_time,
            out_file=out_file,
            step=runner.iter,
        )

    def _after_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any, outputs: Any, mode: str
    ) -> None:
        """Draw those samples of a batch that are due; MMEngine calls it after each iteration."""
        if not self.enable or mode == 'train':
            return
        loader = runner.val_dataloader if mode == 'val' else runner.test_dataloader
        # A loader with a batch sampler has no batch size.
        batch_size = loader.batch_size or len(outputs)
        for index, sample in enumerate(outputs):
            number = batch_idx * batch_size + index
            if number % self.interval == 0:
                self.draw(runner, mode, number, index, data_batch, sample)
