"""Sends pictures of predictions to MMEngine's backends, to files and to windows.

Tasks use it whose models come from no library with a visualizer and a hook of its own.
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
        enable (bool): Whether anything is drawn; off by default.
        interval (int): Every n-th sample is drawn, the first one included.
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
        # kwargs: a config that inherits from another host's keeps the arguments of that
        # host's hook, which mean nothing here.
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
        """Return where a picture goes: arguments of :meth:`PredictionVisualizer.present`.

        Args:
            runner (Runner): Its iteration is the global step.
            stem (str): The name of the picture's file, without folder and ending.
        """
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
        """Draw every n-th sample of validation and tests, counted over all batches.

        MMEngine calls this after each iteration, with the number of the batch, the batch
        of the data loader, the predictions (one a sample) and 'train', 'val' or 'test'.
        """
        if not self.enable or mode == 'train':
            return
        if mode == 'val':
            loader = runner.val_dataloader
        else:
            loader = runner.test_dataloader
        batch_size = loader.batch_size
        if batch_size is None:
            # A batch sampler makes the batches. The numbers are right as long as all
            # batches are as large as this one.
            batch_size = len(outputs)
        for index, sample in enumerate(outputs):
            number = batch_idx * batch_size + index
            if number % self.interval == 0:
                self.draw(runner, mode, number, index, data_batch, sample)
