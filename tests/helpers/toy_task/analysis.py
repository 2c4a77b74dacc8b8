"""Hooks of the toy task for ``lm4ve visualize``."""

import numpy as np
import torch
from mmengine.dataset import Compose

from lm4ve.draw.figures import without_ticks
from lm4ve.draw.pictures import Picture
from lm4ve.tasks.base.analysis import Layout, TaskAnalysis
from tests.helpers.toy_task import TASK


class WaveAnalysis(TaskAnalysis):
    """Waves ``[32]``, a token for every four samples."""

    def read_input(self, cfg, path, pipeline, gain=1.0):
        samples = float(gain) * np.loadtxt(path, dtype=np.float32)
        return Compose(pipeline)(dict(inputs=torch.from_numpy(samples).float()))

    def layout(self, model, inputs, count, grid=None):
        return Layout(self.task.name, 0, (len(inputs[0]) // 4,)).fitting(count)

    def pictures(self, model, inputs, outputs, frames):
        return [Wave(x.cpu().numpy()) for x in inputs]


class Wave(Picture):
    """One wave.

    Args:
        samples (np.ndarray): float ``[32]``.
    """

    def __init__(self, samples: np.ndarray) -> None:
        self.samples = samples

    def draw_input(self, axes, time=0):
        axes.plot(np.arange(len(self.samples)) + 0.5, self.samples, 'k')
        without_ticks(axes)

    def draw_values(self, axes, tokens, colors, time=0):
        """Draw a stripe for each token behind its samples."""
        top = np.abs(self.samples).max() + 0.1
        place = dict(extent=(0, len(self.samples), -top, top), aspect='auto')
        axes.imshow(tokens.values[None], cmap=colors, norm=tokens.norm(), **place)
        self.draw_input(axes)


ANALYSIS = WaveAnalysis(TASK)
