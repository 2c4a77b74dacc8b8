"""Hooks of the point-cloud task for `lm4ve visualize`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose
from torch import Tensor, nn

from lm4ve.tasks.base.analysis import Layout, TaskAnalysis, tested_dataset
from lm4ve.tasks.base.pictures import BACKGROUND, Picture, TokenMap, view_axes, without_ticks
from lm4ve.tasks.pointcloud import TASK


class PointCloudAnalysis(TaskAnalysis):
    """Clouds ``[B, N, 3]``, a token for each group of points."""

    def read_input(self, cfg: Config, path: Path, pipeline: list[dict], **options: Any) -> dict:
        from lm4ve.tasks.pointcloud.datasets.readers import drop_nonfinite, read_points

        for t in pipeline:
            # Data sets store farthest points first, or in random order; files do not.
            if t['type'].endswith('SamplePoints') and t.get('method') == 'first':
                t['method'] = 'fps'
        if tested_dataset(cfg).type.endswith('PrimitivesDataset'):
            # Its objects are of that size already.
            pipeline = [dict(type='lm4ve.NormalizeToUnitSphere'), *pipeline]
        points = drop_nonfinite(read_points(path), f"'{path}'")
        np.random.seed(0)
        return Compose(pipeline)(dict(points=points, path=str(path), sample_idx=0))

    def layout(
        self, model: nn.Module, inputs: Tensor, count: int, grid: tuple[int, ...] | None = None
    ) -> Layout:
        backbone = getattr(model, 'backbone', model)
        groups = getattr(backbone, 'num_groups', count - 1)
        return Layout(self.task.name, count - groups, (groups,)).fitting(count)

    def pictures(
        self, model: nn.Module, inputs: Tensor, outputs: Sequence[Any], frames: int
    ) -> list['Cloud']:
        _, groups = model.backbone.group(inputs)
        return [
            Cloud(points.detach().double().cpu().numpy(), index.cpu().numpy())
            for points, index in zip(inputs, groups, strict=True)
        ]


class Cloud(Picture):
    """A point cloud and its token groups, seen from one side.

    Args:
        points (np.ndarray): float ``[N, 3]``.
        groups (np.ndarray): int ``[G, S]``, each group's points.
    """

    side = 1.9
    caption = 'near points are dark'

    def __init__(self, points: np.ndarray, groups: np.ndarray) -> None:
        self.groups = groups
        #: Right, up, and towards the eye, ``[N, 3]``, in the points' unit.
        self.seen = (points - (points.max(axis=0) + points.min(axis=0)) / 2) @ view_axes().T
        # Far ones first, so that near ones cover them.
        self.order = np.argsort(self.seen[:, 2], kind='stable')

    def point_values(self, values: np.ndarray) -> np.ndarray:
        """Average values ``[G]`` over each point's groups, ``[N]``, NaN without any."""
        member = np.zeros((len(self.groups), len(self.seen)), dtype=bool)
        np.put_along_axis(member, self.groups, True, axis=1)
        count = member.sum(axis=0)
        return np.where(count > 0, values @ member / np.maximum(count, 1), np.nan)

    def draw_input(self, axes: Any, time: int = 0) -> None:
        """Draw the points, near ones dark."""
        depth = self.seen[:, 2]
        # Not from white: the far side is to be seen too.
        white = depth.min() - 0.6 * np.ptp(depth)
        self._scatter(axes, depth, cmap='Greys', vmin=white, vmax=depth.max())

    def draw_values(self, axes: Any, tokens: TokenMap, colors: str, time: int = 0) -> None:
        """Color the points by their groups; those without one are small and gray."""
        from matplotlib import colormaps

        shades = colormaps[colors].with_extremes(bad='0.58')
        self._scatter(axes, self.point_values(tokens.values), cmap=shades, norm=tokens.norm())

    def _scatter(self, axes: Any, values: np.ndarray, **colors: Any) -> None:
        size = np.clip(4500 / len(values), 2.0, 24.0) * np.where(np.isfinite(values), 1.0, 0.3)
        style = dict(s=size[self.order], linewidths=0, plotnonfinite=True, **colors)
        axes.scatter(*self.seen[self.order, :2].T, c=values[self.order], **style)
        reach = 1.06 * np.abs(self.seen[:, :2]).max()
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect='equal', facecolor=BACKGROUND)
        without_ticks(axes)


ANALYSIS = PointCloudAnalysis(TASK)
